"""What objectives on logits share: precision, checks, and classes that are left out."""

from __future__ import annotations

import torch
from torch import Tensor

from counterpoise.errors import ObjectiveError

LEFT_OUT = -1e30
"""A logit: its exponential is 0, and its difference from another such one, where -inf makes NaN."""


def widen(logits: Tensor) -> Tensor:
    """Logits in float32, or float64 where they come so: half precision has no room for log-probabilities."""
    return logits if logits.dtype == torch.float64 else logits.float()


def remaining(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Logits [N, C, ...] of both sides with the classes that are at -inf in either at `LEFT_OUT` in both."""
    if not (may_be_out(student) or may_be_out(teacher)):
        return student, teacher
    out = (student == -torch.inf) | (teacher == -torch.inf)
    return student.masked_fill(out, LEFT_OUT), teacher.masked_fill(out, LEFT_OUT)


def may_be_out(logits: Tensor) -> bool:
    """Whether any of the logits may be -inf; where that cannot be read without waiting, yes."""
    return not readable(logits) or (logits.numel() > 0 and bool(logits.detach().amin() == -torch.inf))


def readable(values: Tensor) -> bool:
    """Whether numbers may be looked at: on a CPU, and not while the step is compiled or transformed."""
    if torch.compiler.is_compiling() or values.device.type != "cpu":
        return False
    return not torch._C._are_functorch_transforms_active()


def kind_of(value: object) -> str:
    """What was given in the place of a tensor, for messages."""
    if isinstance(value, Tensor):
        return f"a tensor {list(value.shape)} of {str(value.dtype).removeprefix('torch.')}"
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def check_device(student: Tensor, name: str, other: Tensor | None, mine: str = "student logits are") -> None:
    """Raise ObjectiveError where `other` lies on another device than what is the student's."""
    if other is not None and other.device != student.device:
        raise ObjectiveError(
            f"{mine} on {student.device} and {name} on {other.device}: bring them to one device, "
            "as with .to(student_logits.device)."
        )


def check_logits(student: Tensor, teacher: Tensor | None, needs_teacher: bool = True) -> None:
    """Raise ObjectiveError unless both are [N, C, ...] of one shape, on one device."""
    if student.ndim < 2:
        raise ObjectiveError(f"logits must be [N, C] or [N, C, ...], got shape {list(student.shape)}.")
    if not student.is_floating_point():
        raise ObjectiveError(f"logits must be floating point, got {student.dtype}.")
    if teacher is None:
        if needs_teacher:
            raise ObjectiveError("this objective needs teacher logits, got none.")
    elif teacher.shape != student.shape:
        what = "class counts" if teacher.ndim == student.ndim and teacher.shape[1] != student.shape[1] else "shapes"
        raise ObjectiveError(
            f"{what} of student and teacher differ: logits {list(student.shape)} and {list(teacher.shape)}."
        )
    check_device(student, "teacher logits", teacher)
