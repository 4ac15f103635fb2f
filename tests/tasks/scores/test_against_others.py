"""Every score beside an independent implementation, on random masks: empty ones, whole ones and void included."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from counterpoise.data.sources.base import IGNORE
from counterpoise.tasks.scores import Seen, all_scores
from counterpoise.tasks.scores.ranking import BINS, RANGE

Mask = NDArray[np.bool_]


class Drawn:
    """A random truth and logits of two classes, of random size; every eighth has an empty side, or both are."""

    def __init__(self, number: int) -> None:
        draw = np.random.default_rng(number)
        size = tuple(int(edge) for edge in draw.integers(4, 40, 2))
        field = ndimage.gaussian_filter(draw.normal(size=size), draw.uniform(0.3, 4))
        noise = ndimage.gaussian_filter(draw.normal(size=size), draw.uniform(0.3, 4))
        truth = field > np.quantile(field, draw.uniform(0.3, 0.98))
        margin = 8 * (field / field.std() + draw.uniform(0.2, 3) * noise / noise.std()) - draw.uniform(0, 20)
        kind = number % 24
        truth = truth & (kind not in (0, 3)) if kind != 6 else np.ones_like(truth)
        margin = np.full_like(margin, -3) if kind in (0, 9) else margin
        margin = np.round(margin * BINS / (2 * RANGE)) * (2 * RANGE) / BINS  # exact in the bins of the ranking
        void = np.zeros_like(truth)
        if kind in (12, 15, 18):
            void[: size[0] // 2] = True
        self.spacing = tuple(float(one) for one in draw.uniform(0.2, 3, 2)) if number % 2 else None
        self.margin, self.void = margin.clip(-RANGE, RANGE - 0.5), void
        self.truth, self.answer = truth & ~void, (self.margin > 0) & ~void

    def scores(self) -> dict[str, float]:
        """Ours."""
        target = torch.from_numpy(self.truth.astype(np.int64))
        target[torch.from_numpy(self.void)] = IGNORE
        logits = torch.stack([torch.zeros(self.margin.shape), torch.from_numpy(self.margin).float()])
        seen = Seen(logits, target, self.spacing)  # type: ignore[arg-type]
        found: dict[str, float] = {}
        for name, kind in all_scores().items():
            found[name] = kind.values(kind.count(seen, [1])[0])[name].item()
        return found

    @property
    def one_side_empty(self) -> bool:
        return bool(self.truth.any()) != bool(self.answer.any())


def same(ours: float, theirs: float, what: str) -> None:
    if math.isnan(theirs):
        assert math.isnan(ours), what
    else:
        assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-4), what


def by_hand(drawn: Drawn) -> Iterator[tuple[str, float]]:
    """scikit-image, and brute force."""
    from skimage import measure, segmentation

    known = ~drawn.void
    truth, answer, margin = drawn.truth[known], drawn.answer[known], drawn.margin[known]
    tp, fp, fn = (int(cells.sum()) for cells in (truth & answer, ~truth & answer, truth & ~answer))
    tn = truth.size - tp - fp - fn
    for name, part, whole in (
        ("dice", 2 * tp, 2 * tp + fp + fn),
        ("iou", tp, tp + fp + fn),
        ("precision", tp, tp + fp),
        ("recall", tp, tp + fn),
        ("specificity", tn, tn + fp),
    ):
        yield name, 100 * part / whole if whole else math.nan
    more, less = margin[truth][:, None], margin[~truth][None]
    yield "auroc", 100 * float(((more > less) + (more == less) / 2).mean()) if more.size and less.size else math.nan
    at_least = margin[None] >= more
    hits = (at_least & truth).sum(1) / at_least.sum(1)
    yield "auprc", 100 * float(hits.mean()) if more.size else math.nan
    if drawn.truth.any() and drawn.answer.any():
        step = np.array(drawn.spacing or (1, 1))
        edges = []
        for mask in (np.pad(drawn.truth, 1), np.pad(drawn.answer, 1)):
            edges.append(np.argwhere(segmentation.find_boundaries(mask, connectivity=1, mode="inner")) * step)
        apart = np.sqrt(((edges[0][:, None] - edges[1][None]) ** 2).sum(-1))
        yield "hd95", float(max(np.percentile(apart.min(0), 95), np.percentile(apart.min(1), 95)))
        yield "assd", float(np.concatenate([apart.min(0), apart.min(1)]).mean())
    elif not drawn.one_side_empty:
        yield "hd95", math.nan
        yield "assd", math.nan
    objects = [measure.label(mask, connectivity=1) for mask in (drawn.truth, drawn.answer)]
    found = [
        (one & other).sum() / (one | other).sum()
        for one in (objects[0] == number for number in range(1, objects[0].max() + 1))
        for other in (objects[1] == number for number in np.unique(objects[1][one]) if number)
    ]
    hits = [iou for iou in found if iou > 0.5]
    every = objects[0].max() + objects[1].max()
    yield "object_f1", 200 * len(hits) / every if every else math.nan
    yield "pq", 200 * sum(hits) / every if every else math.nan
    yield "aji", aggregated_jaccard(*objects)


def aggregated_jaccard(truth: NDArray[np.int64], answer: NDArray[np.int64]) -> float:
    """Algorithm 1 of Kumar et al. 2017, line by line; what nothing overlaps has no argmax, and adds itself."""
    intersections = unions = 0
    used = set()
    answers = [answer == number for number in range(1, answer.max() + 1)]
    for own in (truth == number for number in range(1, truth.max() + 1)):
        jaccard = [(own & other).sum() / (own | other).sum() for other in answers]
        if not any(jaccard):
            unions += own.sum()
            continue
        best = int(np.argmax(jaccard))
        intersections += (own & answers[best]).sum()
        unions += (own | answers[best]).sum()
        used.add(best)
    unions += sum(other.sum() for number, other in enumerate(answers) if number not in used)
    return 100 * float(intersections / unions) if unions else math.nan


def by_scikit_learn(drawn: Drawn) -> Iterator[tuple[str, float]]:
    """The areas under both curves."""
    from sklearn import metrics

    truth, margin = drawn.truth[~drawn.void], drawn.margin[~drawn.void]
    both = 0 < truth.sum() < truth.size
    yield "auroc", 100 * metrics.roc_auc_score(truth, margin) if both else math.nan
    yield "auprc", 100 * metrics.average_precision_score(truth, margin) if truth.any() else math.nan


def by_monai(drawn: Drawn) -> Iterator[tuple[str, float]]:
    """MONAI, which tells what is empty on one side otherwise: distances are infinite there."""
    from monai import metrics

    truth, answer = (torch.from_numpy(mask)[None, None].float() for mask in (drawn.truth, drawn.answer))
    if not drawn.void.any():
        matrix = metrics.get_confusion_matrix(answer, truth)
        for name, theirs in (("precision", "precision"), ("recall", "sensitivity"), ("specificity", "specificity")):
            yield name, 100 * metrics.compute_confusion_matrix_metric(theirs, matrix).item()
    if truth.any():  # of an empty truth it gives NaN, or 1 where the answer is empty, too
        yield "dice", 100 * metrics.compute_dice(answer, truth).item()
        yield "iou", 100 * metrics.compute_iou(answer, truth).item()
    if drawn.truth.any() and drawn.answer.any():
        given = {"include_background": True, "spacing": drawn.spacing}
        yield "hd95", metrics.compute_hausdorff_distance(answer, truth, percentile=95, **given).item()
        yield "assd", metrics.compute_average_surface_distance(answer, truth, symmetric=True, **given).item()
    numbered = [torch.from_numpy(ndimage.label(mask)[0]) for mask in (drawn.answer, drawn.truth)]
    if any(side.any() for side in numbered):
        counts: Tensor = metrics.compute_panoptic_quality(*numbered, output_confusion_matrix=True)
        hits, answered, true, overlap = counts.tolist()
        yield "object_f1", 200 * hits / (2 * hits + answered + true)
        yield "pq", 200 * overlap / (2 * hits + answered + true)


def center_lines(drawn: Drawn) -> float:
    """clDice with the skeletons of another algorithm than ours would differ; its formula by sets of pixels does not."""
    from skimage.morphology import skeletonize

    lines = [{*map(tuple, np.argwhere(skeletonize(mask)))} for mask in (drawn.answer, drawn.truth)]
    masks = [{*map(tuple, np.argwhere(mask))} for mask in (drawn.answer, drawn.truth)]
    if not masks[0] and not masks[1]:
        return math.nan
    if not masks[0] or not masks[1]:
        return 0.0
    precision, recall = len(lines[0] & masks[1]) / len(lines[0]), len(lines[1] & masks[0]) / len(lines[1])
    return 100 * 2 / (1 / precision + 1 / recall) if precision and recall else 0.0


def compare(numbers: range, *others: Callable[[Drawn], Iterator[tuple[str, float]]]) -> None:
    seen: dict[str, int] = {}
    for number in numbers:
        drawn = Drawn(number)
        ours = drawn.scores()
        same(ours["cldice"], center_lines(drawn), f"cldice of {number}")
        for name, theirs in (found for other in others for found in other(drawn)):
            same(ours[name], theirs, f"{name} of {number}")
            seen[name] = seen.get(name, 0) + 1
        if drawn.one_side_empty:
            step = drawn.spacing or (1.0, 1.0)
            farthest = math.hypot(drawn.truth.shape[0] * step[0], drawn.truth.shape[1] * step[1])
            assert (ours["dice"], ours["hd95"]) == (0, pytest.approx(farthest))
    assert set(seen) | {"cldice"} == set(all_scores())
    assert min(seen.values()) > len(numbers) / 2


def test_scores_of_forty_masks_are_those_of_others() -> None:
    compare(range(40), by_hand)


@pytest.mark.slow
def test_scores_of_a_thousand_masks_are_those_of_monai_and_scikit_learn_too() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compare(range(1000), by_hand, by_scikit_learn, by_monai)
