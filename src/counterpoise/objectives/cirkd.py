"""Cross-image relational distillation: how alike the pixels of different images are, and to a memory of many."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from counterpoise.errors import ObjectiveError
from counterpoise.objectives.base import register
from counterpoise.objectives.divergence import check_temperature
from counterpoise.objectives.features import (
    BatchNorm,
    FeatureObjective,
    built,
    class_means,
    of_all_processes,
    pool_to_smaller,
    precision_of,
    unit_vectors,
)
from counterpoise.objectives.logits import widen
from counterpoise.objectives.targets import UNLABELED, Sum, Target, labels_at, one_hot
from counterpoise.outputs import Outputs

PIXELS_KEPT = 16
"""Pixels of each class in each image that enter the memory, as in the authors' code."""


@register(
    "cirkd",
    summary="similarities of pixels across images, and to memories of pixels and regions, agree with the teacher's",
    paper="Yang et al., Cross-image relational knowledge distillation for semantic segmentation, arXiv 2204.06986",
    year=2022,
)
class CrossImageRelations(FeatureObjective):
    r"""Three Kullback-Leibler divergences between distributions of similarity. Yang et al. 2022.

    .. math::
        L = a \frac{1}{N^2} \sum_{nm} K(S_{nm}, T_{nm}) + b\, K(S_{pixel}, T_{pixel}) + c\, K(S_{region}, T_{region})

    K(S, T) is the mean over the rows of KL(softmax(T / tau) || softmax(S / tau)). A row of S_nm or T_nm holds the
    cosines of a pixel of image n with the pixels of image m, each network's own features. A row of the other two holds
    the cosines of a pixel with embeddings drawn from a memory of the teacher's pixels, or of its class means in an
    image (regions), as many of each class; the student's pixels go through a head of two 1x1 convolutions first, which
    is learned. The memories are queues by class, and begin with random directions, as in the authors' code. Void pixels
    count in the first part alone. The paper's weights are those of the arguments, at weight 1 beside cross-entropy and
    per-pixel `forward_kl` at temperature 1, each at weight 1.

    The memories hold C (pixel_memory + region_memory) times the teacher's channels in numbers, 0.9 GB for 19 classes
    and 512 channels, and are kept in checkpoints. Under several processes the memories learn from all of them; images
    are compared within each process, as if each had a batch of its own, and each draws its own part of the memories.
    With `train.accumulate` they are compared within a part, and the memories learn after each. Of maps of unlike sizes
    the larger is pooled first.

    Args:
        student_feature: module of the student, or stage "@k"; default: the last.
        teacher_feature: the same of the teacher.
        mini_batch_weight: a.
        pixel_weight: b.
        region_weight: c.
        temperature: tau.
        memory: off, only the first part is computed, and nothing is kept.
        pixel_memory: pixels that are kept of each class.
        region_memory: regions that are kept of each class.
        pixel_contrast: pixels of the memory that an image's are compared with, all classes together.
        region_contrast: the same of regions.
        pool: edge of the patches that are averaged before images are compared with each other, whose cost grows with
            the fourth power of the feature's edge; 1 in the paper.
        ignore_index: label of pixels that do not count; negative labels (unlabeled) never do.

    Labels: int64 [N, H, W], taken from the nearest pixel at the feature's size; see `targets.labels_at`.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"teacher", "features", "labels"})

    pixels: Tensor
    pixels_next: Tensor
    regions: Tensor
    regions_next: Tensor

    def __init__(
        self,
        student_feature: str = "@-1",
        teacher_feature: str = "@-1",
        mini_batch_weight: float = 1.0,
        pixel_weight: float = 0.1,
        region_weight: float = 0.1,
        temperature: float = 0.1,
        memory: bool = True,
        pixel_memory: int = 20_000,
        region_memory: int = 2_000,
        pixel_contrast: int = 4_096,
        region_contrast: int = 1_024,
        pool: int = 1,
        ignore_index: int | None = 255,
    ) -> None:
        super().__init__(student_feature, teacher_feature)
        self.sizes = {"pixels": pixel_memory, "regions": region_memory}
        self.contrasts = {"pixels": pixel_contrast, "regions": region_contrast}
        counts = {
            "pixel_memory": pixel_memory,
            "region_memory": region_memory,
            "pixel_contrast": pixel_contrast,
            "region_contrast": region_contrast,
            "pool": pool,
        }
        for name, value in counts.items():
            if not isinstance(value, int) or value < 1:
                raise ObjectiveError(f"{name} must be a whole number above 0, got {value!r}.")
        self.mini_batch_weight = mini_batch_weight
        self.pixel_weight = pixel_weight
        self.region_weight = region_weight
        self.temperature = check_temperature("temperature", temperature)
        self.memory = memory
        self.pool = pool
        self.ignore_index = ignore_index
        self.head: nn.Module | None = None

    def prepare(self, student: Outputs, teacher: Outputs | None, samples: int) -> None:
        if not self.memory:
            return
        mine, other = self.pairs(student, teacher)[0]
        classes, channels = student.logits.shape[1], other.shape[1]
        self.head = nn.Sequential(
            nn.Conv2d(mine.shape[1], channels, 1, bias=False),
            BatchNorm(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 1, bias=False),
        ).to(widen(mine))
        for name, size in self.sizes.items():
            start = torch.randn(classes, size, channels, device=other.device, dtype=other.dtype)
            self.register_buffer(name, F.normalize(start, dim=2))
            self.register_buffer(f"{name}_next", torch.zeros(classes, dtype=torch.int64, device=other.device))

    def terms(
        self, student: Outputs, teacher: Outputs | None, target: Tensor | None, weight: Tensor | None = None
    ) -> dict[str, Sum]:
        if weight is not None:
            raise ObjectiveError("cirkd compares samples with each other and takes no weights of samples.")
        raw, other = self.pairs(student, teacher)[0]
        mine, theirs = pool_to_smaller(widen(raw), other)
        with torch.autocast(raw.device.type, enabled=False):
            values = self._across_images(mine, theirs)
            found = {"mini_batch": replace(Target().sum(values), factor=self.mini_batch_weight)}
        if not self.memory:
            return found
        with precision_of(raw):
            projected = built(self.head)(raw)
        projected, theirs = pool_to_smaller(widen(projected), other)
        classes, (height, width) = student.logits.shape[1], theirs.shape[2:]
        labels = labels_at(target, (height, width), classes, self.ignore_index, "cirkd")
        with torch.autocast(raw.device.type, enabled=False):
            anchors, keys = (_rows(unit_vectors(feature)) for feature in (projected, theirs))
            if self.training:
                self._remember(theirs, keys, labels)
            by_memory = {name: self._to_memory(name, anchors, keys).view_as(labels) for name in self.sizes}
        factors = {"pixels": self.pixel_weight, "regions": self.region_weight}
        return found | {
            name.removesuffix("s"): replace(Target(labels, None, UNLABELED).sum(value), factor=factors[name])
            for name, value in by_memory.items()
        }

    def counts(
        self, student: Outputs, teacher: Outputs | None, target: Tensor | None, weight: Tensor | None = None
    ) -> dict[str, Tensor | int | None]:
        mine, other = self.pairs(student, teacher)[0]
        found: dict[str, Tensor | int | None] = {"mini_batch": len(mine)}
        if self.memory:
            height, width = (min(mine.shape[axis], other.shape[axis]) for axis in (2, 3))
            labels = labels_at(target, (height, width), student.logits.shape[1], self.ignore_index, "cirkd")
            found |= {name.removesuffix("s"): (labels != UNLABELED).sum() for name in self.sizes}
        return found

    def _across_images(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The first part of each image [N], unweighted, from maps [N, D, H, W]."""
        if self.pool > 1:
            student, teacher = (F.avg_pool2d(x, self.pool, ceil_mode=True) for x in (student, teacher))
        mine, other = (unit_vectors(feature).flatten(2) for feature in (student, teacher))
        # One image at a time, and again in the backward pass: all at once are N^2 (H W)^2 numbers.
        values = [
            checkpoint(self._from_image, image, mine, other, use_reentrant=False, preserve_rng_state=False)
            for image in range(len(mine))
        ]
        return torch.stack(values)

    def _from_image(self, image: int, mine: Tensor, other: Tensor) -> Tensor:
        """Mean over its pixels and over all images, from unit vectors [N, D, P]."""
        s, t = (x[image].T @ x / self.temperature for x in (mine, other))  # [N, P, P]
        return _kl(s, t).mean()

    def _to_memory(self, name: str, anchors: Tensor, keys: Tensor) -> Tensor:
        """KL [M] of the similarities to what is drawn from a memory, from unit vectors [M, D]."""
        memory: Tensor = getattr(self, name)
        classes, size, channels = memory.shape
        # As many of each class, at the same places of their queues.
        count = min(self.contrasts[name] // classes + 1, size)
        drawn = memory[:, torch.randperm(size, device=memory.device)[:count]].reshape(-1, channels).to(anchors.dtype)
        return _kl(anchors @ drawn.T / self.temperature, keys @ drawn.T / self.temperature)

    @torch.no_grad()
    def _remember(self, teacher: Tensor, keys: Tensor, labels: Tensor) -> None:
        """Queue some pixels of each class of each image, and the class's mean."""
        samples, classes = len(labels), len(self.pixels)
        members = one_hot(labels.flatten(1), classes).to(teacher.dtype)
        means = class_means(unit_vectors(teacher), members)
        self._enqueue("regions", F.normalize(means, dim=2), members.any(2))
        count = min(PIXELS_KEPT, members.shape[2])
        chance = torch.rand_like(members[:, :1]).clamp(min=1e-6)
        found = (chance * members).topk(count, dim=2)  # of a class's own pixels, any; 0 where there are no more
        rows = keys.view(samples, -1, keys.shape[1])
        chosen = rows.gather(1, found.indices.flatten(1).unsqueeze(2).expand(-1, -1, rows.shape[2]))
        chosen = chosen.view(samples, classes, count, -1).transpose(1, 2).flatten(0, 1)
        self._enqueue("pixels", chosen, (found.values > 0).transpose(1, 2).flatten(0, 1))

    def _enqueue(self, name: str, keys: Tensor, valid: Tensor) -> None:
        """Put embeddings [M, C, D] of all processes in the queues of their classes, where `valid` [M, C]."""
        memory: Tensor = getattr(self, name)
        following: Tensor = getattr(self, f"{name}_next")
        size = memory.shape[1]
        keys, valid = of_all_processes(keys.contiguous()), of_all_processes(valid.to(torch.uint8)).bool()
        order, count = valid.cumsum(0) - 1, valid.sum(0)
        places = (following + order) % size
        row, label = (valid & (order >= count - size)).nonzero(as_tuple=True)  # of more than it holds, the last
        memory[label, places[row, label]] = keys[row, label].to(memory.dtype)
        following.copy_((following + count) % size)


def _kl(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(softmax(teacher) || softmax(student)) over the last dimension."""
    log_p, log_q = F.log_softmax(teacher, dim=-1), F.log_softmax(student, dim=-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def _rows(feature: Tensor) -> Tensor:
    """[N, D, H, W] to [N * H * W, D]."""
    return feature.movedim(1, -1).flatten(0, 2)
