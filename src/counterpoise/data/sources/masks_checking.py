"""What is wrong with mask files beside their images: sizes by headers, and all else by reading every mask."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from counterpoise.data.mask_file import LOSSLESS
from counterpoise.data.problems import Problem, of_corrupt
from counterpoise.data.sources.masks_files import WAYS_OUT, MaskFiles
from counterpoise.data.sources.masks_layouts import found_in_masks
from counterpoise.errors import CorruptImage, CounterpoiseError

_SHOWN = 3


def misfits(parts: Sequence[MaskFiles], on_corrupt: str) -> list[Problem]:
    """Count the masks which do not fit their images; those that are resized become a note of their part."""
    wrong: list[str] = []
    count = sum(map(len, parts))
    names = ("training ", "evaluation ") if len(parts) > 1 else ("",)
    for part, name in zip(parts, names, strict=False):
        misfits, moved = part.misfits()
        wrong += misfits
        if moved:
            part.notes.append(
                f"{moved:,} of {len(part):,} {name}masks are resized to their images, by the nearest pixel"
            )
    if not wrong:
        return []
    more = "" if len(wrong) <= _SHOWN else f"; and {len(wrong) - _SHOWN} more"
    what = f"{len(wrong)} of {count} masks are of another size than their images: {'; '.join(wrong[:_SHOWN])}{more}."
    return [of_corrupt(what, WAYS_OUT, wrong, on_corrupt)]


def unfit(parts: Sequence[MaskFiles], lossy: bool, folder: Path, on_corrupt: str) -> list[Problem]:
    """Read every mask, and gather what is wrong with them by kind.

    Args:
        folder: of masks, some of which are looked at where colors are unknown.
    """
    kinds: dict[str, list[tuple[str, str, bool]]] = {}
    for part in parts:
        for index in range(len(part)):
            path = str(part.mask_file(index))
            if not lossy and not path.lower().endswith(LOSSLESS):  # counted by its name
                continue
            try:
                part.read_mask(index)
            except CounterpoiseError as error:
                if WAYS_OUT in str(error):  # counted by its header
                    continue
                kind = re.sub(r"\d+", "#", str(error).replace(path, ""))[:60]
                kinds.setdefault(kind, []).append((path, str(error), isinstance(error, CorruptImage)))
    problems = []
    for found in kinds.values():
        paths = [path for path, _, _ in found]
        colors = found_in_masks(folder) if "holds colors (" in found[0][1] else ""
        alike = f" {len(found) - 1} more masks are like it." if len(found) > 1 else ""
        problems.append(of_corrupt(f"{found[0][1]}{alike}", colors, paths, on_corrupt if found[0][2] else "stop"))
    return problems
