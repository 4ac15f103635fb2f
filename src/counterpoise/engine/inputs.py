"""What the library's functions are given, and what was meant by it: runs, data, teachers, pictures."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from counterpoise import config
from counterpoise.decoding import Reading
from counterpoise.errors import ConfigError, CounterpoiseError, ModelError
from counterpoise.system import own_code
from counterpoise.system.files import expanded

if TYPE_CHECKING:
    from counterpoise.data.sources.base import ImageSet, Splits

BATCH = 250
"""Images at once in evaluation where no run says how many."""
RunLike = config.Run | Mapping[str, Any] | str | Path


def resolve(run: RunLike) -> config.Run:
    """The run that was meant by a path, values, or the run itself. The code that it names may be run."""
    resolved = _resolve(run)
    own_code.name(resolved)
    return resolved


def _resolve(run: RunLike) -> config.Run:
    if isinstance(run, str | Path):
        return config.resolve(config.read(Path(run)), f"run file {run}")
    return config.resolve(run)


def data_section(student: Path, data: RunLike | None) -> config.Data:
    """The data that was named, or that of the run which a student lies in, its files read as the student's were."""
    return read_for(_data_section(student, data), reading_of(student))


def _data_section(student: Path, data: RunLike | None) -> config.Data:
    if data is not None and _is_run(data):
        return named_data(data)
    run = run_around(student)
    if data is None:
        if run is None:
            raise ConfigError(
                f"{student} does not lie in a run folder, so say which data to evaluate it on: --data PATH."
            )
        return run.data
    section = named_data(data)
    if run is None:
        return section
    if _same_place(run.data.path, section.path):
        return run.data  # held out as it was in training
    from counterpoise.data.sources import loading

    options = loading.options_for(section, run.data)
    kept = {key: getattr(run.data, key) for key in ("size", "on_corrupt", "questions")}
    return config.Data(path=section.path, options=options, **kept)


def named_data(data: RunLike) -> config.Data:
    """The data section that was meant by a data folder, a run file, or a run."""
    return _resolve(data).data if _is_run(data) else config.Data(path=Path(data))  # type: ignore[arg-type]


def named_task(data: RunLike) -> Callable[[ImageSet], None] | None:
    """What raises where images are not what the task of a run learns from; None where no task is named."""
    from counterpoise import tasks

    run = _resolve(data) if _is_run(data) else None
    return None if run is None or "task" not in run.model_fields_set else tasks.get(run.task).check


def named_run(data: RunLike) -> config.Run | None:
    """The run that was meant, where one is that names a student."""
    run = _resolve(data) if _is_run(data) else None
    return None if run is None or (run.student.model is None and run.student.checkpoint is None) else run


def _is_run(data: RunLike | None) -> bool:
    """Whether what was given says how data are divided, as a folder does not."""
    return isinstance(data, config.Run | Mapping) or (data is not None and Path(data).suffix in {".yaml", ".yml"})


def read_for(section: config.Data, reading: Reading) -> config.Data:
    """The section with what it leaves open of how files are read as in `reading`."""
    own = section.white_level is None and section.intensity is None  # else the section says how values become 8 bits
    intensity = section.intensity
    if own and reading.intensity is not None:
        intensity = config.Intensity.model_validate(reading.intensity.values())
    values = {
        "alpha": reading.alpha if section.alpha == "auto" else section.alpha,
        "channels": section.channels if "channels" in section.model_fields_set else reading.channels,
        "white_level": reading.white_level if own else section.white_level,
        "intensity": intensity,
    }
    return section.model_copy(update=values)


def reading_of(student: Path) -> Reading:
    """How files were read for a student; as usual where there is none."""
    from counterpoise.models import folder

    try:
        return folder.describe(folder.find(student) / folder.DESCRIPTION).input.reading
    except ModelError:  # said by those who need the student itself
        return Reading()


def teacher_section(student: Path, teacher: Any) -> config.Teacher:
    """The teacher that was named, or that of the run which a student lies in.

    A model alone is laid over the teacher of that run: so is code named, which the run's own file may not bring.
    """
    own_code.name(teacher)
    if isinstance(teacher, str | Path):
        return config.Teacher(checkpoint=Path(teacher))
    known = teacher is None or isinstance(teacher, config.Teacher)
    named: config.Teacher | None = teacher if known else config.resolve({"teacher": teacher}).teacher
    if named is not None and named.model_fields_set != {"model"}:
        return named
    run = run_around(student)
    own = None if run is None else run.teacher
    if named is not None:
        return named if own is None else own.model_copy(update={"model": named.model})
    if run is None:
        raise ConfigError(f"{student} does not lie in a run folder, so say which teacher it had: --teacher.checkpoint.")
    if own is None:
        raise ConfigError(f"The run of {student} had no teacher; name one to compare it with: --teacher.checkpoint.")
    return own


def evaluated(
    student: Path, data: RunLike | None, split: str | None, data_set: Splits | None
) -> tuple[ImageSet, config.Data]:
    """The images that a student is evaluated on, and the section that says how they are read."""
    from counterpoise.data import sources

    alone = data is None and data_set is not None and run_around(student) is None  # nothing else says how to read
    section = read_for(config.Data(), reading_of(student)) if alone else data_section(student, data)
    if split is not None:
        if data_set is not None:
            raise ConfigError("split names a part of data that is read; of a data_set, give the part itself as val.")
        if not sources.has_option(section, "val_split"):
            raise ConfigError(f"Data source '{sources.source_of(section)}' has one split to score on: leave out split.")
        section = section.model_copy(
            update={"options": {**section.options, "val_split": split}, "held_out": 0, "fold": None}
        )
    images = val_of(section, data_set)
    run = run_around(student)
    held_out = _is_run(data) or (run is not None and _same_data(run.data, section))  # as a run says, or said
    if images.split_from is not None and data_set is None and not held_out:
        images = images.split_from
    return images, section


def val_of(section: config.Data, data_set: Splits | None) -> ImageSet:
    """The val half of data that are read, or of sets that were handed in. Raises as `sources.load`."""
    from counterpoise.data.sources import halves, load

    if data_set is None:
        return load(section).val
    return halves.sound(halves.handed_in(data_set).val, "val", halves.HANDED_IN)


def trained_on(student: Path, images: ImageSet, section: config.Data) -> int:
    """How many of these images the run that a student lies in trained on, which another division of its data may bring.

    Files are known by where they lie, images in memory by their pixels. 0 where there is no run, or its data are gone.
    """
    from counterpoise.data import sources

    run = run_around(student)
    if run is None or not _overlap(run.data, section):
        return 0
    division = ("source", "options", "val_fraction", "split_seed", "fold", "held_out", "unlabeled")
    if _same_data(run.data, section) and all(getattr(run.data, key) == getattr(section, key) for key in division):
        return 0  # the same images were held out
    try:
        own = sources.load(run.data).train
    except CounterpoiseError:
        return 0
    resolved: dict[Path, Path] = {}
    seen = {_key(own, index, resolved) for index in range(len(own))}
    return sum(_key(images, index, resolved) in seen for index in range(len(images)))


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
        return _same_data(one, other)
    roots = [{expanded(path).resolve() for path in (each.path, each.unlabeled) if path} for each in (one, other)]
    if any(path.is_file() for path in roots[0] | roots[1]):  # a table names files anywhere
        return True
    return any(a.is_relative_to(b) or b.is_relative_to(a) for a in roots[0] for b in roots[1])


def _same_data(one: config.Data, other: config.Data) -> bool:
    """Whether two sections speak of one data set; an embedded one has no path."""
    if one.path is None or other.path is None:
        return one.path is other.path and one.source == other.source
    return _same_place(one.path, other.path)


def _same_place(one: Path | None, other: Path | None) -> bool:
    """Whether two paths lead to one place."""
    return one is not None and other is not None and expanded(one).resolve() == expanded(other).resolve()


def batch_size(student: Path, given: int | None) -> int:
    """Images at once in evaluation: as given, or as the run around the student has it, whose numbers come back."""
    if given is not None:
        return positive("batch_size", given)
    run = run_around(student)
    return BATCH if run is None else run.train.batch_size


def positive(name: str, value: int) -> int:
    """The value; raises ConfigError where it is below 1."""
    if value < 1:
        raise ConfigError(f"{name} must be at least 1, got {value}.")
    return value


def run_around(student: Path) -> config.Run | None:
    """The run that a student folder lies in, or that it is."""
    for folder in (student, student.parent):
        if (folder / "run.yaml").is_file():
            return config.kept(folder / "run.yaml")
    return None
