"""Terms over masks: each at the resolution it is for, equal to upsampling by hand and then the plain objective."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from counterpoise.config import Term
from counterpoise.errors import ConfigError, ObjectiveError
from counterpoise.objectives.base import Terms, entries, means
from counterpoise.objectives.dense import DenseSum, reduced, resample
from counterpoise.outputs import Outputs

VOID = 255
CLASSES = 5
ROWS = torch.randn(CLASSES, 6, generator=torch.Generator().manual_seed(5))
"""Of a teacher's last layer."""
NAMES = [
    name
    for name, entry in entries().items()
    if "teacher" in entry.kind.needs and not {"features", "maps"} & entry.kind.needs
]


def draw(seed: int, *shape: int) -> Tensor:
    return 2 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def masks(height: int = 9, width: int = 14) -> Tensor:
    found = torch.randint(0, CLASSES, (2, height, width), generator=torch.Generator().manual_seed(2))
    found[:, :2, :5] = VOID
    return found


def sides(teacher_size: tuple[int, int] = (4, 6)) -> tuple[Outputs, Outputs]:
    student = Outputs(draw(0, 2, CLASSES, 3, 5).requires_grad_(), {"@-1": draw(3, 2, 8, 3, 5)})
    return student, Outputs(draw(1, 2, CLASSES, *teacher_size), {"@-1": draw(4, 2, 8, *teacher_size)})


def by_hand(logits: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)


def built(resolution: Literal["full", "logits"] = "full", **terms: dict[str, Any]) -> DenseSum:
    found = DenseSum({name: Term(**values) for name, values in terms.items()}, resolution, void=VOID)
    found.set_classifier(ROWS)
    found.set_progress(1.0)
    return found


def total_and_gradient(terms: Terms | Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    total = terms if isinstance(terms, Tensor) else terms.total
    (gradient,) = torch.autograd.grad(total, logits)
    return total.detach(), gradient


def plain(name: str, student: Tensor, teacher: Tensor | None, target: Tensor, **arguments: Any) -> Tensor:
    """The sum of an objective's parts for logits and masks of one size."""
    objective = entries()[name].kind(**arguments)
    objective.set_classifier(ROWS)
    objective.set_progress(1.0)
    parts = means(objective.terms(Outputs(student), None if teacher is None else Outputs(teacher), target))
    return torch.stack(list(parts.values())).sum()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("resolution", ["full", "logits"])
def test_each_logit_objective_equals_resampling_by_hand(name: str, resolution: Literal["full", "logits"]) -> None:
    student, teacher = sides()
    target = masks()
    found = total_and_gradient(built(resolution, **{name: {}})(student, teacher, target), student.logits)
    size = (9, 14) if resolution == "full" else (3, 5)
    at = target if resolution == "full" else reduced(target, size)
    void = {"ignore_index": VOID} if "labels" in entries()[name].kind.needs else {}
    expected = plain(name, by_hand(student.logits, size), by_hand(teacher.logits, size), at, **void)
    for mine, other in zip(found, total_and_gradient(expected, student.logits), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["cross_entropy", "dice", "binary_cross_entropy", "focal", "lovasz_hinge", "boundary"])
@pytest.mark.parametrize("resolution", ["full", "logits"])
def test_labels_count_at_full_resolution_and_void_does_not(name: str, resolution: Literal["full", "logits"]) -> None:
    student, teacher = sides()
    found = built(resolution, **{name: {}})(student, teacher, masks()).total
    torch.testing.assert_close(
        found, plain(name, by_hand(student.logits, (9, 14)), None, masks(), ignore_index=VOID), rtol=1e-5, atol=1e-6
    )
    assert torch.equal(built(resolution, **{name: {}})(student, None, masks()).total, found)


def test_maps_are_compared_where_the_student_has_them() -> None:
    student, teacher = sides()
    for resolution in ("full", "logits"):
        found = built(resolution, cwd={})(student, teacher, masks()).total
        near = by_hand(teacher.logits, (3, 5))
        expected = plain("cwd", student.logits, near, reduced(masks(), (3, 5)))
        torch.testing.assert_close(found, expected)
    changed = teacher._replace(logits=teacher.logits + 1e3 * (torch.arange(4).view(4, 1) == 3))
    assert (built(cwd={})(student, changed, masks()).total - found).abs() > 1e-3


@pytest.mark.parametrize("name", ["ifvd", "skd", "cwd_feature"])
def test_terms_on_features_get_the_whole_mask(name: str) -> None:
    student, teacher = sides()
    objective = entries()[name].kind()
    objective.prepare(student, teacher, 4)
    expected = torch.stack(list(means(objective.terms(student, teacher, masks())).values())).sum()
    for resolution in ("full", "logits"):
        terms = built(resolution, **{name: {}})
        terms.prepare(student, teacher, 4)
        terms.objective(name).load_state_dict(objective.state_dict())
        torch.testing.assert_close(terms(student, teacher, masks()).total, expected)


def test_a_teacher_of_one_size_is_taken_as_it_is() -> None:
    student, teacher = sides((9, 14))
    found = built(forward_kl={})(student, teacher, masks()).total
    torch.testing.assert_close(found, plain("forward_kl", by_hand(student.logits, (9, 14)), teacher.logits, masks()))
    fine = student._replace(logits=draw(5, 2, CLASSES, 9, 14))
    coarse = teacher._replace(logits=draw(6, 2, CLASSES, 1, 2))
    expected = plain("forward_kl", fine.logits, by_hand(coarse.logits, (9, 14)), masks())
    for resolution in ("full", "logits"):
        torch.testing.assert_close(built(resolution, forward_kl={})(fine, coarse, masks()).total, expected)


def test_parts_add_up_to_the_total_in_the_order_of_the_terms() -> None:
    student, teacher = sides()
    weights = {"cwd": 3.0, "cross_entropy": 0.5, "balance": 2.0, "dkd": 1.0, "ifvd": 5.0, "dice": 1.0}
    terms = built(**{name: {"weight": weight} for name, weight in weights.items()})
    total, parts = terms(student, teacher, masks())
    torch.testing.assert_close(torch.stack(list(parts.values())).sum(), total)
    assert list(dict.fromkeys(name.partition("/")[0] for name in parts)) == list(weights)
    for name, weight in weights.items():
        alone = built(**{name: {}})(student, teacher, masks()).total
        mine = torch.stack([value for part, value in parts.items() if part.partition("/")[0] == name]).sum()
        torch.testing.assert_close(mine, weight * alone)


def test_void_reaches_the_host_of_standardized_and_gives_way_to_what_is_said() -> None:
    student, teacher = sides()
    hosted = built(standardized={"of": "dkd"})(student, teacher, masks()).total
    said = built(standardized={"of": "dkd", "ignore_index": VOID})(student, teacher, masks()).total
    assert torch.equal(hosted, said)
    other = masks().masked_fill(masks() == VOID, 0)
    found = built(cross_entropy={"ignore_index": 0})(student, None, other).total
    expected = F.cross_entropy(by_hand(student.logits, (9, 14)), other, ignore_index=0)
    torch.testing.assert_close(found, expected)
    # what the teacher says counts everywhere, unless it is said otherwise
    everywhere = built(forward_kl={})(student, teacher, torch.full_like(other, VOID)).total
    assert everywhere > 0
    assert built(forward_kl={"ignore_index": VOID})(student, teacher, torch.full_like(other, VOID)).total == 0


@pytest.mark.parametrize("name", ["cross_entropy", "dice", "dkd", "ifvd", "binary_cross_entropy"])
def test_views_that_are_all_void_are_worth_nothing(name: str) -> None:
    student, teacher = sides()
    student = student._replace(features={"@-1": student.logits * 2})
    found, gradient = total_and_gradient(
        built(**{name: {}})(student, teacher, torch.full_like(masks(), VOID)), student.logits
    )
    assert found == 0
    assert (gradient == 0).all()


def test_masks_are_reduced_to_their_nearest_pixels_and_logits_kept_where_they_fit() -> None:
    row = torch.tensor([0, 0, 1, 1, VOID, VOID, 3, 3])
    assert reduced(row.expand(1, 4, 8), (2, 4))[0].tolist() == [[0, 1, VOID, 3]] * 2
    assert reduced(row.expand(1, 4, 8), (2, 4)).dtype == torch.int64
    logits = draw(0, 1, 2, 3, 4).bfloat16()
    assert resample(logits, (3, 4)) is logits
    assert resample(logits, (6, 8)).dtype == torch.float32
    assert resample(logits.double(), (6, 8)).dtype == torch.float64
    torch.testing.assert_close(resample(logits, (6, 8)), by_hand(logits.float(), (6, 8)))


def test_adapters_are_built_from_sides_of_unlike_strides() -> None:
    student, teacher = sides()
    terms = built(fitnet={"student_feature": "@-1", "teacher_feature": "@-1"}, standardized={})
    terms.prepare(student, teacher, samples=10)
    assert terms(student, teacher, masks()).total.isfinite()


def test_what_is_not_dense_is_refused() -> None:
    student, teacher = sides()
    terms = built(cross_entropy={}, forward_kl={})
    whole = Outputs(draw(0, 2, CLASSES))
    for outputs, target in ((student, None), (student, torch.tensor([1, 2])), (whole, masks())):
        with pytest.raises(ObjectiveError, match=r"Dense terms need logits \[N, C, h, w\] and masks \[N, H, W\]"):
            terms(outputs, teacher, target)
    with pytest.raises(ObjectiveError, match="class counts of student and teacher differ"):
        built(forward_kl={})(student, Outputs(draw(1, 2, CLASSES + 1, 4, 6)), masks())
    with pytest.raises(ConfigError, match="Did you mean 'forward_kl'"):
        built(foward_kl={})
    crd = built(crd={})
    crd.prepare(student, teacher, samples=4)
    crd.set_batch(torch.arange(2))
    with pytest.raises(ObjectiveError, match="crd compares whole images"):
        crd(student, teacher, masks())
