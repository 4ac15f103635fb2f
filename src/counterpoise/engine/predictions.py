"""What a student says of pictures, folders of them and data sets: each by its name, those that cannot be read, too."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from counterpoise import tasks
from counterpoise.data import labels
from counterpoise.data.rasters import raster_of
from counterpoise.data.slide_file import At, Slide, slide_paths
from counterpoise.data.sources.base import ImageSet
from counterpoise.data.sources.questions import answers_of
from counterpoise.data.walking import image_files
from counterpoise.decoding import Reading
from counterpoise.engine.volume_answers import VolumeOf, within
from counterpoise.errors import ConfigError, CorruptImage, DataError
from counterpoise.models.network import VisionModel
from counterpoise.tasks import Picture, Probabilities

SHEETS = 8
"""Pictures of a data set that are painted, unless told otherwise; answers in words are given for all."""


class Asked(NamedTuple):
    """A picture to be asked about.

    Attributes:
        image: what a person calls it.
        name: a word for its files.
        read: the picture as the task takes it: a path, a PIL image or an array; its pixels where it has been read.
        draw: the same as pixels, and its mask where it has one.
        truth: its class, or all of them, where that is known.
        volume: what it is where it is no picture but a volume.
        slide: the same of a slide.
    """

    image: str
    name: str
    read: Callable[[], Any]
    draw: Callable[[], Picture]
    truth: str | list[str] | None = None
    volume: VolumeOf | None = None
    slide: Callable[[], Slide] | None = None


def given(
    images: Iterable[Any], reading: Reading, told: bool = False, axis: int = 2, at: At | None = None
) -> Iterator[Asked]:
    """Pictures and volumes by path, all below a folder, or PIL images and arrays.

    Args:
        told: TIFFs and folders are volumes, as NIfTI is anyway.
        axis: of NIfTI, along which slices lie.
        at: pictures are slides, at this level.

    Raises:
        DataError: a folder holds neither.
    """
    taken: set[str] = set()
    if at is not None:
        for path in slide_paths(images):
            word = _distinct(path.stem, len(taken), taken)
            yield Asked(str(path), word, _no_picture, _no_picture, slide=partial(Slide, path, at))
        return
    for index, image in enumerate(images):
        found = [*within(Path(image), told, reading.channels, axis)] if isinstance(image, str | Path) else []
        for volume in found:
            word = _distinct(volume.name, len(taken), taken)
            yield Asked(str(volume.path), word, _no_picture, _no_picture, volume=volume)
        if found and (told or not Path(image).is_dir() or not image_files(Path(image), reading.arrays)):
            continue
        if not isinstance(image, str | Path):
            pictures = [(f"picture {index}", f"picture-{index}", image)]
        elif not Path(image).is_dir():
            pictures = [(str(image), Path(image).stem, image)]
        else:
            files = [Path(file) for file in image_files(Path(image), reading.arrays)]
            if not files:
                raise DataError(f"{image} holds no pictures.")
            pictures = [
                (str(Path(image) / file), "-".join(file.with_suffix("").parts), Path(image) / file) for file in files
            ]
        for label, name, source in pictures:
            word = _distinct(name, len(taken), taken)

            def draw(source: Any = source, word: str = word) -> Picture:
                return Picture(word, raster_of(source, reading))

            yield Asked(label, word, lambda source=source: source, draw)  # type: ignore[misc]


def of_data(images: ImageSet, count: int | None) -> Iterator[Asked]:
    """The first pictures of a set, or all, with their classes or masks."""
    taken: set[str] = set()
    for index in range(len(images) if count is None else min(count, len(images))):
        word = _distinct(Path(images.name(index)).stem.replace("#", "").replace(" ", "-"), index, taken)

        def read(index: int = index) -> Any:
            return images.read(index)

        def draw(index: int = index, word: str = word) -> Picture:
            return Picture(word, images.read(index), _truth(images, index))

        truth = None if images.masked else labels.names(images.labels[index], images.classes)
        yield Asked(images.name(index), word, read, draw, truth)


def _no_picture() -> Any:
    raise AssertionError  # volumes are answered before


def _truth(images: ImageSet, index: int) -> Tensor | None:
    """The mask of a scene, or what it says of each question; None of photos."""
    if not images.masked:
        return None
    mask = images.read_mask(index)
    return mask if images.questions is None else answers_of(images.questions, mask)


def _distinct(name: str, index: int, taken: set[str]) -> str:
    """A name that no picture has yet: those of two folders may be called alike."""
    while name in taken:
        name = f"{name}-{index}"
    taken.add(name)
    return name


def answers(
    models: Mapping[str, VisionModel],
    asked: Iterator[Asked],
    out: Path | None,
    overwrite: bool,
    skip: bool = False,
    probabilities: Probabilities | None = None,
) -> list[dict[str, Any]]:
    """One answer a picture, in order; the last of `models` is the student, and all are drawn where there is an `out`.

    A picture that cannot be read has an "error" in place of an answer; with `skip` it is left out, as in training.
    Raises CorruptImage where no picture can be read.
    """
    student = list(models.values())[-1]
    task = tasks.get(student.task)
    found: list[dict[str, Any]] = []
    problem: CorruptImage | None = None
    for picture in asked:
        try:
            if picture.slide is not None:
                answer = task.draw_slide(student, picture.slide(), picture.name, out, overwrite)
            elif picture.volume is not None:
                if len(models) > 1:
                    raise ConfigError("beside draws sheets of pictures; of volumes masks alone are written.")
                slices = picture.volume.slices(student.reading)
                answer = task.draw_volume(student, slices, picture.name, out, overwrite, probabilities)
            elif out is None:
                answer = task.predict(student, [picture.read()])[0]
            else:
                answer = task.draw(models, [picture.draw()], out, overwrite, probabilities)[0]
        except CorruptImage as error:
            problem = problem or error
            if not skip:
                found.append({"image": picture.image, "error": error.reason})
            continue
        truth = {} if picture.truth is None else {"truth": picture.truth}
        found.append({"image": picture.image, **answer, **truth})
    if problem is not None and all("error" in answer for answer in found):
        raise problem
    return found


def as_rows(found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Answers as rows of one table: the classes by their rank, each with its share of the picture, or the labels that
    are there, with a semicolon between two."""
    rows = []
    for answer in found:
        row = {key: value for key, value in answer.items() if not isinstance(value, list)}
        row |= {"set": "; ".join(answer["set"])} if "set" in answer else {}
        if "labels" in answer:
            told = answer["labels"]
            row["labels"] = "; ".join(label["class"] for label in told)
            row["probabilities"] = "; ".join(f"{label['probability']:.4f}" for label in told)
            row |= {"truth": "; ".join(answer["truth"])} if "truth" in answer else {}
            rows.append(row)
            continue
        for rank, entry in enumerate(answer.get("top", [])[1:], 2):
            row |= {f"{key}_{rank}": value for key, value in entry.items()}
        row |= {f"share {entry['class']}": entry["share"] for entry in answer.get("classes", [])}
        rows.append(row)
    columns = list(dict.fromkeys(key for row in rows for key in row if key not in ("truth", "error")))
    columns += [key for key in ("truth", "error") if any(key in row for row in rows)]
    return [{column: row.get(column, "") for column in columns} for row in rows]
