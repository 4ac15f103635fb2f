"""A training step of ours, and a whole epoch with data and views, beside a bare loop written by hand.

Both sides train the same networks from the same weights with a live teacher in bf16 and channels_last, on the same
losses (cross-entropy, forward KL, reverse KL), in one process, in turn. The bare loop gets ready tensors for nothing.
`clock_part` is what it costs to say where the time goes, as a part of a step.
"""

from __future__ import annotations

import copy
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import harness
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

PAIRS = (("resnet56", "resnet20"), ("resnet32x4", "resnet8x4"))
BATCH = 64
STEP_TARGET, EPOCH_TARGET, CLOCK_TARGET = 0.95, 0.90, 0.005
OFTEN = 100


def random_images(count: int) -> ArraySet:
    """CIFAR-100 in shape."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 100, (count,), generator=generator)
    return ArraySet(images, labels, tuple(str(i) for i in range(100)), "random")


def make_trainer(teacher: nn.Module, student: nn.Module, steps: int, folder: Path) -> Trainer:
    """Ours, as a run file would make it."""
    run = config.resolve(
        {
            "teacher": {"model": "handed/in"},
            "student": {"model": "handed/in"},
            "objective": {"cross_entropy": {"weight": 1.0}, "balance": {"weight": 1.0}},
            "train": {
                "epochs": 1000,
                "batch_size": BATCH,
                "precision": "bf16",
                "channels_last": True,
                "clip_gradient": None,
            },
        }
    )
    with join("auto") as processes:
        run = resolve_auto(run, processes.device)
        data = Splits(random_images(BATCH * steps), random_images(BATCH))
        parts = assemble(run, processes, student=student, teacher=teacher, data=data)
        run_folder = RunFolder(folder)
        folder.mkdir(parents=True)
        run_folder.start(run)
        return Trainer(run, run_folder, parts, processes, show=False)


def make_bare(teacher: nn.Module, student: nn.Module, device: torch.device) -> Callable[[Tensor, Tensor], None]:
    """What one would write by hand."""
    teacher = teacher.to(device, memory_format=torch.channels_last).eval()
    student = student.to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(student.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)

    def step(images: Tensor, target: Tensor) -> None:
        with torch.autocast(device.type, torch.bfloat16):
            with torch.no_grad():
                t = teacher(images).float()
            s = student(images).float()
        loss = F.cross_entropy(s, target)
        for tau, reverse in ((4.0, False), (2.0, True)):
            log_p, log_q = F.log_softmax(t / tau, 1), F.log_softmax(s / tau, 1)
            a, b = (log_q, log_p) if reverse else (log_p, log_q)
            loss = loss + tau**2 * (a.exp() * (a - b)).sum(1).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def measure(pair: tuple[str, str], rounds: int, steps: int, folder: Path) -> dict[str, Any]:
    """Images a second of each side, and ratios."""
    torch.manual_seed(0)
    teacher, student = (cifar.create(name) for name in pair)
    trainer = make_trainer(copy.deepcopy(teacher), copy.deepcopy(student), steps, folder)
    device = trainer.processes.device
    bare_step = make_bare(teacher, student, device)
    images = torch.randn(BATCH, 3, 32, 32, device=device).contiguous(memory_format=torch.channels_last)
    target = torch.randint(0, 100, (BATCH,), device=device)
    batch = next(iter(trainer.parts.train.epoch(0)))
    trainer.parts.student.train()
    epoch = [0]

    def bare() -> None:
        for _ in range(steps):
            bare_step(images, target)

    def ours() -> None:
        for _ in range(steps):
            _, values = trainer.step(batch)
            values.tolist()

    def whole_epoch() -> None:
        trainer.progress.step = epoch[0] * steps
        with Interrupt() as interrupt, Display(1, 0, show=False) as display:
            trainer.train_epoch(epoch[0], interrupt, display)
        epoch[0] += 1

    def clock() -> None:
        for _ in trainer.clock.waiting("store", trainer.clock.waiting("pictures", range(OFTEN * steps))):
            for stage in ("copy", "teacher", "student", "optimizer"):
                with trainer.clock.working(stage):
                    pass
        trainer.clock.start()

    seconds = harness.interleave({"bare": bare, "step": ours, "epoch": whole_epoch, "clock": clock}, rounds)
    speed = {name: BATCH * steps / statistics.median(values) for name, values in seconds.items()}
    return {
        "case": f"{pair[0]} -> {pair[1]}",
        "bare_images_per_second": speed["bare"],
        "step_images_per_second": speed["step"],
        "epoch_images_per_second": speed["epoch"],
        "step_ratio": harness.median_ratio(seconds["bare"], seconds["step"]),
        "epoch_ratio": harness.median_ratio(seconds["bare"], seconds["epoch"]),
        "clock_part": harness.median_ratio(seconds["clock"], seconds["step"]) / OFTEN,
        "rounds": rounds,
        "steps_per_round": steps,
    }


def main() -> int:
    """Run it."""
    options = harness.arguments(__doc__ or "")
    rounds, steps = (3, 3) if options.quick else (9, 6)
    with tempfile.TemporaryDirectory() as folder:
        cases = [measure(pair, rounds, steps, Path(folder, pair[0])) for pair in PAIRS]
    targets = [
        {"name": f"{case['case']}: {kind} beside a bare loop", "value": case[f"{kind}_ratio"], "at_least": bound}
        for case in cases
        for kind, bound in (("step", STEP_TARGET), ("epoch", EPOCH_TARGET))
    ]
    targets += [
        {
            "name": f"{case['case']}: part of a step that its clock takes",
            "value": case["clock_part"],
            "at_most": CLOCK_TARGET,
        }
        for case in cases
    ]
    return harness.report("step", cases, targets, options.json, options.out)


if __name__ == "__main__":
    sys.exit(main())
