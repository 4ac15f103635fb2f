"""Recording a teacher: its logits for the views that later students will see."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal

import torch

from counterpoise import config, tasks
from counterpoise.config.options import keywords
from counterpoise.data import sources
from counterpoise.data.epochs import Epochs
from counterpoise.data.images import skipping_advised
from counterpoise.data.sources.base import Splits
from counterpoise.engine import inputs
from counterpoise.engine.allocation import keep_freed_memory
from counterpoise.engine.assemble import assemble, evaluation_loader, resolve_auto
from counterpoise.engine.evaluator import score_teacher
from counterpoise.engine.inputs import RunLike
from counterpoise.engine.networks import weights_named
from counterpoise.engine.options import Record
from counterpoise.engine.processes import errors_explained, join
from counterpoise.engine.progress import Display, say
from counterpoise.errors import ConfigError, CounterpoiseError
from counterpoise.teachers import asking, identity, store
from counterpoise.teachers.live import LiveTeacher
from counterpoise.teachers.store import Header, StoreWriter
from counterpoise.teachers.store.format import INDEX, SAMPLE, load, load_recording
from counterpoise.teachers.stored import check_countable

Views = Literal["auto", "complete", "epochs", "plain"]
BATCH, CPU_BATCH = 256, 64
"""Images the teacher answers at once. On a CPU, layers of more are blocks that are given back and taken again.

Chunks begin a batch, so that a recording that goes on repeats the same ones.
"""


@skipping_advised()
@keywords(Record)
def record(run: RunLike, options: Record) -> dict[str, Any]:
    """Record what a teacher says of the views that a student will see, for `teacher.store`.

    What is there already stays: a recording that was stopped goes on, and a store gets the epochs that it lacks.

    `run` is as for `distill`; only its data, teacher and the sizes of its networks matter.

    Returns:
        What `counterpoise.store.info` says of the store.

    Raises:
        StoreError: the folder holds something else, or the disk has no room.
    """
    run = inputs.resolve(run)
    folder, views = options.out or run.out, options.views
    if folder is None:
        raise ConfigError("record needs a folder for the store: give --out.")
    if run.teacher is None and options.teacher is None:
        raise ConfigError("record needs a teacher: give teacher.model and teacher.checkpoint.")
    if options.student is None and run.student.model is None and run.student.checkpoint is None:
        raise ConfigError(
            "record shows the teacher what a student will see, whose input size decides that: name one by "
            "student.model, such as cifar/resnet20. Every student of that input size may learn from the store."
        )
    if run.teacher is not None and run.teacher.combine == "right":
        raise ConfigError("teacher.combine: right goes by labels, which a store of answers knows nothing of.")
    if run.teacher is not None:
        members = tuple(_network(member, number) for number, member in enumerate(run.teacher.members, 1))
        itself = run.teacher.model_copy(update={"store": None, "missing": "refuse", "members": members})
        run = run.model_copy(update={"teacher": itself})
    if options.epochs is not None and views in ("complete", "plain"):
        raise ConfigError(f"epochs is of views: epochs, and views is {views}: leave it out.")
    if views == "plain":
        run = _without_augmentation(run)
    epochs = inputs.positive("epochs", run.train.epochs if options.epochs is None else options.epochs)
    with join(run.train.device) as processes:
        run = resolve_auto(run, processes.device)
        data = options.data if options.data is not None or views == "epochs" else _of_all_folds(run)
        parts = assemble(run, processes, student=options.student, teacher=options.teacher, data=data)
        if views == "auto" and data is not options.data and parts.train.countable() is None:
            parts = assemble(run, processes, student=options.student, teacher=options.teacher)  # of this fold alone
        live, loader = parts.judge, parts.train
        if live is None:
            raise ConfigError("record keeps a teacher's logits, and the objective of this run looks at none of them.")
        if live.device.type == "cpu":
            keep_freed_memory()
        count = loader.countable()
        if views == "auto":
            views = "epochs" if count is None else "complete"
        check_countable(views, loader)
        slots = {"complete": count or 0, "epochs": epochs, "plain": 1}[views]
        first = next(loader.views_of([torch.arange(1)], 0, 0 if views == "complete" else None))
        header = Header.create(
            data=parts.identity["data"],
            teacher="",
            kind=views,
            views=loader.specification,
            count=len(loader.images),
            slots=range(slots),
            shape=live(first).logits.shape[1:],
            precision=options.precision,
            classes=parts.classes,
            notes={SAMPLE: sample} if (sample := parts.identity.get("data.sample")) else {},
        ).answered_by(parts.teacher_identity)
        _require_same_teacher(Path(folder), header, live, loader)
        say(parts.found, options.show and processes.first)
        if parts.labeled:
            evaluated = evaluation_loader(parts.val.images, live.model, run, processes)
            scores, line = score_teacher(parts, evaluated, processes)
            if options.show and processes.first and scores:
                print(line, file=sys.stderr)
        problem: CounterpoiseError | None = None
        try:
            with StoreWriter.create(Path(folder), header, options.part or (processes.rank, processes.world)) as writer:
                _fill(writer, live, loader, views, options.show)
        except CounterpoiseError as error:
            problem = error
        processes.agree(problem)
        finished = writer.finish()
    return {"store": str(folder), "finished": finished, **store.info(Path(folder))}


def _network(member: config.Member, number: int) -> config.Member:
    """One of several teachers as a network; raises ConfigError where there is its store alone."""
    if member.store is not None and member.prompts is None and not weights_named(member):
        raise ConfigError(
            f"teachers.{number} is a store, {member.store}, and record asks networks: give its checkpoint. Stores that "
            "are there are read as one by distill, without being recorded again."
        )
    return member.model_copy(update={"store": None})


def _of_all_folds(run: config.Run) -> Splits | None:
    """Where a run holds out a fold, all images that folds are of, so that one store serves them all; else None."""
    if run.data.fold is None:
        return None
    splits = sources.load(run.data.model_copy(update={"held_out": 0}))
    whole = splits.train.split_from
    return None if whole is None else Splits(whole, splits.val)


def _without_augmentation(run: config.Run) -> config.Run:
    data = run.data
    still = {"views": data.views.still()} if tasks.get(run.task).whole else {"scenes": data.scenes.still()}
    return run.model_copy(update={"data": data.model_copy(update=still)})


def _require_same_teacher(out: Path, header: Header, teacher: LiveTeacher, loader: Epochs) -> None:
    """Ask for what an earlier version recorded, which kept the hash of the weights alone; raises StoreError."""
    known = load(out).header if (out / INDEX).exists() else load_recording(out)
    # Whatever else does not fit is said when it is written to.
    if known is None or identity.whole(known.identity) or known.difference(header, layout=True):
        return
    found = asking.recorded(out, known)
    if found is not None:
        asking.require_same(out, known, *found, teacher, loader)


@errors_explained()
def _fill(writer: StoreWriter, teacher: LiveTeacher, loader: Epochs, views: Views, show: bool) -> None:
    """Write the chunks that are missing: logits of a chunk's samples in its view."""
    missing = writer.missing()
    batch = CPU_BATCH if teacher.device.type == "cpu" else BATCH
    done = 0
    with Display(sum(chunk.stop - chunk.start for chunk in missing), 0, show) as display, teacher.model.together():
        for number, chunk in enumerate(missing, 1):
            groups = torch.split(torch.arange(chunk.start, chunk.stop), batch)
            epoch, view = (0, chunk.slot) if views == "complete" else (chunk.slot, None)
            shown = loader.views_of(groups, epoch, view)
            writer.write(chunk, (teacher(images).logits.float().cpu() for images in shown))
            done += chunk.stop - chunk.start
            display.step(done, f"chunk {number}/{len(missing)}", 0.0, {})
