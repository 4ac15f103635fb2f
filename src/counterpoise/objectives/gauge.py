"""The balance gauge: does the student miss what its teacher believes, or believe what its teacher rules out?"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from counterpoise.errors import ObjectiveError
from counterpoise.objectives.arguments import check_tensors
from counterpoise.objectives.calibration import CALIBRATION_BINS, calibration_bins, calibration_error
from counterpoise.objectives.divergence import check_temperature
from counterpoise.objectives.logits import kind_of
from counterpoise.objectives.ranks import rank_of
from counterpoise.system.machine import sum_dtype

EDGES = (1, 5, 20, 100, 500, 2000, 10_000)
"""Last rank of each band of classes, ranked by the teacher's probability; the last band takes the rest."""
BLOCK = 2**22
"""Numbers ranked at once, to keep memory small."""
_COUNTS = ("positions", "forward_kl", "reverse_kl", "missed", "excess", "top1", "top5", "labeled")
_COLUMNS = ("forward_kl", "reverse_kl", "teacher_mass", "student_mass", "missed", "excess")


class Gauge:
    r"""How forward and reverse KL divide over the classes, gathered over a data set.

    At every position the classes are ranked by the teacher's probability p; q is the student's. Class c contributes

    .. math:: p_c \log\frac{p_c}{q_c} - p_c + q_c \quad\text{to}\ KL(p \| q),\qquad
              q_c \log\frac{q_c}{p_c} - q_c + p_c \quad\text{to}\ KL(q \| p)

    which is never below 0 and adds up to the divergence, for p and q both add up to 1: so the bands of classes share
    out a divergence, and no part is set off against another.

    `missed` is the part of forward KL on classes to which the student gives less than the teacher: its positives.
    `excess` is the part of reverse KL on classes to which it gives more: what the teacher rules out.

    Networks that answer each class for itself have sigmoids in place of the softmax: class c then contributes the
    divergence of two coins, p_c log(p_c / q_c) + (1 - p_c) log((1 - p_c) / (1 - q_c)); masses need not add up to 100%.

    Args:
        num_classes: C.
        temperature: of both sides' softmax. Divergences are not multiplied by its square.
        sigmoid: p and q are sigmoids of the logits, class by class.

    Attributes:
        state: float64 on the CPU, sums over what was seen; the states of several processes may be added.
    """

    def __init__(self, num_classes: int, temperature: float = 1.0, sigmoid: bool = False) -> None:
        self.num_classes = num_classes
        self.temperature = check_temperature("temperature", temperature)
        self.sigmoid = sigmoid
        self.by_label = False  # whether targets said of each class whether it is there
        self.bands = _bands(num_classes)
        self.state = torch.zeros(
            len(_COUNTS) + len(_COLUMNS) * len(self.bands) + 2 * 3 * CALIBRATION_BINS, dtype=torch.float64
        )

    def update(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        target: Tensor | None = None,
        ignore_index: int | None = None,
    ) -> None:
        """Count a batch.

        Args:
            student_logits: [N, C] or [N, C, ...], any floating dtype.
            teacher_logits: the same shape; on any device.
            target: int64 [N, ...]; labels that are no class (-1, 255) serve the calibration error no further. With
                sigmoids also of the logits' shape: 1, 0 or -1 (unknown) for each class.
            ignore_index: positions whose target holds this value are left out altogether.

        Raises:
            ObjectiveError: shapes that do not fit.
        """
        check_tensors(student_logits=student_logits, teacher_logits=teacher_logits, target=target)
        if student_logits.shape != teacher_logits.shape or student_logits.ndim < 2:
            raise ObjectiveError(
                f"logits of student and teacher must have one shape [N, C, ...], "
                f"got {list(student_logits.shape)} and {list(teacher_logits.shape)}."
            )
        if student_logits.shape[1] != self.num_classes:
            raise ObjectiveError(f"expected {self.num_classes} classes, got {student_logits.shape[1]}.")
        by_class = self.sigmoid and target is not None and target.shape == student_logits.shape
        self.by_label |= by_class
        if target is not None and not by_class and target.shape != student_logits[:, 0].shape:
            raise ObjectiveError(
                f"target must have shape {list(student_logits[:, 0].shape)}, got {list(target.shape)}."
            )
        if target is not None and not by_class and target.is_floating_point():
            raise ObjectiveError(f"target must be whole numbers, the class of each position, got {kind_of(target)}.")
        student = student_logits.detach().movedim(1, -1).reshape(-1, self.num_classes)
        teacher = teacher_logits.detach().movedim(1, -1).reshape(-1, self.num_classes)
        labels = torch.full((len(student),), -1)
        if target is not None:
            labels = target.movedim(1, -1).reshape(-1, self.num_classes) if by_class else target.reshape(-1)
        labels = labels.to(student.device)
        if ignore_index is not None:
            kept = labels != ignore_index
            student, teacher, labels = student[kept], teacher[kept.to(teacher.device)], labels[kept]
        rows = max(BLOCK // self.num_classes, 1)
        for start in range(0, len(student), rows):
            part = slice(start, start + rows)
            self._add(student[part].float(), teacher[part].to(student.device).float(), labels[part])

    def _add(self, student: Tensor, teacher: Tensor, labels: Tensor) -> None:
        answers = student.argmax(1)
        teacher, order = teacher.sort(dim=1, descending=True, stable=True)
        rank = rank_of(student, order[:, 0])  # of the teacher's answer
        student = student.gather(1, order)
        p, q, forward, reverse = self._divergences(student / self.temperature, teacher / self.temperature)
        nothing = torch.zeros(())
        missed, excess = torch.where(q < p, forward, nothing), torch.where(q > p, reverse, nothing)
        columns = torch.stack(
            [value.sum(0, dtype=sum_dtype(value.device)) for value in (forward, reverse, p, q, missed, excess)]
        )
        rows = torch.stack([columns[:, first - 1 : last].sum(1) for first, last in self.bands], dim=1)
        by_class = labels.ndim == 2
        labeled = labels >= 0 if by_class else (labels >= 0) & (labels < self.num_classes)
        counts = [
            torch.tensor(float(len(student))),
            columns[0].sum(),
            columns[1].sum(),
            columns[4].sum(),
            columns[5].sum(),
            (rank < 1).sum(),
            (rank < 5).sum(),
            labeled.sum(),
        ]
        if by_class:
            truth, labeled = labels.gather(1, order), labeled.gather(1, order)
            bins = [_of_coins(probabilities[labeled], truth[labeled]) for probabilities in (q, p)]
        else:
            # p and q stand in the teacher's order, where its own answer is first.
            own, truth = ((order == classes[:, None]).int().argmax(1) for classes in (answers, labels))
            bins = [
                calibration_bins(probabilities[labeled], places[labeled], truth[labeled])
                for probabilities, places in ((q, own), (p, torch.zeros_like(labels)))
            ]
        added = torch.cat(
            [torch.stack([c.cpu().double() for c in counts]), rows.cpu().double().flatten(), *map(torch.flatten, bins)]
        )
        self.state += added

    def _divergences(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """p, q, and each class's part of forward and reverse KL, [N, C]; a class that both rule out (-inf) has none."""
        if self.sigmoid:
            log_p, log_q, log_not_p, log_not_q = (
                F.logsigmoid(sign * side) for sign in (1, -1) for side in (teacher, student)
            )
            p, q = log_p.exp(), log_q.exp()
            yes, no = log_p - log_q, log_not_p - log_not_q
            return p, q, _times(p, yes) + _times(1 - p, no), -_times(q, yes) - _times(1 - q, no)
        log_p, log_q = (F.log_softmax(side, dim=1) for side in (teacher, student))
        p, q, ratio = log_p.exp(), log_q.exp(), log_p - log_q
        forward, reverse = _times(p, ratio) - p + q, p - q - _times(q, ratio)
        return p, q, forward.clamp(min=0.0), reverse.clamp(min=0.0)

    def compute(self) -> dict[str, Any]:
        """The whole gauge.

        Returns:
            positions; forward_kl, reverse_kl, missed, excess (nats a position); agreement: top1 and, of more than five
            classes, top5 (percent of positions where the teacher's first class is the student's first, or among its
            five); bands: one row a band of ranks, with both divergences (nats), their shares, what of them is `missed`
            and `excess`, and the probability (percent) each side gives it;
            calibration: `student` and `teacher` with top1 (percent; where each class has a label, `labels`, those told
            rightly) and calibration_error (ECE of 15 bins), where there are labels; summary: a plain sentence. Without
            positions, that alone: {"positions": 0}.
        """
        count = float(self.state[0])
        if not count:
            return {"positions": 0}
        short = self.short()
        totals = dict(zip(_COUNTS, self.state[: len(_COUNTS)].tolist(), strict=True))
        rows = self.state[len(_COUNTS) :][: len(_COLUMNS) * len(self.bands)].reshape(len(_COLUMNS), -1).T.tolist()
        bands = []
        for (first, last), (forward, reverse, teacher, student, missed, excess) in zip(self.bands, rows, strict=True):
            bands.append(
                {
                    "ranks": str(first) if first == last else f"{first}-{last}",
                    "forward_kl": forward / count,
                    "forward_share": forward / max(totals["forward_kl"], 1e-300),
                    "reverse_kl": reverse / count,
                    "reverse_share": reverse / max(totals["reverse_kl"], 1e-300),
                    "teacher_mass": 100 * teacher / count,
                    "student_mass": 100 * student / count,
                    "missed": missed / count,
                    "excess": excess / count,
                }
            )
        result: dict[str, Any] = {
            "positions": int(count),
            "classes": self.num_classes,
            "temperature": self.temperature,
            **{name: short[name] for name in ("forward_kl", "reverse_kl", "missed", "excess")},
            "agreement": {"top1": short["agreement"]}
            | ({"top5": 100 * totals["top5"] / count} if self.num_classes > 5 else {}),
            "bands": bands,
        }
        if totals["labeled"]:
            bins = self.state[-2 * 3 * CALIBRATION_BINS :].reshape(2, 3, CALIBRATION_BINS)
            result["calibration"] = {
                name: {
                    "labels" if self.by_label else "top1": 100 * float(seen[2].sum()) / totals["labeled"],
                    "calibration_error": calibration_error(seen),
                }
                for name, seen in zip(("student", "teacher"), bins, strict=True)
            }
        return {**result, "summary": _sentence(result)}

    def reliability(self) -> dict[str, list[dict[str, float]]]:
        """Confidence beside accuracy, of `student` and `teacher`: a row a bin of confidence that holds positions, with
        `low` and `high` (the bin's ends, 0 to 1), `count`, and `confidence` and `accuracy` (means, 0 to 1)."""
        bins = self.state[-2 * 3 * CALIBRATION_BINS :].reshape(2, 3, CALIBRATION_BINS)
        return {
            name: [
                {
                    "low": number / CALIBRATION_BINS,
                    "high": (number + 1) / CALIBRATION_BINS,
                    "count": count,
                    "confidence": confidence / count,
                    "accuracy": hits / count,
                }
                for number, (count, confidence, hits) in enumerate(side.T.tolist())
                if count
            ]
            for name, side in zip(("student", "teacher"), bins, strict=True)
        }

    def short(self) -> dict[str, float]:
        """The few numbers for a log: forward_kl, reverse_kl, missed, excess (nats), agreement (percent)."""
        count = float(self.state[0])
        if not count:
            return {}
        values = dict(zip(_COUNTS, (self.state[: len(_COUNTS)] / count).tolist(), strict=True))
        names = ("forward_kl", "reverse_kl", "missed", "excess")
        return {**{name: values[name] for name in names}, "agreement": 100 * values["top1"]}


def _bands(classes: int) -> list[tuple[int, int]]:
    """First and last rank of each band, from 1."""
    ends = [edge for edge in EDGES if edge < classes] + [classes]
    return list(zip([1, *(end + 1 for end in ends[:-1])], ends, strict=True))


def _of_coins(probabilities: Tensor, labels: Tensor) -> Tensor:
    """As `calibration_bins`, of answers yes or no with the probability of yes, and labels 1 and 0: [M] each."""
    both = torch.stack([1 - probabilities, probabilities], 1)
    return calibration_bins(both, (probabilities > 0.5).long(), labels.long())


def _times(probability: Tensor, ratio: Tensor) -> Tensor:
    """probability * ratio, which is 0 where the probability is, whatever the ratio."""
    return torch.where(probability > 0, probability * ratio, torch.zeros(()))


def _sentence(result: dict[str, Any]) -> str:
    if not math.isfinite(result["forward_kl"] + result["reverse_kl"]):
        return "The student's or the teacher's answers are not finite at some positions."
    missed, excess = result["missed"], result["excess"]
    agrees = f"it gives the teacher's first answer in {result['agreement']['top1']:.1f} of 100 cases"
    if max(missed, excess) < 1e-3:
        return f"The student says what the teacher says; {agrees}."
    misses = f"misses what the teacher believes ({missed:.3f} nats), {_where(result, 'missed')}"
    believes = f"believes what the teacher rules out ({excess:.3f} nats), {_where(result, 'excess')}"
    if missed > 1.25 * excess:
        return f"The student mainly {misses}; it believes less of what the teacher rules out ({excess:.3f}); {agrees}."
    if excess > 1.25 * missed:
        return f"The student mainly {believes}; it misses less of what the teacher believes ({missed:.3f}); {agrees}."
    return f"The student {misses}, about as much as it {believes}; {agrees}."


def _where(result: dict[str, Any], side: str) -> str:
    """The band with most of `missed` or `excess`, and what is given to it where that shows which side it is.

    What is missed at one position may be made up at another, so that means over all of them need not show it.
    """
    band = max(result["bands"], key=lambda band: band[side])
    first = band["ranks"] == "1"
    words = "most of all on the " + ("teacher's first class" if first else f"classes ranked {band['ranks']} by it")
    more, less = ("teacher", "student") if side == "missed" else ("student", "teacher")
    given = {who: f"{band[f'{who}_mass']:.1f}%" for who in ("teacher", "student")}
    if band[f"{more}_mass"] <= band[f"{less}_mass"] or given["teacher"] == given["student"]:
        return words
    return f"{words}, where it gives {given['student']} and the teacher {given['teacher']}"
