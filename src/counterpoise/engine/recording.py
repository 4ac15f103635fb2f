"""Recording a teacher: its logits for the views that later students will see."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from counterpoise import config
from counterpoise.data.epochs import Epochs
from counterpoise.data.images import skipping_advised
from counterpoise.engine.allocation import keep_freed_memory
from counterpoise.engine.assemble import Parts, evaluation_loader
from counterpoise.engine.evaluator import score_teacher
from counterpoise.engine.processes import Processes
from counterpoise.engine.progress import Display, say
from counterpoise.errors import ConfigError, CounterpoiseError
from counterpoise.teachers import asking, identity
from counterpoise.teachers.live import LiveTeacher
from counterpoise.teachers.store import Chunk, Header, StoreWriter
from counterpoise.teachers.store.format import INDEX, load, load_recording

Views = Literal["auto", "complete", "epochs", "plain"]
BATCH, CPU_BATCH = 256, 64
"""Images the teacher answers at once. On a CPU, layers of more are blocks that are given back and taken again.

Chunks begin a batch, so that a recording that goes on repeats the same ones.
"""


def plain(run: config.Run) -> config.Run:
    """The run with its views left as the images are."""
    data = run.data
    views = data.views.model_copy(update={"crop": "none", "flip": False, "randaugment": None, "mixup": 0, "cutmix": 0})
    scenes = data.scenes.model_copy(update={"scale": (1.0, 1.0), "flip": False, "jitter": 0.0})
    return run.model_copy(update={"data": data.model_copy(update={"views": views, "scenes": scenes})})


@skipping_advised()
def record(
    run: config.Run,
    parts: Parts,
    out: Path,
    *,
    views: Views,
    epochs: int,
    precision: str,
    part: tuple[int, int],
    processes: Processes,
    show: bool,
) -> bool:
    """Record this part of a store, from where it was left; whether the store is finished, with all its parts.

    Raises:
        ConfigError: views that cannot be counted. StoreError: what `out` holds does not fit, or there is no room.
    """
    teacher, loader = parts.teacher, parts.train
    assert teacher is not None
    if teacher.device.type == "cpu":
        keep_freed_memory()
    count = loader.countable()
    if views == "auto":
        views = "epochs" if count is None else "complete"
    if views == "complete" and count is None:
        raise ConfigError(
            "The views of this run cannot be counted (resized crops, RandAugment, mixup, cutmix or scenes): record "
            "them by epochs (--views epochs)."
        )
    slots = {"complete": count or 0, "epochs": epochs, "plain": 1}[views]
    first = next(loader.views_of([torch.arange(1)], 0, 0 if views == "complete" else None))
    header = Header.create(
        data=parts.identity["data"],
        teacher="",
        kind=views,
        views=loader.specification,
        count=len(loader.images),
        slots=range(slots),
        shape=teacher(first).logits.shape[1:],
        precision=precision,
        classes=parts.classes,
    ).answered_by(parts.teacher_identity)
    _require_same_teacher(out, header, teacher, loader)
    say(parts.found, show and processes.first)
    if parts.labeled:
        evaluated = evaluation_loader(parts.val.images, teacher.model, run, processes)
        accept = run.teacher is not None and run.teacher.accept_chance
        scores, line = score_teacher(teacher.model, evaluated, parts.task, processes, parts.classes, accept)
        if show and processes.first and scores:
            print(line, file=sys.stderr)
    problem: CounterpoiseError | None = None
    try:
        with StoreWriter.create(out, header, part) as writer:
            _fill(writer, parts, views, show)
    except CounterpoiseError as error:
        problem = error
    processes.agree(problem)
    return writer.finish()


def _require_same_teacher(out: Path, header: Header, teacher: LiveTeacher, loader: Epochs) -> None:
    """Ask for what an earlier version recorded, which kept the hash of the weights alone; raises StoreError."""
    known = load(out).header if (out / INDEX).exists() else load_recording(out)
    # Whatever else does not fit is said when it is written to.
    if known is None or identity.whole(known.identity) or known.difference(header, layout=True):
        return
    found = asking.recorded(out, known)
    if found is not None:
        asking.require_same(out, known, *found, teacher, loader)


def _fill(writer: StoreWriter, parts: Parts, views: Views, show: bool) -> None:
    """Write the chunks that are missing."""
    missing = writer.missing()
    images = sum(chunk.stop - chunk.start for chunk in missing)
    assert parts.teacher is not None
    with Display(images, 0, show) as display:
        done = 0
        for number, chunk in enumerate(missing, 1):
            writer.write(chunk, _answers(parts.teacher, parts, chunk, views))
            done += chunk.stop - chunk.start
            display.step(done, f"chunk {number}/{len(missing)}", 0.0, {})


def _answers(teacher: LiveTeacher, parts: Parts, chunk: Chunk, views: Views) -> Iterator[Tensor]:
    """Logits of a chunk's samples in its view, on the CPU."""
    batch = CPU_BATCH if teacher.device.type == "cpu" else BATCH
    groups = torch.split(torch.arange(chunk.start, chunk.stop), batch)
    by_number = views == "complete"
    shown = parts.train.views_of(groups, 0 if by_number else chunk.slot, chunk.slot if by_number else None)
    for images in shown:
        yield teacher(images).logits.float().cpu()
