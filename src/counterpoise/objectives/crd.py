"""Contrastive representation distillation: tell the teacher's embedding of a sample from those of others."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from counterpoise.errors import ObjectiveError
from counterpoise.objectives.base import register
from counterpoise.objectives.divergence import check_temperature
from counterpoise.objectives.features import FeatureObjective, built, of_all_processes
from counterpoise.objectives.logits import widen
from counterpoise.objectives.targets import UNLABELED, Sum, Target, labels_of
from counterpoise.outputs import Outputs


@register(
    "crd",
    summary="contrastive: know the teacher's embedding of a sample among those of many others, and the reverse",
    paper="Tian, Krishnan, Isola, Contrastive representation distillation, arXiv 1910.10699",
    year=2020,
)
class ContrastiveDistillation(FeatureObjective):
    r"""L = -log h(i, i) - sum over K negatives j of log(1 - h(i, j)), from both sides. Tian et al. 2020.

    h(i, j) = P / (P + K / M), P = exp(g_i . m_j / \tau) / Z: g is a linear map of the averaged feature to unit length,
    learned for both sides; m_j the embedding that the other side's memory holds of sample j, of M samples; Z is M times
    the mean of the exponentials in the first batch. Then m_i becomes momentum * m_i + (1 - momentum) * g_i, at unit
    length. The part "student" moves the student; the part "teacher" the map of the teacher's side.
    Negatives are drawn with replacement from the samples of another class; labels are learned as they come (of mixed
    samples the larger one's), and a sample without a label is told from all others. Weight in the paper: 0.8, beside
    cross-entropy at 1.

    What it sees: each sample of the batch beside what the memories hold of all others. Under several processes every
    memory learns from all of them, Z is of the first process's first batch, and each process draws its own negatives.
    Where `train.accumulate` takes a batch in parts, each is a batch to it: Z is of the first, and the memories learn
    after each, so that a later part of a step sees those before it.

    Args:
        student_feature: module of the student, or stage "@k"; default: the last. Name the module that pools where the
            network normalizes after its last stage.
        teacher_feature: the same of the teacher.
        dimension: of the embeddings.
        negatives: K.
        temperature: tau.
        momentum: of the memory, in [0, 1].
    """

    labels: Tensor
    student_memory: Tensor
    teacher_memory: Tensor
    log_normalizers: Tensor
    normalized: Tensor

    def __init__(
        self,
        student_feature: str = "@-1",
        teacher_feature: str = "@-1",
        dimension: int = 128,
        negatives: int = 16384,
        temperature: float = 0.07,
        momentum: float = 0.5,
    ) -> None:
        super().__init__(student_feature, teacher_feature)
        for name, value in (("dimension", dimension), ("negatives", negatives)):
            if not isinstance(value, int) or value < 1:
                raise ObjectiveError(f"{name} must be a whole number above 0, got {value!r}.")
        if not 0 <= momentum <= 1:
            raise ObjectiveError(f"momentum must be in [0, 1], got {momentum}.")
        self.dimension = dimension
        self.negatives = negatives
        self.temperature = check_temperature("temperature", temperature)
        self.momentum = momentum
        self.student_map: nn.Module | None = None
        self.teacher_map: nn.Module | None = None
        self._indices: Tensor | None = None
        self._is_normalized = False

    def prepare(self, student: Outputs, teacher: Outputs | None, samples: int) -> None:
        if samples < 2:
            raise ObjectiveError(f"crd tells samples from each other and needs at least two, got {samples}.")
        mine, other = (widen(value) for value in self.pairs(student, teacher)[0])
        self.student_map = nn.Linear(mine.shape[1], self.dimension).to(mine)
        self.teacher_map = nn.Linear(other.shape[1], self.dimension).to(mine)
        spread = math.sqrt(3 / self.dimension)  # uniform, of unit length on average
        for side in ("student", "teacher"):
            memory = torch.empty(samples, self.dimension, device=mine.device, dtype=mine.dtype)
            self.register_buffer(f"{side}_memory", memory.uniform_(-spread, spread))
        self.register_buffer("labels", torch.full((samples,), UNLABELED, device=mine.device))
        self.register_buffer("log_normalizers", torch.zeros(2, device=mine.device, dtype=mine.dtype))
        self.register_buffer("normalized", torch.tensor(False, device=mine.device))

    def set_batch(self, indices: Tensor) -> None:
        self._indices = indices

    def terms(
        self, student: Outputs, teacher: Outputs | None, target: Tensor | None, weight: Tensor | None = None
    ) -> dict[str, Sum]:
        student_map, teacher_map = built(self.student_map), built(self.teacher_map)
        mine, other = (widen(value).mean((2, 3)) for value in self.pairs(student, teacher)[0])
        if self._indices is None or len(self._indices) != len(mine):
            raise ObjectiveError("crd must be told the samples of each batch: call set_batch(indices) before it.")
        indices = self._indices.to(mine.device, non_blocking=True)
        labels = _labels(target, indices)
        seen = of_all_processes(indices)
        self.labels[seen] = of_all_processes(labels)
        with torch.autocast(mine.device.type, enabled=False):
            mine, other = F.normalize(student_map(mine), dim=1), F.normalize(teacher_map(other.to(mine.dtype)), dim=1)
            chosen = torch.cat([indices[:, None], self._draw(indices, labels)], 1)
            # Copies, because the memories change below and the backward pass needs them as they are.
            scores = [
                (anchor @ memory.clone().T / self.temperature).gather(1, chosen)
                for anchor, memory in ((mine, self.teacher_memory), (other, self.student_memory))
            ]
        self._normalize(scores)
        if self.training:
            for memory, new in ((self.student_memory, mine), (self.teacher_memory, other)):
                self._remember(memory, seen, of_all_processes(new.detach()))
        logs = (score - log_z for score, log_z in zip(scores, self.log_normalizers.clone(), strict=True))
        values = [Target(weight=weight).sum(self._contrast(log_p)) for log_p in logs]
        return {"student": values[0], "teacher": values[1]}

    def counts(
        self, student: Outputs, teacher: Outputs | None, target: Tensor | None, weight: Tensor | None = None
    ) -> dict[str, Tensor | int | None]:
        samples = Target(weight=weight).sum(widen(student.logits[:0]).new_ones(len(student.logits))).count
        return {"student": samples, "teacher": samples}

    def _contrast(self, log_p: Tensor) -> Tensor:
        """[N] from log P [N, 1 + K], the positive first: log h = -softplus(log(K / M) - log P)."""
        offset = math.log(self.negatives / len(self.labels))
        return F.softplus(offset - log_p[:, 0]) + F.softplus(log_p[:, 1:] - offset).sum(1)

    @torch.no_grad()
    def _normalize(self, scores: list[Tensor]) -> None:
        """Set log Z, once."""
        if self._is_normalized:
            return
        if not self.normalized:
            logs = [s.detach().logsumexp((0, 1)) - math.log(s.numel() / len(self.labels)) for s in scores]
            self.log_normalizers.copy_(torch.stack(logs))
            self.normalized.fill_(True)
        self._is_normalized = True  # reading the buffer waits for a GPU, so it is read once

    def _remember(self, memory: Tensor, indices: Tensor, new: Tensor) -> None:
        memory[indices] = F.normalize(self.momentum * memory[indices] + (1 - self.momentum) * new, dim=1)

    def _draw(self, indices: Tensor, labels: Tensor) -> Tensor:
        """Samples of another class, or any but the own where the class is not known or the only one: [N, K]."""
        ordered, order = self.labels.sort(stable=True)
        start, stop = torch.searchsorted(ordered, labels), torch.searchsorted(ordered, labels, right=True)
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order), device=order.device)
        any_other = (labels == UNLABELED) | (stop - start == len(order))
        start = torch.where(any_other, place[indices], start)[:, None]
        size = torch.where(any_other, 1, stop - start[:, 0])[:, None]
        # Even among the samples outside of [start, start + size): draw as if they were fewer, then step over it.
        shape = (len(indices), self.negatives)
        drawn = torch.randint(2**31 - 1, shape, device=order.device) % (len(order) - size)
        return order[drawn + (drawn >= start) * size]


def _labels(target: Tensor | None, indices: Tensor) -> Tensor:
    """Labels int64 [N], UNLABELED where there is none."""
    if target is None:
        return torch.full_like(indices, UNLABELED)
    if not target.is_floating_point() and target.ndim != 1:
        raise ObjectiveError(f"crd compares whole images: it takes labels [N], not masks, got {list(target.shape)}.")
    return labels_of(target, None)
