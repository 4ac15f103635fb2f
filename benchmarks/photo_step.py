"""A distillation step from a teacher store and a pack of photographs, beside the same student on random tensors.

Ours reads JPEGs from tar shards (shorter side 256) in one worker process, shows views of 224 pixels, mirrored, looks up
recorded logits and trains timm/mobilenetv3_small_100 with cross-entropy and Balance Divergence. The other side is a
loop as one writes it by hand, whose pixels and logits are there already and cost nothing. Both on one thread, in turn.
`waits` is what the run itself says it waits for pictures, in percent.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

import counterpoise
import harness
from counterpoise import config
from counterpoise.data.epochs import Batch
from counterpoise.engine.assemble import assemble, resolve_auto
from counterpoise.engine.processes import join
from counterpoise.engine.run_folder import RunFolder
from counterpoise.engine.trainer import Trainer
from counterpoise.engine.waiting import shares
from counterpoise.models import catalog
from counterpoise.teachers.store import Header, StoreWriter
from counterpoise.teachers.stored import Read

STUDENT, CLASSES, EDGE, BATCH, EPOCHS = "timm/mobilenetv3_small_100", 100, 224, 32, 40
TARGET = 0.9


def write_photos(folder: Path, count: int) -> None:
    """JPEGs of 500 x 375 pixels, quality 90, with detail at every scale as photographs have it."""
    generator = np.random.default_rng(0)
    for number in range(count):
        pixels = np.zeros((375, 500, 3))
        for scale in (1, 2, 4, 8, 16, 32, 64):
            coarse = generator.normal(0, 2 * scale**0.8, (375 // scale + 2, 500 // scale + 2, 3))
            pixels += np.repeat(np.repeat(coarse, scale, 0), scale, 1)[:375, :500]
        place = folder / ("val" if number % 8 == 0 else "train") / f"{number % CLASSES:02d}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray((128 + pixels).clip(0, 255).astype(np.uint8)).save(place / f"{number:04d}.jpg", quality=90)


def make_trainer(pack: Path, folder: Path, store: Path | None) -> Trainer:
    """Ours, as a run file would make it."""
    values: dict[str, Any] = {
        "data": {"path": str(pack), "workers": 1},
        "student": {"model": STUDENT},
        "train": {"epochs": EPOCHS, "batch_size": BATCH, "precision": "fp32", "drop_last": True, "clip_gradient": None},
    }
    values |= {"objective": {"cross_entropy": {}}} if store is None else {"teacher": {"store": str(store)}}
    run = config.resolve(values)
    with join("auto") as processes:
        run = resolve_auto(run, processes.device)
        parts = assemble(run, processes)
        run_folder = RunFolder(folder)
        folder.mkdir()
        run_folder.start(run)
        return Trainer(run, run_folder, parts, processes, show=False)


def write_random(path: Path, trainer: Trainer) -> None:
    """A store of random logits for the views of all epochs."""
    header = Header.create(
        data=trainer.parts.identity["data"],
        teacher="0" * 64,
        kind="epochs",
        views=trainer.parts.train.specification,
        count=len(trainer.parts.train.images),
        slots=range(EPOCHS),
        shape=[CLASSES],
        precision="float16",
        classes=trainer.parts.classes,
    )
    with StoreWriter.create(path, header) as writer:
        for chunk in writer.missing():
            writer.write(chunk, iter([torch.randn(chunk.stop - chunk.start, CLASSES)]))
        writer.finish()


def batches(trainer: Trainer) -> Iterator[tuple[Batch, Read | None]]:
    """Those of epoch after epoch, as the trainer gets them."""
    for epoch in range(EPOCHS):
        yield from trainer._batches(epoch, 0)


def by_hand(student: nn.Module) -> Callable[[Tensor, Tensor, Tensor], None]:
    """What one would write."""
    optimizer = torch.optim.SGD(student.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)

    def step(images: Tensor, teacher: Tensor, target: Tensor) -> None:
        logits = student(images)
        loss = F.cross_entropy(logits, target)
        log_p, log_q = F.log_softmax(teacher, 1), F.log_softmax(logits, 1)
        for a, b in ((log_p, log_q), (log_q, log_p)):
            loss = loss + (a.exp() * (a - b)).sum(1).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def measure(folder: Path, photos: int, rounds: int, steps: int) -> dict[str, Any]:
    """Images a second of both sides, and their ratio."""
    write_photos(folder / "photos", photos)
    counterpoise.pack(folder / "photos", out=folder / "pack", shorter=256)
    write_random(folder / "store", make_trainer(folder / "pack", folder / "labels", None))
    trainer = make_trainer(folder / "pack", folder / "run", folder / "store")
    trainer.parts.student.train()
    source = batches(trainer)
    student = catalog.build(STUDENT, num_classes=CLASSES).net.train()
    step, images = by_hand(student), torch.randn(BATCH, 3, EDGE, EDGE)
    teacher, target = torch.randn(BATCH, CLASSES), torch.randint(0, CLASSES, (BATCH,))

    def ours() -> None:
        for _ in range(steps):
            _, values = trainer.step(*next(source))
            values.tolist()

    def random() -> None:
        for _ in range(steps):
            step(images, teacher, target)

    trainer.clock.start()
    seconds = harness.interleave({"ours": ours, "random": random}, rounds)
    stages = trainer.clock.host.drained()
    return {
        "case": f"{STUDENT} at {EDGE}, batches of {BATCH}, one worker",
        **{f"{side}_images_per_second": BATCH * steps / statistics.median(times) for side, times in seconds.items()},
        "ratio": harness.median_ratio(seconds["random"], seconds["ours"]),
        "waits_percent": shares(stages).get("pictures", 0.0),
        "rounds": rounds,
        "steps_per_round": steps,
    }


def main() -> int:
    """Measure."""
    options = harness.arguments(__doc__ or "")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        case = measure(Path(folder), *((200, 3, 2) if options.quick else (800, 9, 6)))
    target = {"name": "beside the same student on random tensors", "value": case["ratio"], "at_least": TARGET}
    return harness.report("photo_step", [case], [target], options.json, options.out)


if __name__ == "__main__":
    sys.exit(main())
