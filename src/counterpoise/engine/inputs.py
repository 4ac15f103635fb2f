"""What the library's functions are given, and what was meant by it: runs, data, teachers, pictures."""

from __future__ import annotations

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
    if same_place(run.data.path, section.path):
        return run.data  # held out as it was in training
    from counterpoise.data.sources import loading

    options = loading.options_for(section, run.data)
    kept = {key: getattr(run.data, key) for key in ("size", "on_corrupt", "questions")}
    return loading.grouped_like(config.Data(path=section.path, options=options, **kept), run.data)


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
    held_out = _is_run(data) or (run is not None and same_data(run.data, section))  # as a run says, or said
    if images.split_from is not None and data_set is None and not held_out:
        images = images.split_from
    return images, section


def without_groups(student: Path, images: ImageSet, promised: int | None = None) -> list[str]:
    """A note where the pictures of a student's run are of groups, and these images are not.

    Args:
        promised: groups that its promise was chosen on, if any.
    """
    if images.groups is not None or (promised is None and not _has_groups(run_around(student))):
        return []
    known = "The student's promise counts groups" if promised is not None else "The pictures of the run are of groups"
    return [
        f"{known}, and these data name none: each picture counts alone, which says too much where some belong "
        "together. A run file as --data may name them, with data.options.group."
    ]


def _has_groups(run: config.Run | None) -> bool:
    """Whether the data of a run say which pictures belong together, by an option or by themselves, as packs do."""
    from counterpoise.data.sources import load

    if run is None or run.data.options.get("group") is not None:
        return run is not None
    try:
        return load(run.data).train.groups is not None
    except CounterpoiseError:  # they are gone
        return False


def val_of(section: config.Data, data_set: Splits | None) -> ImageSet:
    """The val half of data that are read, or of sets that were handed in. Raises as `sources.load`."""
    from counterpoise.data.sources import halves, load

    if data_set is None:
        return load(section).val
    return halves.sound(halves.handed_in(data_set).val, "val", halves.HANDED_IN)


def same_data(one: config.Data, other: config.Data) -> bool:
    """Whether two sections speak of one data set; an embedded one has no path."""
    if one.path is None or other.path is None:
        return one.path is other.path and one.source == other.source
    return same_place(one.path, other.path)


def same_place(one: Path | None, other: Path | None) -> bool:
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
