"""An epoch from a teacher store through the engine, beside a bare loop on labels alone; on CUDA, minutes of recipe A.

The bare loop is what one would write by hand: the set in memory as bytes, each image's own crop of its padded form,
mirrored or not, bf16 autocast, channels_last, SGD with momentum, one read of the loss a step. The engine draws, looks
up logits in a store of random ones, computes cross-entropy and Balance Divergence, checks each step and writes its log.
Both train the same network in one process, in turn; `cpu_ratio` is the same in CPU seconds, which neighbors on the
machine disturb less. `fast` is with train.fast, `general` without.

On CUDA: `cifar/resnet8x4` from a complete store, whole epochs of 50,000 images with evaluation and checkpoint as `fit`
has them; minutes for 240 of them, and how fast resnet32x4 answers while such a store is recorded.
"""

from __future__ import annotations

import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

import harness
import store as stores
from counterpoise import config
from counterpoise.data.sources.arrays import ArraySet
from counterpoise.data.sources.base import Splits
from counterpoise.engine.assemble import assemble, resolve_auto
from counterpoise.engine.interrupt import Interrupt
from counterpoise.engine.processes import join
from counterpoise.engine.progress import Display
from counterpoise.engine.run_folder import RunFolder
from counterpoise.engine.trainer import Trainer
from counterpoise.models import cifar
from counterpoise.teachers.live import LiveTeacher

BATCH = 64
LABELS_TARGET, MINUTES_TARGET, EPOCHS = 0.97, 6.0, 240
MEAN, STD = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)
PAIR = ("resnet32x4", "resnet8x4")


def make_trainer(data: Splits, folder: Path, student: str, store: Path | None, seed: int = 0, **train: Any) -> Trainer:
    """Ours, as a run file would make it: from a store, or on labels alone."""
    values: dict[str, Any] = {
        "seed": seed,
        "student": {"model": f"cifar/{student}"},
        "train": {"epochs": EPOCHS, "batch_size": BATCH, "precision": "bf16", "clip_gradient": None, **train},
    }
    if store is None:
        values["objective"] = {"cross_entropy": {"weight": 1.0}}
    else:
        values["teacher"] = {"store": str(store)}
    run = config.resolve(values)
    with join("auto") as processes:
        run = resolve_auto(run, processes.device)
        parts = assemble(run, processes, data=data)
        folder.mkdir(parents=True)
        run_folder = RunFolder(folder)
        run_folder.start(run)
        return Trainer(run, run_folder, parts, processes, show=False)


def epochs_of(trainer: Trainer) -> Callable[[], None]:
    """The trainer's next epoch, at each call."""
    done = [0]

    def epoch() -> None:
        trainer.progress.step = done[0] * trainer.steps_per_epoch
        with Interrupt() as interrupt, Display(1, 0, show=False) as display:
            trainer.train_epoch(done[0], interrupt, display)
        done[0] += 1

    return epoch


def bare_epochs(data: Splits, student: str, device: torch.device) -> Callable[[], None]:
    """What one would write by hand; one epoch at each call."""
    assert isinstance(data.train, ArraySet)
    images, labels = data.train.images.to(device), data.train.labels.to(device)
    mean, std = (torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (MEAN, STD))
    net = cifar.create(student).to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    pixels = torch.arange(32, device=device)

    def epoch() -> None:
        order = torch.randperm(len(images), device=device)
        for indices in order.split(BATCH):
            count = len(indices)
            padded = F.pad(images[indices], (4, 4, 4, 4))
            top, left = torch.randint(0, 9, (2, count, 1), device=device)
            rows, columns = top + pixels, left + pixels
            one = torch.arange(count, device=device)[:, None, None]
            views = padded[one, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
            mirrored = torch.rand(count, 1, 1, 1, device=device) < 0.5
            views = torch.where(mirrored, views.flip(3), views)
            inputs = ((views.float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)
            with torch.autocast(device.type, torch.bfloat16):
                logits = net(inputs)
            loss = F.cross_entropy(logits.float(), labels[indices])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()

    return epoch


def beside_bare(student: str, folder: Path, rounds: int, steps: int) -> dict[str, Any]:
    """Images a second of the bare loop and of ours, and ratios."""
    torch.manual_seed(0)
    data = stores.random_splits(BATCH * steps)
    store = folder / "store"
    stores.write_random(store, make_trainer(data, folder / "model", student, None), stores.VIEWS)
    trainers = {
        "general": make_trainer(data, folder / "general", student, store, fast=False),
        "fast": make_trainer(data, folder / "fast", student, store, fast=True),
    }
    sides = {"bare": bare_epochs(data, student, trainers["general"].processes.device)}
    sides |= {name: epochs_of(trainer) for name, trainer in trainers.items()}
    cpu: dict[str, list[float]] = {name: [] for name in sides}

    def clocked(name: str) -> Callable[[], None]:
        def run() -> None:
            start = time.process_time()
            sides[name]()
            cpu[name].append(time.process_time() - start)

        return run

    seconds = harness.interleave({name: clocked(name) for name in sides}, rounds)
    case: dict[str, Any] = {"case": f"cifar/{student}"}
    for name, values in seconds.items():
        case[f"{name}_images_per_second"] = BATCH * steps / statistics.median(values)
    for name in trainers:
        case[f"{name}_ratio"] = harness.median_ratio(seconds["bare"], seconds[name])
        case[f"{name}_cpu_ratio"] = harness.median_ratio(cpu["bare"][1:], cpu[name][1:])
    return {**case, "rounds": rounds, "steps_per_round": steps}


def recipe_a(folder: Path, epochs: int, images: int) -> list[dict[str, Any]]:
    """Whole runs of a few epochs, extrapolated: bf16 and fp32, fast and general."""
    generator = torch.Generator().manual_seed(0)
    data = stores.random_splits(images)
    held = torch.randint(0, 256, (images // 5, 3, 32, 32), dtype=torch.uint8, generator=generator)
    held_labels = torch.randint(0, 100, (images // 5,), generator=generator)
    data = Splits(data.train, ArraySet(held, held_labels, data.train.classes))
    stores.write_random(folder / "store", make_trainer(data, folder / "model", PAIR[1], None), stores.VIEWS)
    schedule = {"name": "multistep", "milestones": (150, 180, 210)}
    cases = []
    for precision in ("bf16", "fp32"):
        for fast in (True, False):
            name = f"{' -> '.join(PAIR)}, {precision}, {'fast' if fast else 'general'} step"
            start = time.perf_counter()
            place = folder / f"{precision}-{fast}"
            trainer = make_trainer(
                data, place, PAIR[1], folder / "store", precision=precision, fast=fast, schedule=schedule
            )
            ready = time.perf_counter() - start
            ends = timed_epochs(trainer, epochs if fast else 1)
            seconds = statistics.median(after - before for before, after in itertools.pairwise(ends))
            case: dict[str, Any] = {"case": name, "start_seconds": ready, "epoch_seconds": seconds}
            case |= {"images_per_second": images / seconds, "minutes": (ready + EPOCHS * seconds) / 60}
            if trainer.fast is not None and trainer.fast.capture is not None:
                case["captured"] = trainer.fast.capture.obstacle or "yes"
            cases.append(case)
            del trainer
            torch.cuda.empty_cache()
    return [*cases, recording()]


def timed_epochs(trainer: Trainer, epochs: int) -> list[float]:
    """Moments at which each of the first epochs ended, evaluation and checkpoint included; the first one warms up."""
    ends = []
    with Interrupt() as interrupt, Display(1, 0, show=False) as display:
        for epoch in range(epochs + 1):
            trainer.train_epoch(epoch, interrupt, display)
            trainer._evaluate(epoch, display)
            trainer._save()
            torch.cuda.synchronize()
            ends.append(time.perf_counter())
    return ends


def recording() -> dict[str, Any]:
    """How fast the teacher answers, and minutes for all views of 50,000 images."""
    from counterpoise.models import catalog

    device = torch.device("cuda")
    model = catalog.build(f"cifar/{PAIR[0]}", num_classes=100)
    model.memory_format = torch.channels_last
    model.net.to(memory_format=torch.channels_last)
    teacher = LiveTeacher(model, device, torch.bfloat16)
    images = torch.randint(0, 256, (500, 3, 32, 32), dtype=torch.uint8, device=device)
    for count in (5, 40):
        start = time.perf_counter()
        for _ in range(count):
            logits = teacher(images).logits.float().cpu()
        seconds = time.perf_counter() - start
    speed = count * len(logits) / seconds
    minutes = stores.VIEWS * 50_000 / speed / 60
    return {"case": f"cifar/{PAIR[0]} answering, bf16", "images_per_second": speed, "minutes": minutes}


def main() -> int:
    """Run it."""
    options = harness.arguments(__doc__ or "")
    on_gpu = torch.cuda.is_available()
    plan = {"resnet20": (15, 7), "resnet8": (11, 12)}
    if options.quick:
        plan = dict.fromkeys(plan, (3, 4))
    if on_gpu:
        plan = {name: (min(rounds, 7), 10 * steps) for name, (rounds, steps) in plan.items()}
    with tempfile.TemporaryDirectory() as folder:
        cases = [beside_bare(name, Path(folder, name), *often) for name, often in plan.items()]
        name = "cifar/resnet20 from a store, fast step, beside labels by hand"
        targets = [{"name": name, "value": cases[0]["fast_ratio"], "at_least": LABELS_TARGET}]
        if on_gpu:
            cases += recipe_a(Path(folder, "recipe"), 2 if options.quick else 3, 5_000 if options.quick else 50_000)
            fast = next(case for case in cases if case["case"].endswith("bf16, fast step"))
            if not options.quick:
                targets.append(
                    {"name": f"{fast['case']}, minutes", "value": fast["minutes"], "at_most": MINUTES_TARGET}
                )
    return harness.report("fast", cases, targets, options.json, options.out)


if __name__ == "__main__":
    sys.exit(main())
