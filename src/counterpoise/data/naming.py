"""What the names of pictures tell of how a data set is divided: one picture, or one case, on both sides."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import PurePath

from counterpoise.data.problems import Problem, warning
from counterpoise.data.sources.base import ImageSet, Splits, Subset
from counterpoise.data.sources.concatenation import Concatenation
from counterpoise.data.sources.files import FileSet

CASE = r"([^/]*?[0-9][A-Za-z]*)[-_][^/]*$"
"""What may be a case in a path: what a name begins with, up to a digit, where a sign and more follow (p07_12.png)."""
_OFTEN = 2  # pictures a case, on average, from which on names seem to have cases
_TRAILING = re.compile(r"[0-9]*$")
_PLAIN = "_-. "


def across(splits: Splits) -> Iterator[Problem]:
    """Names by which pictures of val belong to pictures of train; nothing where groups are known.

    Of `data.unlabeled` no groups are known.
    """
    parts = splits.train.parts if isinstance(splits.train, Concatenation) else (splits.train,)
    train = [path for part in parts if part.groups is None for path in _paths(part)]
    val = _paths(splits.val)
    if not train or not val or splits.val.split_from is splits.train:
        return
    found = [*_same_cases(train, val)] or [*_same_names(train, val)]
    yield from found


def _paths(images: ImageSet) -> list[PurePath]:
    """Of files; of nothing else."""
    whole = images.whole if isinstance(images, Subset) else images
    if not isinstance(whole, FileSet):
        return []
    return [PurePath(images.name(index)) for index in range(len(images))]


def _same_names(train: list[PurePath], val: list[PurePath]) -> Iterator[Problem]:
    """Pictures that are called alike on both sides, in other folders, unless names merely count."""
    starts = Counter(_start(path) for path in (*train, *val))
    every = sum(starts.values())
    known = {path.stem: path for path in train}
    both = [
        f"{path} and {known[path.stem]}"
        for path in val
        if path.stem in known
        and 2 * starts[_start(path)] < every
        and not _counts(path)
        and not _counts(known[path.stem])
    ]
    if both:
        yield warning(
            f"{len(both):,} of {len(val):,} pictures of val are called as pictures of train are, in other folders.",
            "Where they are of one case, scores are better than they should be: --data.options.group says what belongs "
            "together (docs/cases.md).",
            both,
        )


def _start(path: PurePath) -> str:
    return _TRAILING.sub("", path.stem)


def _counts(path: PurePath) -> bool:
    """Whether a name is a number, or that of its folder and a number: each class folder has a circle_01.png."""
    start = _start(path).strip(_PLAIN).casefold()
    return not start or start == path.parent.name.casefold().strip(_PLAIN)


def _same_cases(train: list[PurePath], val: list[PurePath]) -> Iterator[Problem]:
    """Cases that stand on both sides, where names seem to begin with one."""
    sides = [[found[1] for path in paths if (found := re.search(CASE, path.name))] for paths in (train, val)]
    distinct, every = {*sides[0], *sides[1]}, len(train) + len(val)
    if len(distinct) < 2 or len(sides[0]) + len(sides[1]) < every or _OFTEN * len(distinct) > every:
        return
    both = sorted({*sides[0]} & {*sides[1]})
    if both:
        first = next(path.name for path in val if path.name.startswith(both[0]))
        yield warning(
            f"Names seem to begin with what pictures are of, such as '{both[0]}' of {first}, and {len(both):,} of "
            f"{len(distinct):,} of these are in both train and val.",
            "Where pictures of one patient, video or street are alike, scores are better than they should be: keep "
            f"them on one side, --data.options.group '{CASE}' (docs/cases.md).",
            both,
        )
