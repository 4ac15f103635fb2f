"""`counterpoise init`: a run file for a folder that was looked at, with the reason beside each choice."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from counterpoise import config
from counterpoise.config.options import keywords
from counterpoise.config.run import usual_terms
from counterpoise.data import sources, summary
from counterpoise.data.sources.base import ImageSet, Splits
from counterpoise.errors import CounterpoiseError, DataError, ModelError
from counterpoise.models import catalog
from counterpoise.models.network import VisionModel
from counterpoise.studies.first_run_options import Init
from counterpoise.system.files import expanded, new_file, write_text
from counterpoise.system.machine import memory

TINY, SMALL = 16, 64
"""Longest edge of pictures up to which a student of digits, and one of CIFAR, suits."""
PHOTO, STRIDE = 224, 32
WINDOW = 512
"""Longest edge of a training view of scenes."""
FAIR_SHARE = 0.4
"""Of the memory, what a step's activations may take."""
FEWEST = 2
"""Pictures in a batch, since batch norm takes no fewer."""
LOOKED_AT = 1_000
"""Headers that are read for the usual size."""


class Line(NamedTuple):
    """A line of a run file: how deep, a key with its value, and why."""

    depth: int
    text: str
    why: str = ""


@keywords(Init)
def init(data: str | Path, asked: Init) -> dict[str, Any]:
    """Look at a data folder, and write a run file for it with the reason beside each choice.

    The student is chosen by task and size of the pictures, the batch by the memory that a step of it takes, epochs by
    how many pictures there are. Nothing is trained, and nothing is fetched.

    Args:
        data: a folder, table or other data on disk.

    Returns:
        `out`, the run file's path; `found`, what was seen, a line each; `next`, the commands that follow.

    Raises:
        DataError: no data are there, or some that cannot be used; see `counterpoise check`. Or they are too few.
        ModelError: the student is no network, or cannot be built; the teacher is neither there nor a network with
            published weights.
        ConfigError: the run file is there already. RunError: it cannot be written.
    """
    path = Path(data)
    if not _is_text(path):
        raise DataError(f"The name of {path!r} is no text in UTF-8, as a run file is: rename the folder.")
    out = Path(asked.out) if asked.out is not None else Path(f"{path.resolve().name.partition('.')[0] or 'data'}.yaml")
    out = new_file(out, asked.overwrite)
    try:
        splits = sources.load(config.Data(path=path))
    except CounterpoiseError as error:
        if "data." not in str(error):
            raise
        raise type(error)(
            f"{error} init takes no options of data: try them with counterpoise check {shlex.quote(str(path))}, and "
            "give them to train, or write a run file with them."
        ) from None
    if not splits.train.classes or splits.train.unlabeled == len(splits.train):
        raise DataError(
            f"The pictures of {path} have no labels, so that nothing says which classes there are: put them into a "
            "folder for each class, or name the classes for a teacher by words (docs/teachers.md)."
        )
    lines = [*_lines(path, splits, asked)]
    by = f"# By counterpoise init {_value(str(path))}."
    head = f"{by} Every line may be changed: counterpoise distill --help has them all.\n"
    write_text(out, head + "".join(_written(lines)))
    config.Run.model_validate(config.read(out))
    verb = "train" if asked.teacher is None else "distill"
    further = ["advise"] if asked.teacher is not None else []
    return {
        "out": str(out),
        "found": summary.of_splits(splits).text(),
        "next": [f"counterpoise {one} {shlex.quote(str(out))}" for one in ("check", *further, verb)],
    }


def _lines(path: Path, splits: Splits, asked: Init) -> Iterator[Line]:
    images, val = splits
    task, why = _task(images)
    yield Line(0, f"task: {task}", why)
    yield Line(0, "seed: 0", "the one source of chance: another seed is another run of the same")
    yield Line(0, f"out: {_value(f'runs/{path.resolve().name}')}")
    yield Line(0, "data:")
    yield Line(1, f"path: {_value(str(path))}")
    if val.split_from is not None:
        share = f"{len(val):,} of {len(val) + len(images):,} pictures"
        instead = "; a folder val/ takes its place" if sources.source_of(config.Data(path=path)) in _OF_FOLDERS else ""
        yield Line(1, "val_fraction: 0.1", f"no val part is there, so {share} are held out{instead}")
    student, size = _student(task, images, asked.student)
    network = catalog.build(student, num_classes=len(images.classes), input_size=size if task in _WHOLE else None)
    if task in _WHOLE:
        yield from _pictures(images, size)
        shape = (size, size) if size is not None else images.common_extent or (SMALL, SMALL)
    else:
        shape = _view(images)
        yield from _scenes(images, shape)
    yield from _teacher(asked.teacher)
    yield Line(0, "student:")
    parameters = sum(one.numel() for one in network.parameters())
    yield Line(1, f"model: {_value(student)}", f"{parameters / 1e6:.2f} million parameters")
    yield Line(0, "objective:", "`counterpoise advise` compares others on these very data")
    for number, (name, term) in enumerate(usual_terms(task).items()):
        if number and asked.teacher is None:
            yield Line(1, f"# {name}: {{weight: {term.weight:g}}}", "with a teacher")
            continue
        yield Line(1, f"{name}: {{weight: {term.weight:g}}}", "the teacher's word" if number else "the labels")
    yield from _training(network, images, shape)


_WHOLE = ("classification", "multilabel")
_OF_FOLDERS = ("image_folder", "masks_folder")
"""Sources whose parts are folders train/ and val/."""


def _task(images: ImageSet) -> tuple[str, str]:
    if images.masked:
        return "segmentation", "a mask beside each picture: one class a pixel"
    if images.multilabel:
        return "multilabel", "several labels a picture"
    return "classification", f"one class a picture, of {len(images.classes)}"


def _usual(images: ImageSet) -> tuple[int, int]:
    """Median height and width."""
    step = max(1, len(images) // LOOKED_AT)
    extents: Tensor = images.subset(torch.arange(0, len(images), step)).extents
    known = extents[extents[:, 0] > 0]
    if not len(known):
        return PHOTO, PHOTO
    height, width = (int(value) for value in known.median(0).values)
    return height, width


def _student(task: str, images: ImageSet, given: str | None) -> tuple[str, int | None]:
    """The network and the edge of what it sees; None: pictures as they come."""
    edge = max(_usual(images))
    small = task in _WHOLE and images.small_extent(SMALL) is not None
    if task not in _WHOLE:
        return given or "smp/unet:mobilenet_v2", None
    if small:
        return given or ("digits/cnn_16_32" if edge <= TINY else "cifar/resnet20"), None
    return given or "timm/mobilenetv3_small_100", max(2 * STRIDE, min(PHOTO, edge // STRIDE * STRIDE))


def _pictures(images: ImageSet, size: int | None) -> Iterator[Line]:
    height, width = _usual(images)
    if size is None:
        yield Line(
            1, "views: {crop: pad, flip: true}", f"all are {width} x {height}: flip: false where left and right matter"
        )
        return
    yield Line(1, f"size: {size}", f"edge in pixels of what networks see; most pictures are about {width} x {height}")
    yield Line(
        1, "views: {crop: resized, flip: true}", "random parts, mirrored; flip: false where left and right matter"
    )


def _view(images: ImageSet) -> tuple[int, int]:
    height, width = (max(STRIDE, min(WINDOW, edge // STRIDE * STRIDE)) for edge in _usual(images))
    return height, width


def _scenes(images: ImageSet, view: tuple[int, int]) -> Iterator[Line]:
    height, width = _usual(images)
    yield Line(1, "scenes:")
    yield Line(2, f"size: [{view[0]}, {view[1]}]", f"of a training view; most scenes are about {width} x {height}")
    yield Line(2, "scale: [0.75, 1.5]", "of each view, drawn anew")
    yield Line(2, "flip: true", "false where left and right matter")
    yield Line(2, "jitter: 0.3", "brightness, contrast, saturation")
    if max(height, width) > 2 * WINDOW:
        yield Line(2, "crops: 4", "views of each scene in an epoch: scenes are large")


def _teacher(given: str | None) -> Iterator[Line]:
    if given is None:
        yield Line(0, "# teacher: {checkpoint: runs/teacher}", "a run, a folder or weights; then: counterpoise distill")
        return
    yield Line(0, "teacher:")
    if expanded(Path(given)).exists():
        yield Line(1, f"checkpoint: {_value(given)}")
        return
    if not catalog.published_by(given):
        raise ModelError(
            f"--teacher {given} has no published weights, and a teacher needs some: give a run, or a folder or a file "
            "of weights that says which network it holds."
        )
    yield Line(1, f"model: {_value(given)}")
    yield Line(1, "pretrained: true", "published weights, fetched when the run starts; or checkpoint: FILE")


def _training(network: VisionModel, images: ImageSet, shape: tuple[int, int]) -> Iterator[Line]:
    count = len(images)
    if count < FEWEST:
        raise DataError(f"{count} picture to train on is too few for a batch: give {FEWEST} or more.")
    each = bytes_a_picture(network, shape, images.channels)
    free = _memory() * FAIR_SHARE
    wanted = 64 if network.task == "classification" else 8
    fits = max(FEWEST, min(wanted, int(free // each), count // 4))
    batch = 2 ** (fits.bit_length() - 1)
    keeps = f"a step keeps about {batch * each / 1e6:,.0f} MB of activations"
    if free // each < min(wanted, count // 4):
        why = f"{keeps}, of {free / FAIR_SHARE / 1e9:.0f} GB: more would be too many"
    else:
        why = f"{'few pictures, small batches' if count // 4 < wanted else 'as usual'}; {keeps}"
    yield Line(0, "train:")
    yield Line(1, f"batch_size: {batch}", why)
    one_is_left = count % batch == 1
    if one_is_left:
        yield Line(1, "drop_last: true", "else the last batch has one picture, which batch norm cannot take")
    steps = max(1, count // batch if one_is_left else -(-count // batch))
    epochs = max(10, min(200, round(10_000 / steps)))
    yield Line(1, f"epochs: {epochs}", f"{epochs * steps:,} steps; students that imitate go on gaining for long")


def bytes_a_picture(network: VisionModel, shape: tuple[int, int], channels: int = 3) -> float:
    """What a training step keeps of one picture [channels, height, width] for its way back: the activations."""
    sizes: dict[int, int] = {}
    learned = {one.untyped_storage().data_ptr() for one in network.parameters()}

    def keep(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in learned:
            sizes[storage.data_ptr()] = storage.nbytes()
        return value

    pictures = torch.zeros(2, channels, *shape, dtype=torch.uint8)
    held: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        held.append(network.train()(pictures))  # alive, or storages would be counted under one address
    return sum(sizes.values()) / 2


def _memory() -> float:
    """Bytes of the graphics card, or of this process."""
    return float(torch.cuda.mem_get_info()[1]) if torch.cuda.is_available() else memory()


def _is_text(path: Path) -> bool:
    try:
        str(path.resolve()).encode()
    except UnicodeEncodeError:  # bytes of a name that are no UTF-8
        return False
    return True


def _value(text: str) -> str:
    """A text as YAML has it."""
    plain = (
        text
        and all(letter.isalnum() or letter in "/._-:" for letter in text)
        and (text[0].isalpha() or text[0] in "/.")
    )
    return text if plain and not text.endswith(":") else json.dumps(text, ensure_ascii=False)


def _written(lines: Sequence[Line]) -> Iterator[str]:
    """Reasons in a column of their own, or a line above where there is no room."""
    for depth, text, why in lines:
        body = "  " * depth + text
        if not why:
            yield f"{body}\n"
        elif len(body) <= 44:
            yield f"{body:<46}# {why}\n"
        else:
            yield f"{'  ' * depth}# {why}\n{body}\n"
