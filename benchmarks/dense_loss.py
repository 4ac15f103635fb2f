"""The loss of dense outputs at full resolution, forward and backward: ours beside upsample-then-reference.

The loss is cross-entropy + forward KL at temperature 4 + reverse KL at temperature 2 of logits that are upsampled
bilinearly. Peak memory is what is added to the inputs, in tensors of the full-resolution logits' size in float32.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import harness
from counterpoise.objectives.kernels.compiling import Compiler
from counterpoise.objectives.kernels.function import fused
from counterpoise.objectives.kernels.mixture import Divergence, Inputs, Labels, Mixture, reference
from loss import extra_memory, on_gpu

# Compiled, as in a run.
MIXTURE = Mixture(Divergence(1.0, 4.0), Divergence(1.0, 2.0), Labels(1.0, -1), compiler=Compiler())
SPEEDUP_TARGET, MEMORY_TARGET = 2.0, 8.0


@dataclass(frozen=True)
class Case:
    """Batch, classes, and the sizes of both low-resolution maps and of the masks."""

    mixture: Mixture = MIXTURE
    batch: int = 4
    classes: int = 19
    student: tuple[int, int] = (64, 128)
    teacher: tuple[int, int] = (64, 128)
    size: tuple[int, int] = (512, 1024)
    dtype: torch.dtype = torch.float32


TARGETED = "19 classes 64x128 to 512x1024"
CASES = {
    TARGETED: Case(),
    "student 32x64, teacher 64x128": Case(student=(32, 64)),
    "labels alone": Case(Mixture(labels=Labels(1.0, -1), compiler=Compiler())),
    "bfloat16 logits": Case(dtype=torch.bfloat16),
    "90x120 to 360x480, 11 classes": Case(classes=11, student=(90, 120), teacher=(90, 120), size=(360, 480)),
    "32x32 to 128x128, 150 classes": Case(classes=150, student=(32, 32), teacher=(32, 32), size=(128, 128)),
}


def sides(case: Case, device: str) -> tuple[Tensor, dict[str, Callable[[], Any]]]:
    """The student's logits, and both ways to compute their gradient."""
    torch.manual_seed(0)
    student = torch.randn(case.batch, case.classes, *case.student, device=device).to(case.dtype).requires_grad_()
    teacher = (2 * torch.randn(case.batch, case.classes, *case.teacher, device=device)).to(case.dtype)
    target = torch.randint(-1, case.classes, (case.batch, *case.size), device=device)
    far = teacher if case.mixture.needs_teacher else None

    inputs = Inputs(student, far, target, None, case.size)

    def ours() -> Tensor:
        found = fused(case.mixture, inputs)
        assert found is not None
        return found[0]

    def run(loss: Callable[[], Tensor]) -> Callable[[], None]:
        def once() -> None:
            student.grad = None
            loss().backward()

        return once

    return student, {"eager": run(lambda: reference(case.mixture, inputs).sum()), "ours": run(ours)}


def measure(name: str, case: Case, rounds: int) -> dict[str, Any]:
    """One case: milliseconds and memory of both sides, and the ratios."""
    gpu = torch.cuda.is_available()
    student, ways = sides(case, "cuda" if gpu else "cpu")
    seconds = harness.interleave({k: on_gpu(w) for k, w in ways.items()} if gpu else ways, rounds)
    repeat = 20 if gpu else 1
    result: dict[str, Any] = {"case": name}
    result |= {f"{key}_ms": 1e3 * statistics.median(values) / repeat for key, values in seconds.items()}
    result["speedup"] = harness.median_ratio(seconds["eager"], seconds["ours"])
    size = 4 * case.batch * case.classes * case.size[0] * case.size[1]
    memory = {key: extra_memory(way, student) for key, way in ways.items()}
    result |= {f"{key}_extra_memory": value / size for key, value in memory.items()}
    result["memory_ratio"] = memory["eager"] / memory["ours"]
    return result


def main() -> int:
    """Run the cases; 1 where a target is missed."""
    arguments = harness.arguments("time and memory of the loss at full resolution")
    cases = {name: case for name, case in CASES.items() if name == TARGETED or not arguments.quick}
    results = [measure(name, case, 3 if arguments.quick else 9) for name, case in cases.items()]
    targets: list[dict[str, Any]] = [
        {
            "name": f"memory of eager over ours, {TARGETED}",
            "value": results[0]["memory_ratio"],
            "at_least": MEMORY_TARGET,
        }
    ]
    if not torch.cuda.is_available():
        targets.append(
            {"name": f"speed over eager, {TARGETED}", "value": results[0]["speedup"], "at_least": SPEEDUP_TARGET}
        )
    return harness.report("dense_loss", results, targets, arguments.json, arguments.out)


if __name__ == "__main__":
    sys.exit(main())
