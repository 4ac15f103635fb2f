"""What others' files wrap weights in: dictionaries, prefixes, a moving average beside the weights, those of a loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from counterpoise.errors import ModelError

State = dict[str, Tensor]
Which = Literal["auto", "live", "ema"]

LIVE = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "params", "module")
AVERAGED = ("state_dict_ema", "model_ema", "model_ema_state_dict", "ema_state_dict", "ema_model", "ema_weights",
            "params_ema", "ema", "shadow")  # fmt: skip
"""Where training scripts put the weights, and their moving average."""
SEGMENTS = ("model", "net", "network", "backbone", "module", "_orig_mod")
"""Of prefixes: attributes that a network is kept under, in Lightning's modules, DataParallel and torch.compile."""
BESIDE = ("criterion", "loss", "loss_fn", "loss_func", "loss_function", "n_averaged")
"""What lies beside a network in the state of a whole training module."""
_DEEPEST = 4


class Held(NamedTuple):
    """The weights that a file holds: as they were trained, and their moving average; and what was said of them."""

    live: State | None
    averaged: State | None
    notes: tuple[str, ...] = ()


def unwrap(content: Any, apart: bool = True) -> Held | None:
    """The weights in what a file holds, wherever training scripts put them; None where there are none.

    apart: whether names within one state tell an average, too; they may be those of parts of a network.
    """
    live, averaged = [], []
    for where, is_average, state in _states(content):
        moving = {key: value for key, value in state.items() if apart and key.partition(".")[0] in AVERAGED}
        rest = {key: value for key, value in state.items() if key not in moving}
        if moving and rest and not is_average:  # beside each other in one state, as attributes of one module
            averaged.append((where, _after_first(moving)))
            live.append((where, rest))
        else:
            (averaged if is_average or moving else live).append((where, _after_first(moving) or rest))
    if not live and not averaged:
        return None
    notes = []
    for found in (live, averaged):
        if len(found) > 1 and any(not _equal(found[0][1], state) for _, state in found[1:]):
            notes.append(f"weights lie under {', '.join(where for where, _ in found)}: those under {found[0][0]} count")
    return Held(live[0][1] if live else None, averaged[0][1] if averaged else None, tuple(notes))


def chosen(held: Held, which: Which, origin: str) -> tuple[State, tuple[str, ...]]:
    """The weights that are meant, and what is to be said of the choice. Raises ModelError where the file has none."""
    live, averaged = held.live, held.averaged
    notes = tuple(f"{origin}: {note}." for note in held.notes)
    if which == "live" and live is None:
        raise ModelError(f"{origin} holds a moving average of weights alone: leave out weights: live.")
    if which == "ema" and averaged is None:
        raise ModelError(f"{origin} holds no moving average of weights: leave out weights: ema.")
    if live is not None and averaged is not None:
        taken, other = ("the weights", "ema") if which == "live" else ("the moving average", "live")
        what = f"{origin} holds weights and their moving average: {taken} count"
        return live if which == "live" else averaged, (*notes, f"{what}; weights: {other} takes the others.")
    if averaged is not None:
        return averaged, (*notes, f"{origin} holds a moving average of weights, which counts.")
    assert live is not None
    return live, notes


def arranged(state: State, fits: Callable[[State], bool], origin: str) -> tuple[State, tuple[str, ...]] | None:
    """The part of a state that is the network's own, in its names, and what was left out; None where no part fits.

    Raises ModelError where parts under several prefixes fit, and are not the same.
    """
    if fits(state):
        return state, ()
    found: list[tuple[str, State]] = []
    for prefix in _prefixes(state):
        part = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        if not prefix:
            part = {key: value for key, value in part.items() if key.partition(".")[0] not in BESIDE}
        if fits(part) and not any(_equal(part, other) for _, other in found):
            found.append((prefix, part))
    if not found:
        return None
    if len(found) > 1:
        names = " and ".join(f"'{prefix}'" for prefix, _ in found)
        raise ModelError(f"{origin} holds several networks that fit, under {names}: save the one that is meant alone.")
    prefix, part = found[0]
    left = [key for key in state if key.removeprefix(prefix) not in part or not key.startswith(prefix)]
    if not left:
        return part, ()
    return part, (left_out(origin, left),)


def left_out(origin: str, names: Sequence[str]) -> str:
    """The sentence that says which tensors of a file are not taken."""
    named = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return f"{origin}: {named} is no part of the network, and left out."


def plain(state: State) -> State:
    """A state without what lies beside a network, and without the prefixes that all its names share."""
    part = {key: value for key, value in state.items() if key.partition(".")[0] not in BESIDE} or state
    for _ in range(2 * _DEEPEST):
        firsts = {key.partition(".")[0] for key in part}
        if len(firsts) != 1 or next(iter(firsts)) not in SEGMENTS:
            break
        part = _after_first(part)
    return part


def _states(content: Any, where: str = "", average: bool = False, depth: int = 0) -> Iterator[tuple[str, bool, State]]:
    """States within dictionaries, the most usual place first: where, whether it is an average, and the state."""
    if not isinstance(content, Mapping) or not content or depth > _DEEPEST:
        return
    if all(isinstance(value, Tensor) and isinstance(key, str) for key, value in content.items()):
        yield where or "no name", average, dict(content)
        return
    for names, is_average in ((LIVE, average), (AVERAGED, True)):
        for name in names:
            yield from _states(content.get(name), f"{where}.{name}".strip("."), is_average, depth + 1)


def _prefixes(state: State) -> list[str]:
    """Every chain of known segments that a name begins with, the longest first, and none."""
    found = {""}
    for key in state:
        prefix = ""
        for segment in key.split(".")[:-1]:
            if segment not in SEGMENTS:
                break
            prefix += f"{segment}."
            found.add(prefix)
    return sorted(found, key=len, reverse=True)


def _after_first(state: State) -> State:
    return {key.partition(".")[2]: value for key, value in state.items() if "." in key}


def _equal(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(
        value is other[key] or (value.shape == other[key].shape and torch.equal(value, other[key]))
        for key, value in one.items()
    )
