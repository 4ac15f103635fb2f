"""Scores of every picture and every case; their mean and spread over cases beside what all pictures give together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from math import isnan
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from counterpoise.data.sources.base import ImageSet
from counterpoise.tasks.confusion import check_masks
from counterpoise.tasks.scores.base import BACKGROUND, Kind, Seen

if TYPE_CHECKING:
    from counterpoise.tasks.sliding import InPieces


class Part(NamedTuple):
    """Scores of one picture or one case.

    Attributes:
        case: which case it is, or is of, from 0 on.
        pictures: indices of its pictures within the set.
        values: by name of the score, float64 [C], NaN where there is none.
    """

    case: int
    pictures: list[int]
    values: dict[str, Tensor]


class Counts:
    """Counts of pictures, from which scores of pictures, of cases and of all together follow.

    Args:
        kinds: of scores.
        classes: names.
        images: the set that the pictures are of, for what belongs together and for names; None: unknown.
    """

    def __init__(self, kinds: Sequence[Kind], classes: Sequence[str], images: ImageSet | None = None) -> None:
        self.kinds, self.classes, self.images = tuple(kinds), tuple(classes), images
        self.rows: list[Tensor] = []  # float64 [1 + sizes]: index, then the counts of each kind
        self.next: list[int] = []

    def coming(self, indices: Tensor) -> None:
        """Told which images of the set the next batch holds; untold, pictures are numbered as they come."""
        self.next = indices.tolist()

    def update(self, logits: Tensor, target: Tensor) -> Tensor:
        """Count a batch of pictures. Returns its confusion matrix, float64 [C, C] on the CPU."""
        check_masks(logits, target)
        found = torch.zeros(len(self.classes), len(self.classes), dtype=torch.float64)
        for seen in self.count(logits, target):
            found += seen.matrix
        return found

    def count(self, logits: Tensor, target: Tensor) -> list[Seen]:
        """Count a batch of pictures; what was seen."""
        indices = self.next or [len(self.rows) + row for row in range(len(logits))]
        self.next = []
        pictures = []
        for index, one, truth in zip(indices, logits, target, strict=True):
            pictures.append(self.seen(one, truth, self.spacings[index] if self.unit == "millimeters" else None))
            self.rows.append(self._counted(index, pictures[-1]))
        return pictures

    def count_pieces(self, scene: InPieces, also: Callable[[Seen], None] | None = None) -> None:
        """Count one picture, as far as the kinds allow without holding its logits; `also` is shown each piece."""
        index = self.next[0] if self.next else len(self.rows)
        self.next = []
        spacing = self.spacings[index] if self.unit == "millimeters" else None
        by_pixel = [kind for kind in self.kinds if kind.needs == "pixels"]
        whole = [kind for kind in self.kinds if kind.needs != "pixels"]
        held = _Held(scene, any(kind.needs == "logits" for kind in whole)) if whole else None
        counts: dict[Kind, Tensor] = {}
        for piece in scene.pieces:
            seen = self.seen(piece.logits, scene.truth(piece.rows, piece.columns)[0], spacing)
            for kind in by_pixel:
                found = kind.count(seen, self.counted(kind)).double().flatten()
                counts[kind] = counts[kind] + found if kind in counts else found
            if also is not None:
                also(seen)
            if held is not None:
                held.add(piece.rows, piece.columns, seen)
        if held is not None:
            every = slice(None)
            seen = held.seen(self.seen(held.logits, scene.truth(every, every)[0], spacing))
            counts |= {kind: kind.count(seen, self.counted(kind)).double().flatten() for kind in whole}
        first = torch.tensor([float(index)], dtype=torch.float64)
        self.rows.append(torch.cat([first, *(counts[kind] for kind in self.kinds)]))

    def seen(self, logits: Tensor, truth: Tensor, spacing: tuple[float, float] | None) -> Seen:
        """One picture."""
        return Seen(logits, truth, spacing)

    def _counted(self, index: int, seen: Seen) -> Tensor:
        found = [torch.tensor([float(index)], dtype=torch.float64)]
        for kind in self.kinds:
            found.append(kind.count(seen, self.counted(kind)).double().flatten())
        return torch.cat(found)

    @cached_property
    def spacings(self) -> list[tuple[float, float] | None]:
        """Millimeters between the pixels of each picture of the set; none where no score asks for them."""
        told = getattr(self.images, "spacing", None)
        if told is None or self.images is None or not any(kind.lower for kind in self.kinds):
            return []
        return [told(index) for index in range(len(self.images))]

    @property
    def unit(self) -> str:
        """That of distances: millimeters where all pictures say how far their pixels are apart."""
        return "millimeters" if self.spacings and all(self.spacings) else "pixels"

    def notes(self) -> list[str]:
        """What is to be said beside the scores, a sentence each."""
        found = []
        if self.unit == "pixels" and any(self.spacings):
            count = sum(spacing is None for spacing in self.spacings)
            found.append(
                f"Distances are in pixels: {count:,} of {len(self.spacings):,} pictures do not say how far theirs are "
                "apart."
            )
        for kind in self.kinds:
            if kind.lower and (worst := int(self.counts(kind)[..., 3].sum())):
                found.append(
                    f"{worst:,} times a class is in the truth or in the answer of a picture and not in the other: its "
                    f"{' and '.join(kind.scores)} are then the diagonal of the picture."
                )
        return found

    @property
    def state(self) -> Tensor:
        """A row a picture."""
        width = 1 + sum(map(self._size, self.kinds))
        return torch.stack(self.rows) if self.rows else torch.zeros(0, width, dtype=torch.float64)

    @state.setter
    def state(self, state: Tensor) -> None:
        self.rows = [*state[state[:, 0].argsort(stable=True)]]  # of several processes, each has some

    def _size(self, kind: Kind) -> int:
        """How many numbers of a row are of a kind."""
        return len(self.counted(kind)) * kind.width

    def counts(self, kind: Kind) -> Tensor:
        """Those of a kind, of the classes that it counts: float64 [pictures, len(counted(kind)), width]."""
        begin = 1 + sum(map(self._size, self.kinds[: self.kinds.index(kind)]))
        end = begin + self._size(kind)
        part = torch.stack([row[begin:end] for row in self.rows]) if self.rows else torch.zeros(0, end - begin)
        return part.double().reshape(-1, len(self.counted(kind)), kind.width)

    def _values(self, kind: Kind, counts: Tensor) -> dict[str, Tensor]:
        """The scores of all classes [..., C], NaN of those that are not counted, from counts [..., counted, width]."""
        found = {}
        for name, values in kind.values(counts).items():
            found[name] = values.new_full((*values.shape[:-1], len(self.classes)), torch.nan)
            found[name][..., self.counted(kind)] = values
        return found

    def indices(self) -> list[int]:
        """Of the pictures, in the order in which they were counted."""
        return [int(row[0]) for row in self.rows]

    @property
    def grouped(self) -> bool:
        """Whether the data say which pictures are of one case."""
        return self.images is not None and self.images.groups is not None

    def owners(self) -> list[int]:
        """Which case each picture is of: a number from 0 on, in order of appearance."""
        owners = None if self.images is None else self.images.owners().tolist()
        numbers: dict[int, int] = {}
        keys = (index if owners is None else owners[index] for index in self.indices())
        return [numbers.setdefault(key, len(numbers)) for key in keys]

    def all(self) -> dict[str, Tensor]:
        """The scores of all pictures together, [C] each."""
        return {
            name: value for kind in self.kinds for name, value in self._values(kind, self.counts(kind).sum(0)).items()
        }

    def pooled(self, kind: Kind) -> dict[str, float | None]:
        """The scores of all pictures together, as means over classes; None where there is none."""
        values, of = self._values(kind, self.counts(kind).sum(0)), self.pooled_over(kind)
        return {name: mean_of(value[of]) for name, value in values.items()}

    def pooled_over(self, kind: Kind) -> list[int]:
        """The classes that `pooled` is a mean of."""
        return self.counted(kind)

    def pictures(self) -> list[Part]:
        """The scores of each picture."""
        cases = self.owners()
        parts = self._parts(range(len(self.rows)))
        return [part._replace(case=case) for part, case in zip(parts, cases, strict=True)]

    def cases(self) -> list[Part]:
        """The scores of each case: of its pictures together."""
        return self._parts(self.owners())

    def _parts(self, owners: Sequence[int]) -> list[Part]:
        """The scores of the pictures of each owner together; owners are numbered from 0 on."""
        count, where = max(owners, default=-1) + 1, torch.tensor(list(owners), dtype=torch.int64)
        values: dict[str, Tensor] = {}
        for kind in self.kinds:
            each = self.counts(kind)
            values |= self._values(kind, each.new_zeros(count, *each.shape[1:]).index_add_(0, where, each))
        members: list[list[int]] = [[] for _ in range(count)]
        for owner, index in zip(owners, self.indices(), strict=True):
            members[owner].append(index)
        return [Part(i, members[i], {name: value[i] for name, value in values.items()}) for i in range(count)]

    def counted(self, kind: Kind) -> list[int]:
        """The classes that a kind of scores is of: its means over classes are over these."""
        every = list(range(len(self.classes)))
        if kind.two_classes:
            return every[1:2]
        objects = [number for number in every if self.classes[number].lower() not in BACKGROUND]
        return objects if kind.of_objects and objects else every

    def told(self) -> dict[str, Any]:
        """Mean and spread over cases beside what all pictures give together, as JSON has it.

        Returns:
            {"case": "picture" or "group", "cases": how many, "pictures": how many, "scores": [a row a score: "score",
            "of" (the classes whose mean it is), "pooled", "mean", "std", "cases" that have one], "per_class": [the same
            of each class and score], "unit" of "distances" (names of scores), "notes"}.
        """
        cases, pooled = self.cases(), self.all()
        means, singles = [], []
        for kind in self.kinds:
            of, together = self.counted(kind), self.pooled(kind)
            for name in kind.scores:
                table = torch.stack([part.values[name] for part in cases])
                row = {"score": name, "of": [self.classes[number] for number in of]}
                means.append({**row, "pooled": together[name], **_spread(table[:, of].nanmean(1))})
                singles += [
                    {
                        "class": self.classes[number],
                        "score": name,
                        "pooled": mean_of(pooled[name][number]),
                        **_spread(table[:, number]),
                    }
                    for number in of
                ]
        return {
            "case": "group" if self.grouped else "picture",
            "cases": len(cases),
            "pictures": len(self.rows),
            "scores": means,
            "per_class": singles,
            "unit": self.unit,
            "distances": [name for kind in self.kinds for name in kind.lower],
            "notes": self.notes(),
        }

    def listed(self) -> list[dict[str, Any]]:
        """Cases as JSON has them: {"case": its name, "scores", "pictures": [{"picture", "scores"}]}.

        Scores are {score: {class: value, None where there is none}}; without groups there are no "pictures".
        """
        found: list[dict[str, Any]] = []
        by_case: dict[int, list[dict[str, Any]]] = {}
        for part in self.pictures():
            one = {"picture": self.name(part.pictures[0]), "scores": self._named(part)}
            by_case.setdefault(part.case, []).append(one)
        for part in self.cases():
            found.append({"case": self.case_name(part), "scores": self._named(part)})
            if self.grouped:
                found[-1]["pictures"] = by_case[part.case]
        return found

    def _named(self, part: Part) -> dict[str, dict[str, float | None]]:
        found: dict[str, dict[str, float | None]] = {}
        for kind in self.kinds:
            for name in kind.scores:
                each = part.values[name].tolist()
                found[name] = {self.classes[n]: None if isnan(each[n]) else each[n] for n in self.counted(kind)}
        return found

    def case_name(self, part: Part) -> str:
        """That of its group, where the data call it by one; else of its first picture."""
        first, images = part.pictures[0], self.images
        group = -1 if images is None or images.groups is None else int(images.groups[first])
        named = images is not None and 0 <= group < len(images.group_names)
        return images.group_names[group] if images is not None and named else self.name(first)

    def name(self, index: int) -> str:
        """Of a picture."""
        return f"#{index}" if self.images is None else self.images.name(index)


class _Held:
    """What is kept of a picture that is answered in pieces: all logits, or the answer alone.

    Attributes:
        logits: float32 [C, H, W] on the CPU; [C, 0, 0] where they are not kept.
    """

    def __init__(self, scene: InPieces, logits: bool) -> None:
        self.size, self.keeps_logits = scene.size, logits
        self.logits = torch.empty(scene.classes, *(scene.size if logits else (0, 0)))
        self.answer: NDArray[Any] | None = None

    def add(self, rows: slice, columns: slice, seen: Seen) -> None:
        """Keep a piece."""
        if self.keeps_logits:
            self.logits[:, rows, columns] = seen.full
            return
        found = seen.answer if seen.answer.dtype == bool else seen.answer.astype(np.uint8)
        if self.answer is None:
            self.answer = np.empty((*found.shape[:-2], *self.size), found.dtype)
        self.answer[..., rows, columns] = found

    def seen(self, whole: Seen) -> Seen:
        """The picture, which knows the answer."""
        if self.answer is not None:
            vars(whole)["answer"] = self.answer
        return whole


def mean_of(values: Tensor) -> float | None:
    """The mean of those that are there; None where there are none."""
    mean = values.nanmean()
    return None if mean.isnan() else mean.item()


def _spread(values: Tensor) -> dict[str, Any]:
    """Mean and standard deviation (n - 1) of what there is of values, and how many that are."""
    there = values[~values.isnan()]
    return {
        "mean": there.mean().item() if len(there) else None,
        "std": there.std().item() if len(there) > 1 else None,
        "cases": len(there),
    }
