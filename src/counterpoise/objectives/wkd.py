"""Wasserstein distillation: what the student believes wrongly costs less, the more alike the classes are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from counterpoise.errors import ObjectiveError, unknown
from counterpoise.objectives.base import register
from counterpoise.objectives.divergence import check_temperature
from counterpoise.objectives.dkd import without
from counterpoise.objectives.labeled import LabeledObjective
from counterpoise.objectives.logits import LEFT_OUT
from counterpoise.objectives.targets import Reduction, one_hot
from counterpoise.system.files import read_tensors
from counterpoise.system.machine import as_double

LEAST_REGULARIZATION = 0.02
"""Costs are below 1, so that no entry of the kernel is below exp(-50), and its sums are exact in float32."""
NAMES = ("likeness", "rows")


@register(
    "wkd",
    summary="the cost of moving the teacher's probabilities to the student's, less between classes that are alike",
    paper="Lv, Yang, Li, Wasserstein distance rivals Kullback-Leibler divergence, arXiv 2412.08139",
    year=2024,
)
class WassersteinLogits(LabeledObjective):
    r"""Wasserstein distillation of logits (WKD-L).

    .. math::
        L = \lambda \sum_{ij} q_{ij} c_{ij} - \zeta p_y \log s_y, \quad
        q = \arg\min_q \sum_{ij} q_{ij} c_{ij} + \eta q_{ij} \log q_{ij}, \quad c_{ij} = 1 - e^{-\kappa (1 - k_{ij})}

    where q moves the student's probabilities to the teacher's, both over the classes but the label's and softened by
    tau: \sum_j q_ij is the student's of class i, \sum_i q_ij the teacher's of class j. p_y and s_y are what teacher and
    student give the label, not softened; k_ij says how alike two classes are, 1 of a class and itself. Logits
    [N, C, ...]; the target is as for `dkd`. q is found by Sinkhorn's iterations, in log space, and the gradient goes
    through them. Each takes C^2 steps a position.

    k is one matrix [C, C] for all samples: the cosines between the rows of the teacher's last layer, which a run gives
    (`set_classifier` in a loop of one's own) and which are kept in its checkpoints; or `likeness`. The paper compares
    cosines, of these rows or of the mean features of classes, with the centered kernel alignment (CKA) of features of
    samples, which did slightly better there: give that, or class means, as `likeness`.

    The paper prints the least value, entropy included, as the distance; the authors' code has the cost alone, after ten
    iterations, and so has this: moving nothing costs nothing, which the entropy would spoil. Neither has a factor
    tau^2. Since eta blurs q, a student that equals its teacher is near the least, not at it; and the second part always
    wants more of the label, as cross-entropy does.

    Lv et al. 2024, from their code: cross-entropy at 1 and zeta 1 beside it, eta 0.05, kappa 1; on ImageNet lambda 30
    and tau 2, on CIFAR-100 lambda 600 and tau 8 (ResNet32x4 to ResNet8x4), lambda 200 and tau 6 (WRN-40-2 to
    ShuffleNetV1), there with weights that decay from epoch 150 of 240 on.

    Args:
        transport_weight: lambda.
        target_weight: zeta.
        temperature: tau.
        regularization: eta, at least 0.02.
        sharpness: kappa, above 0: how steeply the cost rises where classes are less alike.
        iterations: of Sinkhorn's algorithm.
        likeness: k, where it is not that of the teacher's last layer: rows of numbers, or a safetensors file that holds
            `likeness` [C, C] or `rows` [C, D], of which the cosines are taken.
        ignore_index: positions whose target holds this value are not counted.
        reduction: "mean" over counted positions, "sum" or "none".
    """

    needs: ClassVar[frozenset[str]] = frozenset({"teacher", "labels", "classifier"})
    named: ClassVar[str] = "wkd"
    likeness: Tensor | None

    def __init__(
        self,
        transport_weight: float = 30.0,
        target_weight: float = 1.0,
        temperature: float = 2.0,
        regularization: float = 0.05,
        sharpness: float = 1.0,
        iterations: int = 10,
        likeness: str | Sequence[Sequence[float]] | None = None,
        ignore_index: int | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(ignore_index, reduction)
        if not LEAST_REGULARIZATION <= regularization < float("inf"):
            raise ObjectiveError(
                f"regularization must be at least {LEAST_REGULARIZATION} and finite, got {regularization}."
            )
        if iterations < 1:
            raise ObjectiveError(f"iterations must be at least 1, got {iterations}.")
        self.transport_weight = transport_weight
        self.target_weight = target_weight
        self.temperature = check_temperature("temperature", temperature)
        self.regularization = regularization
        self.sharpness = check_temperature("sharpness", sharpness)
        self.iterations = iterations
        self.register_buffer("likeness", None if likeness is None else _read(likeness))
        if likeness is not None:
            self.needs = self.needs - {"classifier"}  # type: ignore[misc]  # by instance

    def set_classifier(self, rows: Tensor) -> None:
        if "classifier" in self.needs:
            self.likeness = cosines(rows)

    def values(self, student_logits: Tensor, teacher_logits: Tensor | None, target: Tensor | None) -> dict[str, Tensor]:
        assert teacher_logits is not None
        assert target is not None
        dtype = torch.promote_types(student_logits.dtype, teacher_logits.dtype)
        student_logits, teacher_logits = student_logits.to(dtype), teacher_logits.to(dtype)
        is_target = one_hot(target, student_logits.shape[1])
        cost = self._cost(student_logits)
        sides = [without(logits, is_target) for logits in (student_logits, teacher_logits)]
        log_a, log_b = (
            F.log_softmax(side / self.temperature, dim=1).movedim(1, -1).reshape(-1, len(cost)) for side in sides
        )
        moved = transport_cost(log_a, log_b, cost, self.regularization, self.iterations)
        no_other = sides[1].amax(1) == LEFT_OUT
        log_s = F.log_softmax(student_logits, dim=1).masked_fill(~is_target, 0.0).sum(1)
        p = teacher_logits.softmax(1).masked_fill(~is_target, 0.0).sum(1)
        none = teacher_logits.amax(1) == LEFT_OUT
        return {
            "others": self.transport_weight * moved.view(none.shape).masked_fill(no_other, 0.0),
            "target": -self.target_weight * (p * log_s).masked_fill(none, 0.0),
        }

    def _cost(self, logits: Tensor) -> Tensor:
        if self.likeness is None:
            raise ObjectiveError(
                "wkd needs to know how alike classes are: call set_classifier(rows) with the weight [C, D] of the "
                "teacher's last layer, or give likeness."
            )
        if len(self.likeness) != logits.shape[1]:
            raise ObjectiveError(
                f"wkd knows how alike {len(self.likeness)} classes are, and the logits have {logits.shape[1]}."
            )
        return -torch.expm1(-self.sharpness * (1 - self.likeness.to(logits)))


def transport_cost(log_a: Tensor, log_b: Tensor, cost: Tensor, regularization: float, iterations: int) -> Tensor:
    """What the entropic plan from exp(log_a) to exp(log_b) costs: log-probabilities [M, C] and cost [C, C] to [M].

    The plan is exp(u_i) K_ij exp(v_j) with K = exp(-cost / regularization); the last step sets u, so that the plan
    leaves from `log_a` exactly, and arrives at `log_b` as nearly as the iterations bring it.
    """
    kernel = (-cost / regularization).exp()
    u = log_a  # where the plan is where regularization is all; and a class that is left out is so from the start
    for _ in range(iterations):
        v = log_b - _log_product(u, kernel)
        u = log_a - _log_product(v, kernel.T)
    largest = v.detach().amax(1, keepdim=True)
    return ((u + largest).exp() * ((v - largest).exp() @ (kernel * cost).T)).sum(1)


def _log_product(x: Tensor, kernel: Tensor) -> Tensor:
    """log(exp(x) @ kernel), where kernel has no entry too small to be one: what underflows beside it is nothing."""
    largest = x.detach().amax(1, keepdim=True)
    return largest + ((x - largest).exp() @ kernel).log()


def cosines(rows: Tensor) -> Tensor:
    """float32 [C, C]: the cosine between each two of the rows [C, D]; that of a row with itself is 1."""
    units = F.normalize(as_double(rows.detach().flatten(1)), dim=1)
    found = (units @ units.T).clamp(-1, 1)
    return found.fill_diagonal_(1.0).float()


def _read(given: str | Sequence[Sequence[float]]) -> Tensor:
    """float32 [C, C] from a file or from numbers. Raises ObjectiveError where they are no likeness of classes."""
    if isinstance(given, str):
        return _from_file(Path(given))
    try:
        matrix = torch.tensor(given, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError):
        raise ObjectiveError(f"likeness must be rows of numbers or a safetensors file, got {given!r:.80}.") from None
    return _checked(matrix, "likeness")


def _from_file(path: Path) -> Tensor:
    try:
        tensors, _ = read_tensors(path)
    except Exception as error:  # whatever safetensors finds wrong with a file
        raise ObjectiveError(f"likeness: {path} cannot be read as safetensors: {error}.") from None
    known = [name for name in NAMES if name in tensors]
    if len(known) != 1:
        wrong = f"{path} has both likeness and rows" if known else unknown("Tensor", "likeness", tensors)
        raise ObjectiveError(f"likeness: {path} must hold likeness [C, C] or rows [C, D]. {wrong}")
    tensor = tensors[known[0]]
    if known == ["likeness"]:
        return _checked(tensor.float(), f"likeness: {path}: likeness")
    if tensor.ndim != 2 or not tensor.is_floating_point() or not tensor.isfinite().all():
        raise ObjectiveError(f"likeness: {path}: rows must be finite numbers [C, D], got {list(tensor.shape)}.")
    return cosines(tensor)


def _checked(matrix: Tensor, name: str) -> Tensor:
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ObjectiveError(f"{name} must be [C, C], got {list(matrix.shape)}.")
    near = 1e-3  # by which rounding may be off
    likely = (matrix.abs() <= 1 + near).all() and ((matrix.diagonal() - 1).abs() <= near).all()
    if not likely or not ((matrix - matrix.T).abs() <= near).all():
        raise ObjectiveError(
            f"{name} must be numbers from -1 to 1, the same of two classes either way, and 1 of a class with itself."
        )
    return ((matrix + matrix.T) / 2).clamp(-1, 1).fill_diagonal_(1.0)
