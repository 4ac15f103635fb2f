"""Whether a teacher knows anything of the pictures: one that answers as chance would is most often misread."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from counterpoise.engine.processes import Processes
from counterpoise.models.network import VisionModel
from counterpoise.tasks import Task, Verdict

MOST_CLASSES = 2000
"""A table of answers by class is kept for up to so many."""
SURE = 0.01
"""How seldom answers that are of no use may be taken for useful ones."""
_GO_ON = "To go on with it all the same: --teacher.accept_chance."


class Tally:
    """How often which class was answered for which, added up over batches and processes.

    Args:
        task: counts the answers, and says how many of one image count as independent of one another.
    """

    def __init__(self, num_classes: int, task: Task) -> None:
        self.task = task
        self.images = 0
        self.matrix = torch.zeros(num_classes, num_classes if num_classes <= MOST_CLASSES else 0, dtype=torch.float64)

    def update(self, logits: Tensor, target: Tensor) -> None:
        """Count a batch: logits as the task has them, and its target."""
        if self.matrix.numel():
            self.matrix += self.task.confusion(logits, target).cpu()
            self.images += len(target)

    def gather(self, processes: Processes) -> None:
        """Take over what the other processes have counted."""
        self.matrix = processes.add(self.matrix)
        self.images = int(processes.add(torch.tensor(float(self.images))).item())

    def verdict(self) -> Literal["useful", "chance", "unsure", "unknown"]:
        """ "useful", "chance", "unsure" where there are too few images to tell, "unknown" without two classes in them.

        Chance is what unrelated answers, as frequent as these, would hit. Answers are of use where they hit more than
        that by a tenth of what is left to perfection, or (of many classes) as much again as one class in all, by a
        binomial test. There are enough images where answers halfway to perfection would pass it. In either doubt, how
        many answers of one image count is taken in the teacher's favor.
        """
        total = self.matrix.sum().item()
        classes = int((self.matrix.sum(1) > 0).sum())
        if classes < 2:
            return "unknown"
        chance = self.chance()
        bar = chance + min(0.1, 1 / (classes - 1)) * (1 - chance)
        few, many = (min(int(total), self.images * number) for number in self.task.independent)
        share = self.matrix.diagonal().sum().item() / total
        if _at_least(round(many * share), many, bar) < SURE:
            return "useful"
        above = share > bar + math.sqrt(bar * (1 - bar) / few)  # by more than one standard deviation
        tells = _at_least(round(few * (1 + chance) / 2), few, bar) < SURE
        return "chance" if tells and not above else "unsure"

    def chance(self) -> float:
        """The share that unrelated answers, as frequent as these, would hit."""
        total = self.matrix.sum()
        return float((self.matrix.sum(0) * self.matrix.sum(1)).sum() / total**2)

    def best_order(self) -> tuple[list[int], float]:
        """Which output answers best for each class, by taking the largest counts first, and the share hit so."""
        left, hit = self.matrix.clone(), 0.0
        order = [0] * len(left)
        for _ in order:
            row, column = divmod(int(left.argmax()), len(left))
            hit += max(0.0, left[row, column].item())
            order[row] = column
            left[row], left[:, column] = -1, -1
        return order, hit / self.matrix.sum().item()

    def complaint(self, teacher: VisionModel, classes: Sequence[str]) -> str:
        """What is said of a teacher whose verdict is chance: how it scores, what is likely wrong, the ways out."""
        score = 100 * (self.matrix.diagonal().sum() / self.matrix.sum()).item()
        order, best = self.best_order()
        head = (
            f"The teacher {teacher.name} is right in {score:.1f}% of the validation data, where answers that know "
            f"nothing of the pictures would be in {100 * self.chance():.1f}%."
        )
        if 100 * best > 2 * score and 100 * best > 50:
            moved = [f"{classes[index]}: {output}" for index, output in enumerate(order) if output != index]
            shown = ", ".join(moved[:4])
            cause = (
                f"With its classes in another order it would be right in {100 * best:.1f}%: give teacher.classes, a "
                f"YAML file that says which of its outputs is which class ({{{shown}, ...}})."
            )
        else:
            cause = _likely_cause(teacher)
        return f"{head} {cause} {_GO_ON}"


def of_chance(teacher: VisionModel, verdict: Verdict) -> str:
    """As `Tally.complaint`, of a teacher that its task has judged."""
    head = f"The teacher {teacher.name} knows nothing of the pictures: it has {verdict.found}."
    return f"{head} {_likely_cause(teacher)} {_GO_ON}"


def _likely_cause(teacher: VisionModel) -> str:
    mean, std = (", ".join(f"{value:g}" for value in teacher.normalization[key]) for key in ("mean", "std"))
    return (
        "Likely its classes are in another order than the data's (teacher.classes), it was trained with "
        f"another normalization than mean {mean} and std {std} (teacher.mean, teacher.std), or its weights or "
        "its head are not those that were trained (teacher.checkpoint)."
    )


def _at_least(hits: int, count: int, share: float) -> float:
    """The probability of `hits` or more of `count` independent answers that are right in `share`."""
    from scipy.special import bdtrc

    return float(bdtrc(hits - 1, count, share))
