"""Which of some images a network was trained on, by the runs that it comes from."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from counterpoise import config
from counterpoise.data.duplicates import copies
from counterpoise.data.sources.base import ImageSet
from counterpoise.engine.inputs import run_around, same_data
from counterpoise.engine.run_folder import RunFolder
from counterpoise.errors import CounterpoiseError, ModelError
from counterpoise.models import folder
from counterpoise.system.files import expanded

_DIVISION = ("source", "options", "val_fraction", "split_seed", "fold", "held_out", "unlabeled")


def trained_on(student: Path, images: ImageSet, section: config.Data) -> int:
    """How many of these images the run that a student lies in trained on, which another division of its data may bring.

    Files are known by where they lie, images in memory by their pixels. 0 where there is no run, or its data are gone.
    """
    run = run_around(student)
    if run is None or not _overlap(run.data, section) or _held_out(run.data, section):
        return 0
    try:
        return len(_by_place(_train(run.data), images))
    except CounterpoiseError:
        return 0


def looked_up(student: Path, images: ImageSet, section: config.Data | None) -> tuple[int, list[str]]:
    """As `trained_on`, by all that tells: also by content, and of the runs whose students this one started from.

    Args:
        section: that the images come from; None where they were handed in.

    Returns:
        How many of the images were trained on, and what could not be looked up, as sentences.
    """
    seen: set[int] = set()
    notes = []
    for place, run in _lineage(student):
        if run is None:
            known = noted(place)
            if known == images.fingerprint():
                return len(images), []
            notes.append(f"{place} does not lie in its run's folder, so that nothing tells what it was trained on.")
        elif section is not None and _held_out(run.data, section):
            continue
        elif noted(place) == images.fingerprint():
            return len(images), []
        else:
            try:
                train = _train(run.data)
            except CounterpoiseError:
                notes.append(f"The data that {place} was trained on, {run.data.path}, are not there.")
                continue
            near = section is not None and _overlap(run.data, section)
            seen |= _by_place(train, images) if near else copies(images, train)
    return len(seen), notes


def _lineage(student: Path) -> Iterator[tuple[Path, config.Run | None]]:
    """A student and those that it started from, one from the other, with the runs they lie in, where these are here."""
    place: Path | None = student
    known: set[Path] = set()
    while place is not None and (there := expanded(place).resolve()) not in known:
        known.add(there)
        place = place.parent if there.is_file() else place
        run = run_around(place)
        yield place, run
        place = None if run is None else run.student.checkpoint


def noted(student: Path, part: str = "data") -> str | None:
    """The fingerprint of the training images, or with `val` of the others, as a run or a student folder keeps it."""
    for place in (student, student.parent):
        if (place / "run.yaml").is_file() and (found := RunFolder(place).identity().get(part)):
            return found
    try:
        found = folder.describe(folder.find(student) / folder.DESCRIPTION).provenance.get(f"{part}_fingerprint")
    except ModelError:  # a file of weights
        return None
    return found if isinstance(found, str) else None


def _train(data: config.Data) -> ImageSet:
    from counterpoise.data import sources

    return sources.load(data).train


def _held_out(known: config.Data, section: config.Data) -> bool:
    """Whether a section holds out the same images as that of a run."""
    return same_data(known, section) and all(getattr(known, key) == getattr(section, key) for key in _DIVISION)


def _by_place(train: ImageSet, images: ImageSet) -> set[int]:
    """Which images are in train, too."""
    resolved: dict[Path, Path] = {}
    seen = {_key(train, index, resolved) for index in range(len(train))}
    return {index for index in range(len(images)) if _key(images, index, resolved) in seen}


def _key(images: ImageSet, index: int, resolved: dict[Path, Path]) -> bytes:
    """What an image is known by in any set; resolved: folders, of which there are few."""
    if (there := images.whereabouts(index)) is not None:
        return there
    file = images.file(index)
    if not isinstance(file, Path):
        return hashlib.sha256(images.identity(index) if file is None else file).digest()
    if file.parent not in resolved:
        resolved[file.parent] = expanded(file.parent).resolve()
    return os.fsencode(resolved[file.parent] / file.name)


def _overlap(one: config.Data, other: config.Data) -> bool:
    """Whether two sections may speak of the same images."""
    if one.path is None or other.path is None:
        return same_data(one, other)
    roots = [{expanded(path).resolve() for path in (each.path, each.unlabeled) if path} for each in (one, other)]
    if any(path.is_file() for path in roots[0] | roots[1]):  # a table names files anywhere
        return True
    return any(a.is_relative_to(b) or b.is_relative_to(a) for a in roots[0] for b in roots[1])
