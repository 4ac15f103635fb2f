"""Weights of a file in a network's own terms, whatever they were written in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from torch import Tensor, nn

from counterpoise.models import checkpoint as checkpoints
from counterpoise.models import two_heads, wrapped
from counterpoise.models.checkpoint import Head, Shapes, Weights
from counterpoise.models.families import Built, Family, Request
from counterpoise.models.families.base import Part


def fitted(
    weights: Weights, make: Callable[[Request], Built], family: Family | None, name: str, request: Request
) -> tuple[Head | None, Weights]:
    """The head in weights, and the weights, in the network's own terms where they were written in others.

    Where they are not of this network, there is no head, and loading what is nearest to it says what is wrong.
    """

    def net(count: int) -> nn.Module:
        return make(replace(request, num_classes=count)).net

    shapes = checkpoints.shapes_of(net)
    one_headed = replace(request, arguments={k: v for k, v in request.arguments.items() if k != two_heads.ARGUMENT})

    def doubled(one: Weights) -> Weights:
        if one_headed == request:
            return one
        held = None if one.as_held is None else (two_heads.from_one(one.as_held[0], shapes), one.as_held[1])
        return replace(one, state=two_heads.from_one(one.state, shapes), as_held=held)

    found = _arranged(doubled(weights), lambda state: checkpoints.head_in(shapes, state) is not None)
    if found is not None:
        return checkpoints.head_in(shapes, found.state), found
    plain = replace(weights, state=wrapped.plain(weights.state))
    readings = [doubled(plain), doubled(weights).held]
    if family is not None and family.convert is not None:
        for given in (weights, plain) if plain.state.keys() != weights.state.keys() else (plain,):
            read = family.convert(name.partition("/")[2], one_headed, given.state)
            if read is None:
                continue
            state, left = read if isinstance(read, Part) else Part(read)
            notes = (*given.notes, wrapped.left_out(given.origin, left)) if left else given.notes
            readings.append(doubled(replace(given, state=state, notes=notes)))
            head = checkpoints.head_in(shapes, readings[-1].state)
            if head is not None:
                return head, readings[-1]
    return None, _nearest(readings, shapes)


def of_module(weights: Weights, net: nn.Module) -> Weights:
    """The weights as a network calls them; where they are not of it, loading them says what is wrong."""
    own = checkpoints.shapes(net)
    return _arranged(weights, partial(checkpoints.fits, own)) or _nearest([weights, weights.held], own)


def _arranged(weights: Weights, fits: Callable[[dict[str, Tensor]], bool]) -> Weights | None:
    """The weights as the network calls them, without what lies beside it; None where they do not fit.

    Those that fit as they lie in the file are taken so.
    """
    if fits(weights.held.state):
        return weights.held
    found = wrapped.arranged(weights.state, fits, weights.origin)
    return None if found is None else replace(weights, state=found[0], notes=(*weights.notes, *found[1]))


def _nearest(readings: Sequence[Weights], own: Shapes) -> Weights:
    return min(readings, key=lambda reading: len(reading.state.keys() ^ own.keys()))
