"""The loss, forward and backward: ours beside the eager reference, the compiled reference and the floor.

The loss is cross-entropy + forward KL at temperature 4 + reverse KL at temperature 2. The floor reads both logits once
and writes one tensor of their size. Peak memory is what is added to the inputs, in tensors of the logits' size. On a
GPU, Liger-Kernel's JSD (one temperature, no labels) stands beside them where it is installed.

Then each objective on logits alone, with its defaults and as a run has it: what it takes beside forward KL, on a CPU
by one thread and in that thread's own time, which neighbors do not lengthen.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

import harness
from counterpoise.config import Term
from counterpoise.objectives.base import entries
from counterpoise.objectives.composite import WeightedSum
from counterpoise.objectives.kernels.compiling import Compiler
from counterpoise.objectives.kernels.mixture import Divergence, Inputs, Labels, Mixture, reference
from counterpoise.outputs import Outputs

FORWARD_TEMPERATURE, REVERSE_TEMPERATURE = 4.0, 2.0
MIXTURE = Mixture(Divergence(1.0, FORWARD_TEMPERATURE), Divergence(1.0, REVERSE_TEMPERATURE), Labels(1.0, -1))
# Dense logits lie as [N, C, H, W]: 262144 x 19 is four crops of 256 x 256.
SIZES = {
    "64x100": (64, 100),
    "1024x1000": (1024, 1000),
    "65536x100": (65536, 100),
    "262144x19": (4, 19, 256, 256),
    "262144x19 rows": (262144, 19),
}
GPU_SIZES = {
    **SIZES,
    "1Mx19": (16, 19, 256, 256),
    "262144x100": (262144, 100),
    "65536x1000": (65536, 1000),
}
LARGE_ON_CPU, LARGE_ON_GPU = ("65536x100", "262144x19"), ("1Mx19", "262144x100", "65536x1000")
EACH = {"64x100": (64, 100), "256x1000": (256, 1000)}
"""Sizes at which objectives are compared: batches of CIFAR-100, and of ImageNet in one process."""
ROWS = 512
"""Width of the teacher's last layer, for the objectives that are told of it."""
SPEEDUP_TARGET, MEMORY_TARGET, BANDWIDTH_TARGET = 3.0, 1.3, 0.8


def sides(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> tuple[Tensor, dict[str, Callable[[], Any]]]:
    """The student's logits, and each way to compute their gradient."""
    torch.manual_seed(0)
    student = torch.randn(shape, device=device).to(dtype).requires_grad_()
    teacher = (2 * torch.randn(shape, device=device)).to(dtype)
    target = torch.randint(0, shape[1], shape[:1] + shape[2:], device=device)
    objective = WeightedSum(
        {
            "cross_entropy": Term(),
            "forward_kl": Term(temperature=FORWARD_TEMPERATURE),
            "reverse_kl": Term(temperature=REVERSE_TEMPERATURE),
        }
    )
    objective.compiler = Compiler()  # as a run has it

    def plain(student: Tensor, teacher: Tensor, target: Tensor) -> Tensor:
        return reference(MIXTURE, Inputs(student, teacher, target)).sum()

    compiled = torch.compile(plain, dynamic=False)
    floor = torch.empty_like(teacher)

    def run(loss: Callable[[], Tensor]) -> Callable[[], None]:
        def once() -> None:
            student.grad = None
            loss().backward()

        return once

    ways: dict[str, Callable[[], Any]] = {
        "eager": run(lambda: plain(student, teacher, target)),
        "compiled": run(lambda: compiled(student, teacher, target)),
        "ours": run(lambda: objective(Outputs(student), Outputs(teacher), target).total),
        "floor": lambda: torch.add(student.detach(), teacher, out=floor),
    }
    liger = _liger(student, teacher) if device == "cuda" and len(shape) == 2 else None
    return student, ways if liger is None else {**ways, "liger_jsd": run(liger)}


def _liger(student: Tensor, teacher: Tensor) -> Callable[[], Tensor] | None:
    try:
        from liger_kernel.transformers import LigerJSD
    except ImportError:
        return None
    jsd = LigerJSD(beta=0.5)
    log_p = teacher.log_softmax(1)
    return lambda: jsd(student.log_softmax(1), log_p)


def extra_memory(way: Callable[[], Any], student: Tensor) -> float:
    """Bytes of tensors that `way` adds at its peak to what was there, as torch's allocator counts them."""
    way()
    student.grad = None
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        way()
        return float(torch.cuda.max_memory_allocated() - before)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        way()
    live = peak = 0
    for event in profiler.profiler.kineto_results.events():  # type: ignore[union-attr]
        if event.name() == "[memory]":
            live += event.nbytes()
            peak = max(peak, live)
    return float(peak)


def on_gpu(way: Callable[[], Any], repeat: int = 20) -> Callable[[], None]:
    """`way` many times, so that the clock reads the GPU's time and not that of starting it."""

    def many() -> None:
        for _ in range(repeat):
            way()
        torch.cuda.synchronize()

    return many


def measure(name: str, shape: tuple[int, ...], dtype: torch.dtype, rounds: int) -> dict[str, Any]:
    """One case: milliseconds and memory of all sides, and ratios within rounds."""
    gpu = torch.cuda.is_available()
    student, ways = sides(shape, dtype, "cuda" if gpu else "cpu")
    if shape[0] < 1024 and len(shape) == 2 and not gpu:  # too short for one reading of the clock
        ways = {key: _repeated(way) for key, way in ways.items()}
    repeat = 20 if gpu or ways["eager"].__name__ == "repeated" else 1
    timed = {key: on_gpu(way) for key, way in ways.items()} if gpu else ways
    seconds = harness.interleave(timed, rounds, warmup=2)
    case: dict[str, Any] = {"case": name, "dtype": str(dtype).removeprefix("torch.")}
    case |= {f"{key}_ms": 1e3 * statistics.median(values) / repeat for key, values in seconds.items()}
    case["speedup_over_eager"] = harness.median_ratio(seconds["eager"], seconds["ours"])
    case["speedup_over_compiled"] = harness.median_ratio(seconds["compiled"], seconds["ours"])
    case["share_of_floor"] = harness.median_ratio(seconds["floor"], seconds["ours"])
    size = student.numel() * student.element_size()
    for key in ("eager", "compiled", "ours"):
        case[f"{key}_extra_memory"] = extra_memory(ways[key], student) / size
    return case


def each_objective(rounds: int = 9) -> Iterator[dict[str, Any]]:
    """A case for each objective on logits at each size."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield from _each_objective(rounds)
    finally:
        torch.set_num_threads(threads)


def _each_objective(rounds: int) -> Iterator[dict[str, Any]]:
    names = [name for name, entry in entries().items() if not {"features", "maps"} & entry.kind.needs]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for size, shape in EACH.items():
        torch.manual_seed(0)
        student = torch.randn(shape, device=device, requires_grad=True)
        teacher, rows = 2 * torch.randn(shape, device=device), torch.randn(shape[1], ROWS, device=device)
        target = torch.randint(0, shape[1], shape[:1], device=device)
        sides: dict[str, Callable[[], None]] = {}
        for name in names:
            total = WeightedSum({name: Term()}).to(device)
            total.set_classifier(rows)
            total.set_progress(1.0)  # past any warm-up
            sides[name] = partial(_step, total, student, teacher, target)
        timed = {name: on_gpu(side) if device == "cuda" else side for name, side in sides.items()}
        clock = time.perf_counter if device == "cuda" else time.process_time
        seconds = harness.interleave(timed, rounds, warmup=2, clock=clock)
        for name in names:
            yield {
                "case": f"{name}, {size}",
                "dtype": "float32",
                "ours_ms": 1e3 * statistics.median(seconds[name]) / (20 if device == "cuda" else 1),
                "time_over_forward_kl": harness.median_ratio(seconds[name], seconds["forward_kl"]),
                "ours_extra_memory": extra_memory(sides[name], student) / (student.numel() * student.element_size()),
            }


def _step(objective: WeightedSum, student: Tensor, teacher: Tensor, target: Tensor) -> None:
    student.grad = None
    objective(Outputs(student), Outputs(teacher), target).total.backward()


def _repeated(way: Callable[[], Any]) -> Callable[[], None]:
    def repeated() -> None:
        for _ in range(20):
            way()

    return repeated


def main() -> int:
    """Run the cases; 1 where a target is missed."""
    arguments = harness.arguments("time and memory of the loss")
    gpu = torch.cuda.is_available()
    large = LARGE_ON_GPU if gpu else LARGE_ON_CPU
    sizes = {
        name: shape for name, shape in (GPU_SIZES if gpu else SIZES).items() if name in large or not arguments.quick
    }
    dtypes = (torch.float32, torch.bfloat16)
    if not gpu and arguments.quick:
        dtypes = dtypes[:1]
    rounds = 9 if arguments.quick else 25
    cases = [measure(name, shape, dtype, rounds) for dtype in dtypes for name, shape in sizes.items()]
    targets: list[dict[str, Any]] = []
    own = list(each_objective())
    for case in cases:
        if case["case"] not in large:
            continue
        label = f"{case['case']} {case['dtype']}"
        if gpu:
            targets.append(
                {"name": f"share of floor, {label}", "value": case["share_of_floor"], "at_least": BANDWIDTH_TARGET}
            )
            continue
        if case["dtype"] == "float32":
            targets.append(
                {"name": f"speed over eager, {label}", "value": case["speedup_over_eager"], "at_least": SPEEDUP_TARGET}
            )
            targets.append(
                {"name": f"extra memory, {label}", "value": case["ours_extra_memory"], "at_most": MEMORY_TARGET}
            )
    return harness.report("loss", [*cases, *own], targets, arguments.json, arguments.out)


if __name__ == "__main__":
    sys.exit(main())
