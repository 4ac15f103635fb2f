"""`counterpoise promise`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from counterpoise.commands import flags
from counterpoise.commands.flags import EACH
from counterpoise.engine.options import Promised


def promise(student: Path, /, *, options: Annotated[Promised | None, EACH] = None, json: bool = False) -> None:
    """Have a student say that it is not sure, where its answers would be wrong too often.

    On labeled pictures that it has not seen a threshold is chosen, so that of the answers that it gives no larger share
    than --risk is wrong, and sets of classes that hold the true one. Both are kept in the student folder, and shown by
    predict, evaluate, exports and the page of try. Of scenes, each pixel is answered or not, and there are no sets.

    Args:
        student: student folder, or a run's folder
        json: print what was promised as JSON
    """
    from counterpoise.engine import promises

    found = promises.promise(student, **flags.given(options), show=True)
    flags.show(found, json, lambda: _lines(found))


def _lines(found: dict[str, Any]) -> list[str]:
    told = (
        f"It answers where its largest probability is at least {found['threshold']:.4f}, with logits divided by "
        f"{found['temperature']:.3f}: "
    )
    kept = f"Kept in {found['folder']}. Exports that are there are as they were: export again."
    groups = found.get("groups")
    of = "" if groups is None else f" of {groups:,} groups"
    if "unsure" in found:
        left = sorted(found["unsure"].items(), key=lambda item: -item[1])
        return [
            f"{told}{found['answered']:.1%} of the pixels of {found['pictures']:,} scenes{of}.",
            f"Of these pixels {found['wrong']:.2%} are wrong, as a mean over {'groups' if of else 'scenes'}; of "
            f"{'groups' if of else 'scenes'} like these at most "
            f"{found['risk']:.2%} will be, at {found['confidence']:.1%} confidence (bound {found['bound']:.2%}).",
            f"Not answered, by class: {', '.join(f'{name} {share:.0%}' for name, share in left)}.",
            kept,
            *found["notes"],
        ]
    return [
        f"{told}{found['answered']:.1%} of {found['pictures']:,} pictures{of}.",
        f"Of these answers {found['wrong']:.2%} are wrong{', each group counting alike' if of else ''}; of "
        f"{'groups' if of else 'pictures'} like these at most {found['risk']:.2%} will be, "
        f"at {found['confidence']:.1%} confidence (bound {found['bound']:.2%}).",
        f"Of any picture it names {found['set_size']:.1f} classes on average. The true one is among them in "
        f"{found['coverage']:.1%} or more of {'groups' if of else 'pictures'} like these, on average over choices.",
        kept,
        *found["notes"],
    ]
