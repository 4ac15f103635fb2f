"""A student that answers what it is sure of, and hands the other pictures on to its teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import t

from counterpoise.config.options import Place, keywords_after
from counterpoise.data.sources.base import UNLABELED
from counterpoise.engine import inputs, promising
from counterpoise.engine.betting import Counts, Floats, members
from counterpoise.engine.options import Cascaded
from counterpoise.engine.processes import choose_device
from counterpoise.engine.promises import answered as answered_by
from counterpoise.engine.promises import unseen
from counterpoise.engine.student import load_student
from counterpoise.errors import ConfigError, DataError

SHARES = (1.0, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.25, 0.0)
"""Of pictures that the student answers, as the table has them."""
FEWEST, FEWEST_GROUPS = 40, 10
"""Pictures, and groups of them, that tell anything."""
FEWEST_OTHER = 5
"""Pictures, or groups, that differ from the teacher, of which a spread tells anything."""
LEVEL = 0.95
Right = npt.NDArray[np.bool_]


class Answered(NamedTuple):
    """What became of pictures of which the student answers those that it is surer of than `threshold`.

    Attributes:
        share: of pictures that it answers.
        top1: of both together, in percent.
        difference: to the teacher alone, in points, with its 95% interval, over pictures, or over groups where pictures
            of one err together.
        interval: how that was found: "t" (Student's t, paired), or "exact" where so few differ from the teacher that
            the spread among them tells too little: from what is lost to what is gained at most, by the bounds of
            Clopper and Pearson of the share of pictures (or groups) that lost, and that gained.
    """

    threshold: float
    share: float
    top1: float
    difference: float
    low: float
    high: float
    interval: str


@keywords_after("teacher", Cascaded)
def cascade(student: Place, options: Cascaded) -> dict[str, Any]:
    """How many pictures a student may answer by itself, so that with its teacher for the others nothing is lost.

    Pictures are divided at random, those of one group (a patient, a video) together. On one half the student's
    temperature is fitted, and the threshold is chosen: the lowest at which both together are right as often as the
    teacher alone, less `give`. The other half tells what that is worth, and has a table of other shares.

    Args:
        student: student folder, or a run's folder; and so is the teacher.

    Returns:
        {"pictures", "groups", "told_on", "student_top1", "teacher_top1", "temperature", "chosen", "table", "notes"}.
        groups is None where each picture is its own, told_on the pictures of the other half, chosen and the rows of the
        table as `Answered` has them, chosen None where no threshold will do.

    Raises:
        ConfigError: one of them answers something else than one class a picture.
        ModelError: one of them answers probabilities.
        DataError: too few labeled pictures, other classes, or pictures that one of them was trained on.
    """
    if options.teacher is None:
        raise ConfigError(
            "cascade needs a teacher, which answers what the student hands on: a student folder or a run."
        )
    both = (student, options.teacher)
    networks = [load_student(Path(path)) for path in both]
    for network, path in zip(networks, both, strict=True):
        if network.task != "classification":
            raise ConfigError(f"A cascade is of one class a picture, and {path} answers {network.task}.")
    images, section = inputs.evaluated(Path(student), options.data, options.split, options.data_set)
    device, at_once = choose_device(options.device), inputs.batch_size(Path(student), options.batch_size)
    told_by = []
    notes = inputs.without_groups(Path(student), images)
    for network, path in zip(networks, both, strict=True):
        notes += unseen(path, images, section, options.data_set)
        told = answered_by(path, network, images, section, at_once, device)
        values, labels, indices = (torch.cat(side) for side in zip(*told, strict=True))
        known = labels != UNLABELED
        told_by.append((values[known].double().numpy(), labels[known].numpy().astype(np.int64)))
    (logits, classes), (of_teacher, of_its) = told_by
    owners = images.owners()[indices[known]].numpy()
    found = chosen(logits, classes, logits.argmax(1) == classes, of_teacher.argmax(1) == of_its, options.give, owners)
    return {**found, "student": str(student), "teacher": str(options.teacher), "notes": notes}


def chosen(
    logits: Floats,
    labels: Counts,
    student: Right,
    teacher: Right,
    give: float,
    owners: Counts | None = None,
) -> dict[str, Any]:
    """From the student's logits [N, C], labels [N], which answers are right, and which pictures err together [N].

    Raises DataError where there are too few.
    """
    count = len(labels)
    if count < FEWEST:
        raise DataError(f"{count} labeled pictures tell too little: a cascade needs {FEWEST} at least (--data).")
    owners = np.arange(count) if owners is None else np.unique(owners, return_inverse=True)[1].reshape(-1)
    groups = int(owners.max()) + 1
    if groups < FEWEST_GROUPS:
        raise DataError(
            f"{count} labeled pictures of {groups} groups tell too little: pictures of one group err together, and a "
            f"cascade needs {FEWEST_GROUPS} groups at least (--data)."
        )
    order = np.random.default_rng(0).permutation(groups)
    first, second = (members(owners, half) for half in (order[: groups // 2], order[groups // 2 :]))
    temperature = promising.fitted_temperature(logits[first], labels[first])
    sure = promising.probabilities(logits, temperature).max(1)
    threshold = _lowest(sure[first], student[first], teacher[first], give)
    others = sure[second], student[second], teacher[second], owners[second]
    found = None if threshold is None else answered(threshold, *others)
    rows = [answered(float(np.quantile(others[0], 1 - share)) if share else np.inf, *others) for share in SHARES]
    return {
        "pictures": count,
        "groups": groups if groups < count else None,
        "told_on": len(second),
        "student_top1": 100 * float(student[second].mean()),
        "teacher_top1": 100 * float(teacher[second].mean()),
        "give": give,
        "temperature": temperature,
        "chosen": None if found is None else found._asdict(),
        "table": [row._asdict() for row in rows],
    }


def _lowest(sure: Floats, student: Right, teacher: Right, give: float) -> float | None:
    """The lowest threshold at which both together are at most `give` points behind the teacher alone."""
    order = np.argsort(-sure, kind="stable")
    gained = 100 * np.cumsum(student[order].astype(np.int64) - teacher[order]) / len(sure)
    last_of_its_like = np.append(sure[order][1:] < sure[order][:-1], True)
    good = np.flatnonzero((gained >= -give) & last_of_its_like)
    return None if len(good) == 0 else 0.0 if good[-1] == len(sure) - 1 else float(sure[order][good[-1]])


def answered(threshold: float, sure: Floats, student: Right, teacher: Right, owners: Counts) -> Answered:
    """What becomes of these pictures.

    The interval is that of a mean over clusters, by the sums of what its pictures differ from it; of pictures that are
    each their own it is the usual one of a mean.
    """
    own = sure >= threshold
    both = np.where(own, student, teacher)
    difference = 100 * (both.astype(np.float64) - teacher)
    mean = float(difference.mean())
    groups = np.unique(owners, return_inverse=True)[1].reshape(-1)
    residuals = np.bincount(groups, difference - mean)
    deviation = float(np.sqrt(len(residuals) / (len(residuals) - 1) * (residuals**2).sum())) / len(sure)
    if np.isinf(threshold):  # the teacher answers all: nothing can differ
        return Answered(threshold, 0.0, 100 * float(both.mean()), 0.0, 0.0, 0.0, "exact")
    sums = np.bincount(groups, difference)
    gained, lost = int((sums > 0).sum()), int((sums < 0).sum())
    if len(np.unique(groups[difference != 0])) < FEWEST_OTHER:
        most = max(1.0, float(np.bincount(groups, own).max()) * len(sums) / len(sure))  # of a group, what is answered
        bounds = (100 * most * promising.upper(some, len(sums), (1 + LEVEL) / 2) for some in (lost, gained))
        low, high = (min(100.0, bound) for bound in bounds)
        return Answered(threshold, float(own.mean()), 100 * float(both.mean()), mean, -low, high, "exact")
    half = float(t.ppf((1 + LEVEL) / 2, len(residuals) - 1)) * deviation
    return Answered(threshold, float(own.mean()), 100 * float(both.mean()), mean, mean - half, mean + half, "t")
