"""What each precision of a teacher store does to forward and reverse KL and to their gradients, beside float32.

The teacher is cifar/wrn_16_2 on test images of CIFAR-100. Two students: cifar/resnet8 trained here on labels for a few
hundred steps (seeded), and one halfway from its logits to the teacher's, as a student is that has learnt much of it.

Errors are percentages. `loss`: mean over samples of how far the divergence is off, over the mean divergence.
`gradient`: norm of the error of the gradient by the student's logits, over the norm of the gradient, both over all
samples; then the same over the classes that the teacher ranks 1, 2-10, 11-50 and 51-100 alone: the tail is in there.

The store's own precisions come first; other ways to spend 8 or 4 bits follow, all that a row takes included.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import harness
from counterpoise import config
from counterpoise.data import sources
from counterpoise.models import catalog
from counterpoise.objectives.divergence import forward_kl_values, reverse_kl_values
from counterpoise.teachers.store import codecs

TEACHER = harness.SHARED / "teachers" / "cifar100-wrn_16_2.safetensors"
TEMPERATURES = (1.0, 2.0, 4.0)
BANDS = ((1, 1), (2, 10), (11, 50), (51, 100))
TARGET = 1.0  # percent, for int8
STORED = ("float16", "int8", "int4", "top10", "top50")


def main() -> int:
    """Compare; 1 where 8 bits are off by more than the target."""
    arguments = harness.arguments("fidelity of the precisions of a teacher store")
    if not TEACHER.exists():
        print(f"skipped: needs CIFAR-100 and its teacher in {harness.SHARED}, which are not here", file=sys.stderr)
        return harness.report("fidelity", [], [], arguments.json, arguments.out)
    images, steps = (500, 60) if arguments.quick else (2000, 300)
    teacher, early = collect(images, steps)
    cases = []
    for name, student in ((f"resnet8, {steps} steps", early), ("halfway to the teacher", (teacher + early) / 2)):
        for way, (decoded, bits) in ways(teacher).items():
            cases += [
                {"precision": way, "bits_a_logit": bits, "student": name, **row}
                for row in rows(student, teacher, decoded)
            ]
    students = list(dict.fromkeys(case["student"] for case in cases))
    measured = [(f"int8, {name}, loss and gradient", worst(cases, name, ("loss", "gradient"))) for name in students]
    bands = tuple(key for key in cases[0] if key.startswith("gradient_"))
    measured += [(f"int8, {name}, gradient on any band of ranks", worst(cases, name, bands)) for name in students]
    targets = [{"name": f"percent off, {name}", "value": value, "at_most": TARGET} for name, value in measured]
    return harness.report("fidelity", cases, targets, arguments.json, arguments.out)


def collect(images: int, steps: int) -> tuple[Tensor, Tensor]:
    """Logits of the teacher and of a student on test images, float64 [images, 100] both."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(harness.SHARED / "unpack.py"), "cifar100", folder]
        subprocess.run(command, check=True, capture_output=True)
        splits = sources.load(config.Data(path=Path(folder)))
    train, val = splits.train, splits.val
    assert isinstance(train, sources.ArraySet)
    assert isinstance(val, sources.ArraySet)
    teacher = catalog.build("cifar/wrn_16_2", checkpoint=TEACHER).eval()
    torch.manual_seed(0)
    student = catalog.build("cifar/resnet8", num_classes=100)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
    for batch in order[: 64 * steps].split(64):
        loss = F.cross_entropy(student(train.images[batch]), train.labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    student.eval()
    with torch.inference_mode():
        parts = val.images[:images].split(250)
        answers = [torch.cat([model(part) for part in parts]).double() for model in (teacher, student)]
    return answers[0].clone(), answers[1].clone()


def ways(teacher: Tensor) -> dict[str, tuple[Tensor, float]]:
    """What is read back from each way to keep the logits, and bits a logit, all told."""
    classes = teacher.shape[1]
    found = {}
    for precision in STORED:
        codec = codecs.find(precision, (classes,))
        found[precision] = (codec.decode(codec.encode(teacher)).double(), 8 * codec.row_bytes / classes)
    for bits in (8, 4):
        codec = codecs.find(f"int{bits}", (classes,), format=1)
        found[f"{bits} bits, uniform, head of 4"] = (
            codec.decode(codec.encode(teacher)).double(),
            8 * codec.row_bytes / classes,
        )
    others: dict[str, Callable[[Tensor, int], Tensor]] = {
        "uniform min-max": uniform,
        "uniform clipped": clipped,
        "least squares": least_squares,
        "square root": square_root,
        "normal quantiles": normal,
    }
    for bits in (8, 4):
        for name, way in others.items():
            found[f"{bits} bits, {name}"] = (way(teacher, bits), bits + 64 / classes)
    return found


def bounds(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Smallest and largest logit of each row, [N, 1] each."""
    return logits.amin(1, keepdim=True), logits.amax(1, keepdim=True)


def uniform(logits: Tensor, bits: int) -> Tensor:
    """Even steps from the smallest to the largest logit of a row."""
    return steps_between(logits, *bounds(logits), bits)


def clipped(logits: Tensor, bits: int) -> Tensor:
    """Even steps over the part of a row's range, cut at either end, that has the least squared error."""
    low, high = bounds(logits)
    best = torch.full_like(low, torch.inf)
    result = logits
    for bottom in torch.linspace(0, 0.3, 7):
        for top in torch.linspace(0, 0.3, 7):
            tried = steps_between(logits, low + bottom * (high - low), high - top * (high - low), bits)
            error = (tried - logits).square().sum(1, keepdim=True)
            result = torch.where(error < best, tried, result)
            best = torch.minimum(error, best)
    return result


def least_squares(logits: Tensor, bits: int) -> Tensor:
    """Even steps whose scale and offset are fitted to the codes, so that errors of a row have mean zero."""
    low, high = bounds(logits)
    scale = (high - low) / (2**bits - 1)
    for _ in range(6):
        codes = ((logits - low) / scale).round().clamp(0, 2**bits - 1)
        away = codes - codes.mean(1, keepdim=True)
        scale = (away * logits).sum(1, keepdim=True) / away.square().sum(1, keepdim=True)
        low = (logits - codes * scale).mean(1, keepdim=True)
    return ((logits - low) / scale).round().clamp(0, 2**bits - 1) * scale + low


def steps_between(logits: Tensor, low: Tensor, high: Tensor, bits: int) -> Tensor:
    """The nearest of 2**bits even steps from `low` to `high`."""
    scale = (high - low) / (2**bits - 1)
    return ((logits - low) / scale).round().clamp(0, 2**bits - 1) * scale + low


def square_root(logits: Tensor, bits: int) -> Tensor:
    """Steps that are even in the square root of the distance from the largest logit: fine there, coarse far from it."""
    low, high = bounds(logits)
    share = ((high - logits) / (high - low)).sqrt()
    return high - ((share * (2**bits - 1)).round() / (2**bits - 1)).square() * (high - low)


def normal(logits: Tensor, bits: int) -> Tensor:
    """Steps at the quantiles of a normal distribution scaled to the row's range, as NF4 has them."""
    low, high = bounds(logits)
    levels = torch.special.ndtri((torch.arange(2**bits, dtype=torch.float64) + 0.5) / 2**bits)
    levels = levels / levels[-1]
    middle, half = (high + low) / 2, (high - low) / 2
    near = torch.bucketize(((logits - middle) / half).contiguous(), (levels[1:] + levels[:-1]) / 2)
    return levels[near] * half + middle


def rows(student: Tensor, teacher: Tensor, decoded: Tensor) -> list[dict[str, Any]]:
    """One row a divergence and temperature, in percent."""
    rank = teacher.argsort(1, descending=True).argsort(1) + 1
    found = []
    for name, values in (("forward", forward_kl_values), ("reverse", reverse_kl_values)):
        for temperature in TEMPERATURES:
            loss, gradient = differentiate(values, student, teacher, temperature)
            other, turned = differentiate(values, student, decoded, temperature)
            off = turned - gradient
            row = {
                "kl": name,
                "temperature": temperature,
                "loss": 100 * float((other - loss).abs().mean() / loss.mean()),
                "gradient": 100 * float(off.norm() / gradient.norm()),
            }
            for first, last in BANDS:
                band = (rank >= first) & (rank <= last)
                key = f"gradient_{first}-{last}" if first != last else f"gradient_{first}"
                row[key] = 100 * float(off[band].norm() / gradient[band].norm())
            found.append(row)
    return found


def differentiate(
    values: Callable[[Tensor, Tensor, float], Tensor], student: Tensor, teacher: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """The divergence of each sample, and its gradient by the student's logits."""
    student = student.clone().requires_grad_()
    loss = values(student, teacher, temperature)
    (gradient,) = torch.autograd.grad(loss.sum(), student)
    return loss.detach(), gradient


def worst(cases: list[dict[str, Any]], student: str, keys: tuple[str, ...]) -> float:
    """The largest of int8's errors of these kinds for a student."""
    ours = [case for case in cases if case["precision"] == "int8" and case["student"] == student]
    return max(float(case[key]) for case in ours for key in keys)


if __name__ == "__main__":
    sys.exit(main())
