"""Whether a network knows anything of the pictures: a teacher that answers as chance would is most often misread."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from counterpoise.engine.processes import Processes
from counterpoise.models.network import VisionModel
from counterpoise.tasks import Score, Task, Verdict

MOST_CLASSES = 2000
"""A table of answers by class is kept for up to so many."""
SURE = 0.01
"""How seldom answers that are of no use may be taken for useful ones."""
_GO_ON = "To go on with it all the same: --teacher.accept_chance."


@dataclass(frozen=True)
class Answered:
    """How often each class was right, was there, and was answered.

    Attributes:
        hit: float64 [C]; and so `there` and `answered`.
        images: that all of it is of.
        task: says how many answers to one image count as independent of one another.
    """

    hit: Tensor
    there: Tensor
    answered: Tensor
    images: int
    task: Task

    def share(self) -> float:
        """Of all answers that are right."""
        return float(self.hit.sum() / self.there.sum())

    def chance(self) -> float:
        """The share that unrelated answers, as frequent as these, would hit."""
        return float((self.there * self.answered).sum() / self.there.sum() ** 2)

    def throughout(self) -> int | None:
        """The class that is answered whatever is shown; None where several are."""
        answered = self.answered.nonzero().flatten().tolist()
        return answered[0] if len(answered) == 1 else None

    def verdict(self) -> Literal["useful", "chance", "unsure", "unknown"]:
        """ "useful", "chance", "unsure" where there are too few images to tell, "unknown" without two classes in them.

        Answers are of use where they hit more than chance by a tenth of what is left to perfection, or (of many
        classes) as much again as one class in all, by a binomial test. There are enough images where answers halfway to
        perfection would pass it, or where one class is answered throughout and they would have told another. In either
        doubt, how many answers of one image count is taken in favor of the answers.
        """
        total = self.there.sum().item()
        classes = int((self.there > 0).sum())
        if classes < 2:
            return "unknown"
        chance, share = self.chance(), self.share()
        bar = chance + min(0.1, 1 / (classes - 1)) * (1 - chance)
        few, many = (min(int(total), self.images * number) for number in self.task.independent)
        if _at_least(round(many * share), many, bar) < SURE:
            return "useful"
        above = share > bar + math.sqrt(bar * (1 - bar) / few)  # by more than one standard deviation
        tells = _at_least(round(few * (1 + chance) / 2), few, bar) < SURE
        if self.throughout() is not None:  # so many images at least hold another class
            tells = tells or 0.5 ** (self.images * (1 - share)) < SURE
        return "chance" if tells and not above else "unsure"

    def knows_nothing(self) -> bool:
        """Whether there are images enough to tell, and these answers hit no more than unrelated ones would by luck."""
        count = min(int(self.there.sum().item()), self.images * self.task.independent[1])
        return self.verdict() == "chance" and _at_least(round(count * self.share()), count, self.chance()) >= SURE

    def always(self, classes: Sequence[str]) -> str:
        """A sentence on what is answered throughout, if something is."""
        found = self.throughout()
        return "" if found is None else f"It answers '{classes[found]}' throughout. "


class Tally:
    """How often which class was answered for which, added up over batches and processes.

    Args:
        task: counts the answers.
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

    def answered(self) -> Answered:
        """The same by class alone."""
        matrix = self.matrix
        return Answered(matrix.diagonal(), matrix.sum(1), matrix.sum(0), self.images, self.task)

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
        found = self.answered()
        score = 100 * found.share()
        order, best = self.best_order()
        head = (
            f"The teacher {teacher.name} is right in {score:.1f}% of the validation data, where answers that know "
            f"nothing of the pictures would be in {100 * found.chance():.1f}%."
        )
        if 100 * best > 2 * score and 100 * best > 50:
            moved = [f"{classes[index]}: {output}" for index, output in enumerate(order) if output != index]
            shown = ", ".join(moved[:4])
            cause = (
                f"With its classes in another order it would be right in {100 * best:.1f}%: give teacher.classes, a "
                f"YAML file that says which of its outputs is which class ({{{shown}, ...}})."
            )
        else:
            cause = f"{found.always(classes)}{_likely_cause(teacher)}"
        return f"{head} {cause} {_GO_ON}"


def of_chance(teacher: VisionModel, verdict: Verdict) -> str:
    """As `Tally.complaint`, of a teacher that its task has judged."""
    head = f"The teacher {teacher.name} knows nothing of the pictures: it has {verdict.found}."
    return f"{head} {_likely_cause(teacher)} {_GO_ON}"


def of_student(score: Score, tally: Tally, images: int, classes: Sequence[str]) -> str | None:
    """What is said of a student that knows nothing of the pictures; None of another.

    Args:
        tally: what the score does not count itself.
        images: that the score is of.
    """
    head, own, task = "The student knows nothing of the validation data:", score.verdict(), tally.task
    if score.against_teacher or (own is not None and own.kind != "chance"):
        return None
    if own is not None:
        return f"{head} it has {own.found}."
    cells = score.cells()
    found = tally.answered() if cells is None else Answered(cells[:, 0], cells[:, 1], cells[:, 2], images, task)
    if not found.knows_nothing():
        return None
    rare = "data.balance" if task.whole else "a dice term, data.scenes.foreground"
    return (
        f"{head} it is right in {100 * found.share():.1f}%, where answers that know nothing would be in "
        f"{100 * found.chance():.1f}%. {found.always(classes)}Train it for more steps or at another learning rate; "
        f"where classes are rare, give them more weight (class_weight of cross_entropy, {rare})."
    )


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
