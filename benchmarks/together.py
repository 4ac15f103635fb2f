"""Several seeds of one small network on one machine: one after another, a process each, streams, and vmap.

Small networks leave most of a GPU idle, so a table costs less where runs share it. The ways, all from the same store of
random logits with cross-entropy and Balance Divergence, batch 64, bf16, channels_last:

- alone: the engine's own epochs, one run after another; what the others are compared with.
- processes: the same, a process each, started together; under MPS where its daemon runs, else in turns of the driver.
- streams: the same in one process, a CUDA stream each, steps launched in turn (CUDA only).
- vmap: all networks in one, by hand: torch.func.stack_module_state and vmap over functional_call, one SGD over stacked
  weights. BatchNorm in training mode works where running statistics are stacked, too: vmap lets it change them in
  place. Convolutions of all networks become one with groups. Checked against networks trained by themselves in float32.

Without CUDA this is a check that the ways work, at a tiny size: its speeds say nothing about a GPU.
"""

from __future__ import annotations

import copy
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

import fast
import harness
import store as stores
from counterpoise import config
from counterpoise.data.loader import TrainLoader
from counterpoise.engine.trainer import Trainer
from counterpoise.models import cifar
from counterpoise.models.network import VisionModel
from counterpoise.objectives.composite import WeightedSum
from counterpoise.outputs import Outputs
from counterpoise.teachers.resident import ResidentTeacher, hold

BATCH = 64
DIFFERENCE = 1e-3
"""Most by which weights of networks trained together may differ from those trained by themselves, in float32."""


def trainer_of(seed: int, student: str, store: Path, folder: Path, images: int) -> Trainer:
    """A run of its own seed."""
    return fast.make_trainer(stores.random_splits(images), folder / f"run-{seed}", student, store, seed)


def warm(epoch: Callable[[], None]) -> Callable[[], None]:
    """After two epochs, which capture and fill caches."""
    epoch()
    epoch()
    return epoch


def wait() -> None:
    """Until the device has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def alone(runs: int, student: str, store: Path, folder: Path, images: int, rounds: int) -> float:
    """Images a second of runs one after another."""
    epochs = [warm(fast.epochs_of(trainer_of(seed, student, store, folder, images))) for seed in range(runs)]
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        for epoch in epochs:
            epoch()
        wait()
        seconds.append(time.perf_counter() - start)
    return runs * images / statistics.median(seconds)


def processes(runs: int, student: str, store: Path, folder: Path, images: int, rounds: int) -> float:
    """Images a second of runs in processes of their own, from the moment when all are ready to the end of the last."""
    threads = str(max(1, torch.get_num_threads() // runs))
    command = [sys.executable, __file__, "child"]
    rest = [student, str(store), str(folder), str(images), str(rounds), threads]
    children = [
        subprocess.Popen([*command, str(seed), *rest], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for seed in range(runs)
    ]
    try:
        for child in children:
            assert child.stdout is not None
            if child.stdout.readline() != "ready\n":
                raise RuntimeError("a child could not start; its own message says why")
        start = time.perf_counter()
        for child in children:
            assert child.stdin is not None
            child.stdin.write("go\n")
            child.stdin.flush()
        for child in children:
            assert child.stdout is not None
            child.stdout.readline()
        seconds = time.perf_counter() - start
    finally:
        for child in children:
            child.kill()
            child.communicate()
    return runs * images * rounds / seconds


def child(seed: str, student: str, store: str, folder: str, images: str, rounds: str, threads: str) -> None:
    """One of them."""
    torch.set_num_threads(int(threads))
    epoch = warm(fast.epochs_of(trainer_of(int(seed), student, Path(store), Path(folder), int(images))))
    wait()
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(int(rounds)):
        epoch()
    wait()
    print("done", flush=True)


def streams(runs: int, student: str, store: Path, folder: Path, images: int, rounds: int) -> float:
    """Images a second of runs in one process, each on its own stream, a step of each in turn."""
    trainers = [trainer_of(seed, student, store, folder, images) for seed in range(runs)]
    lanes = [torch.cuda.Stream() for _ in trainers]  # type: ignore[no-untyped-call]
    seconds = []
    for epoch in range(rounds + 2):
        wait()
        start = time.perf_counter()
        steps = []
        for trainer in trainers:
            trainer.parts.student.train()
            steps.append(trainer._steps(epoch, 0))
        for _ in range(trainers[0].steps_per_epoch):
            for lane, own in zip(lanes, steps, strict=True):
                with torch.cuda.stream(lane):
                    next(own)
        wait()
        seconds.append(time.perf_counter() - start)
    return runs * images / statistics.median(seconds[2:])


class Stacked:
    """Networks of one architecture that learn side by side, from views, samples and logits of their own."""

    def __init__(self, nets: list[nn.Module], template: VisionModel, objective: WeightedSum, half: bool) -> None:
        self.count = len(nets)
        self.device = next(nets[0].parameters()).device
        self.half = half
        self.parameters, self.buffers = stack_module_state(nets)  # type: ignore[arg-type]
        self.base = copy.deepcopy(nets[0]).train().to("meta")
        self.template = template
        self.objective = objective
        self.optimizer = torch.optim.SGD(
            self.parameters.values(), lr=0.05, momentum=0.9, weight_decay=5e-4, fused=self.device.type == "cuda"
        )

    def step(self, images: Tensor, teacher: Tensor, target: Tensor) -> None:
        """images uint8 [K, B, 3, H, W], teacher float32 [K, B, C], target int64 [K, B]."""

        def logits_of(parameters: dict[str, Tensor], buffers: dict[str, Tensor], pixels: Tensor) -> Tensor:
            return functional_call(self.base, (parameters, buffers), (pixels,))  # type: ignore[no-any-return]

        pixels = self.template.normalize(images.flatten(0, 1))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            logits = vmap(logits_of)(self.parameters, self.buffers, pixels.view(images.shape))
        # The mean over all networks' samples: times their number, each gets the gradient of its own mean.
        total, _ = self.objective(Outputs(logits.flatten(0, 1)), Outputs(teacher.flatten(0, 1)), target.flatten())
        (self.count * total).backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def stacked(runs: int, student: str, store: Path, folder: Path, images: int, rounds: int) -> float:
    """Images a second of networks trained as one, by hand, without a graph."""
    trainers = [trainer_of(seed, student, store, folder, images) for seed in range(runs)]
    first = trainers[0].parts
    networks = Stacked([t.parts.student.net for t in trainers], first.student, first.objective, half=True)
    held = []
    for trainer in trainers:
        assert trainer.parts.stored is not None
        hold(trainer.parts.stored)
        held.append(ResidentTeacher(trainer.parts.stored))
    seconds = []
    for epoch in range(rounds + 1):
        wait()
        start = time.perf_counter()
        for batches in zip(*(batches_of(t, h, epoch) for t, h in zip(trainers, held, strict=True)), strict=True):
            networks.step(*(torch.stack(tensors) for tensors in zip(*batches, strict=True)))
        wait()
        seconds.append(time.perf_counter() - start)
    return runs * images / statistics.median(seconds[1:])


def batches_of(trainer: Trainer, held: ResidentTeacher, epoch: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Images, teacher logits and target of each batch."""
    loader = trainer.parts.train
    assert isinstance(loader, TrainLoader)
    indices, drawn = loader.draw_epoch(epoch)
    rows = held.rows(epoch, indices).to(loader.device)
    for start in range(0, len(indices), BATCH):
        images, target = loader.show(drawn.part(start, start + BATCH))
        yield images, held.logits(rows[start : start + BATCH]), target


def largest_difference(student: str, runs: int, steps: int = 3) -> float:
    """Between networks trained together and by themselves in float32: weights and running statistics."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    nets = [cifar.create(student).to(device) for _ in range(runs)]
    images = torch.randint(0, 256, (steps, runs, 16, 3, 32, 32), dtype=torch.uint8, device=device)
    teacher = 3 * torch.randn(steps, runs, 16, 100, device=device)
    target = torch.randint(0, 100, (steps, runs, 16), device=device)
    template = VisionModel(nn.Identity(), name="none", num_classes=100).to(device)
    objective = WeightedSum(config.resolve({}).objective)
    networks = Stacked(copy.deepcopy(nets), template, objective, half=False)
    for step in range(steps):
        networks.step(images[step], teacher[step], target[step])
    most = 0.0
    for number, net in enumerate(nets):
        optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
        net.train()
        for step in range(steps):
            logits = net(template.normalize(images[step, number]))
            total, _ = objective(Outputs(logits), Outputs(teacher[step, number]), target[step, number])
            total.backward()
            optimizer.step()
            optimizer.zero_grad()
        for name, value in net.state_dict().items():
            together = {**networks.parameters, **networks.buffers}[name][number]
            apart = (together.detach().float() - value.float()).abs().max() / value.float().abs().max().clamp(min=1)
            most = max(most, float(apart))
    return most


def mps() -> bool:
    """Whether NVIDIA's multi-process service is there for the processes."""
    pipe = Path(os.environ.get("CUDA_MPS_PIPE_DIRECTORY", "/tmp/nvidia-mps"), "control")
    return shutil.which("nvidia-cuda-mps-control") is not None and pipe.exists()


def measure(student: str, runs: int, folder: Path, images: int, rounds: int) -> list[dict[str, Any]]:
    """All ways."""
    store = folder / "store"
    model = fast.make_trainer(stores.random_splits(images), folder / "model", student, None)
    stores.write_random(store, model, stores.VIEWS)
    ways = {"alone": alone, "processes": processes, "streams": streams, "vmap": stacked}
    if not torch.cuda.is_available():
        del ways["streams"]
    cases: list[dict[str, Any]] = []
    for way, run in ways.items():
        case: dict[str, Any] = {"case": f"cifar/{student}, {runs} runs, {way}", "runs": runs}
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        case["images_per_second"] = run(runs, student, store, folder / way, images, rounds)
        case["ratio"] = case["images_per_second"] / (cases[0] if cases else case)["images_per_second"]
        if way == "processes":
            case["mps"] = mps()
        elif torch.cuda.is_available():
            case["gigabytes"] = torch.cuda.max_memory_allocated() / 1e9
        cases.append(case)
    return cases


def main() -> int:
    """Measure."""
    if sys.argv[1:2] == ["child"]:
        child(*sys.argv[2:])
        return 0
    options = harness.arguments(__doc__ or "")
    cases: list[dict[str, Any]] = []
    if torch.cuda.is_available():
        plan = [(student, runs) for student in ("resnet8x4", "resnet20") for runs in (2, 4, 8)]
        plan = plan[:1] if options.quick else plan
        size, rounds = 320 * BATCH, 3
    else:
        plan, size, rounds = [("resnet8", 2)], 2 * BATCH, 2
    with tempfile.TemporaryDirectory() as folder:
        for student, runs in plan:
            cases += measure(student, runs, Path(folder, f"{student}-{runs}"), size, rounds)
    difference = largest_difference("resnet8", 3)
    targets = [{"name": "vmap beside networks by themselves", "value": difference, "at_most": DIFFERENCE}]
    return harness.report("together", cases, targets, options.json, options.out)


if __name__ == "__main__":
    sys.exit(main())
