"""What holds for every objective on features."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from counterpoise.config import Term
from counterpoise.errors import ConfigError, ObjectiveError
from counterpoise.objectives.base import entries
from counterpoise.objectives.composite import WeightedSum
from counterpoise.objectives.features import BatchNorm, as_map, laid_out, pool_to_smaller
from counterpoise.outputs import Outputs

NAMES = sorted(name for name, entry in entries().items() if "features" in entry.kind.needs)
SAMPLES = 40
SMALL: dict[str, dict[str, int]] = {
    "crd": {"negatives": 30, "dimension": 8},
    "cirkd": {"pixel_memory": 60, "region_memory": 30, "pixel_contrast": 100, "region_contrast": 40},
}
# Edges of the last stages of student and teacher: equal, whole ratios both ways, neither, and a single position.
EDGES = [(3, 3), (6, 3), (2, 6), (5, 3), (1, 1)]


def outputs(count: int, channels: int, edge: int, dtype: torch.dtype, seed: int, scale: float = 1.0) -> Outputs:
    """Three stages, each of twice the channels and half the edge of the one before."""
    generator = torch.Generator().manual_seed(seed)
    features = {}
    for stage in range(3):
        shape = (count, channels * 2**stage, edge * 2 ** (2 - stage), edge * 2 ** (2 - stage))
        feature = torch.randn(shape, generator=generator, dtype=torch.float64)
        features[f"@{stage - 3}"] = (scale * feature).to(dtype).requires_grad_()
    return Outputs(torch.zeros(count, 10, dtype=dtype), features)


def prepared(name: str, student: Outputs, teacher: Outputs) -> WeightedSum:
    torch.manual_seed(0)
    objective = WeightedSum({name: Term(**SMALL.get(name, {}))})
    objective.prepare(student, teacher, SAMPLES)
    objective.set_progress(1.0)
    objective.set_batch(torch.arange(len(student.logits)))
    return objective


def test_all_are_known() -> None:
    assert NAMES == ["at", "cirkd", "crd", "cwd_feature", "features", "fitnet", "ifvd", "reviewkd", "rkd", "skd"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("edges", EDGES, ids=str)
def test_loss_and_gradient_are_finite_and_only_the_students(
    name: str, dtype: torch.dtype, edges: tuple[int, int]
) -> None:
    for count, scale in ((4, 1.0), (1, 1.0), (2, 0.0), (3, 1e3)):
        student, teacher = outputs(count, 3, edges[0], dtype, 1, scale), outputs(count, 4, edges[1], dtype, 2, scale)
        objective = prepared(name, student, teacher)
        total = objective(student, teacher, torch.arange(count) % 3).total
        assert total.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        total.backward()
        assert total.isfinite()
        gradients = [f.grad for f in student.features.values() if f.grad is not None]
        assert gradients
        assert all(gradient.isfinite().all() for gradient in gradients)
        assert all(p.grad is not None and p.grad.isfinite().all() for p in objective.parameters())
        assert all(feature.grad is None for feature in teacher.features.values())


@pytest.mark.parametrize("name", NAMES)
def test_gradient_is_that_of_the_loss(name: str) -> None:
    student, teacher = (outputs(3, 2, edge, torch.float64, seed) for edge, seed in ((1, 1), (2, 2)))
    objective = prepared(name, student, teacher)
    objective.objective(name).eval()  # the memory of crd stays as it is

    def loss(*features: Tensor) -> Tensor:
        torch.manual_seed(3)
        named = dict(zip(student.features, features, strict=True))
        total: Tensor = objective(Outputs(student.logits, named), teacher, torch.tensor([0, 1, 1])).total
        return total

    loss(*student.features.values())  # what is set by a first batch is set
    assert torch.autograd.gradcheck(loss, tuple(student.features.values()), fast_mode=True)


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"rkd", "cirkd"}))
def test_weight_counts_samples(name: str) -> None:
    student, teacher = outputs(4, 3, 2, torch.float64, 1), outputs(4, 4, 2, torch.float64, 2)
    objective = prepared(name, student, teacher).eval()
    target = torch.tensor([0, 1, 2, 0])
    singles = []
    for weight in (*torch.eye(4), torch.tensor([1.0, 0.0, 0.0, 3.0]), None):
        torch.manual_seed(3)
        singles.append(objective(student, teacher, target, weight).total)
    torch.testing.assert_close(singles[4], (singles[0] + 3 * singles[3]) / 4)
    torch.testing.assert_close(singles[5], torch.stack(singles[:4]).mean())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shapes", [((4, 6), (4, 10)), ((4, 5, 6), (4, 5, 10)), ((4, 6), (4, 10, 3, 3))], ids=str)
def test_vectors_and_tokens_serve_as_features(name: str, shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    keys = ("@-3", "@-2", "@-1")
    student, teacher = (Outputs(torch.zeros(4, 10), {key: torch.randn(shape) for key in keys}) for shape in shapes)
    assert prepared(name, student, teacher)(student, teacher, torch.arange(4)).total.isfinite()


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_feature_is_named(name: str) -> None:
    student, teacher = outputs(4, 3, 2, torch.float32, 1), outputs(4, 4, 2, torch.float32, 2)
    objective = prepared(name, student, teacher)
    bare = Outputs(teacher.logits, {"layer1": torch.zeros(4, 3, 2, 2)})
    with pytest.raises(ObjectiveError, match=r"Teacher feature '@-\d' is unknown.*Available: layer1"):
        objective(student, bare, None)
    with pytest.raises(ObjectiveError, match="needs a teacher's features"):
        objective(student, None, None)
    for count in (2, 6):
        other = outputs(count, 4, 2, torch.float32, 2)
        with pytest.raises(ObjectiveError, match=f"are of 4 and {count} samples"):
            objective(student, other, None)


@pytest.mark.parametrize("name", ["cirkd", "crd", "cwd_feature", "features", "fitnet", "reviewkd"])
def test_unprepared_is_said(name: str) -> None:
    student, teacher = outputs(4, 3, 2, torch.float32, 1), outputs(4, 4, 2, torch.float32, 2)
    with pytest.raises(ObjectiveError, match="call prepare"):
        WeightedSum({name: Term()})(student, teacher, None)


def test_names_come_in_pairs() -> None:
    with pytest.raises(ConfigError, match="2 of the student and 1 of the teacher"):
        WeightedSum({"at": Term(student_features=["@0", "@1"], teacher_features="@0")})
    with pytest.raises(ConfigError, match=r"names of modules, got \[3\]"):
        WeightedSum({"at": Term(student_features=[3], teacher_features=[3])})


def test_a_feature_of_integers_or_five_dimensions_is_refused() -> None:
    for feature in (torch.zeros(2, 3, dtype=torch.int64), torch.zeros(2, 3, 4, 4, 4)):
        with pytest.raises(ObjectiveError, match="a feature must be a map"):
            as_map(feature)


def test_the_larger_map_is_pooled_in_each_direction() -> None:
    wide, high = torch.randn(2, 3, 2, 8), torch.randn(2, 5, 6, 4)
    first, second = pool_to_smaller(wide, high)
    torch.testing.assert_close(first, wide.unflatten(3, (4, 2)).mean(4))
    torch.testing.assert_close(second, high.unflatten(2, (2, 3)).mean(3))


def test_one_vector_is_normalized_by_running_statistics() -> None:
    norm = BatchNorm(5)
    norm(torch.randn(8, 5, 1, 1))
    kept = {name: value.clone() for name, value in norm.state_dict().items()}
    vector = torch.randn(1, 5, 1, 1)
    torch.testing.assert_close(norm(vector), norm.eval()(vector))
    torch.testing.assert_close(dict(norm.state_dict()), kept)


@pytest.mark.parametrize("in_front", [0, 1, 5])
def test_tokens_beside_a_map_are_laid_out_without_those_in_front(in_front: int) -> None:
    places = torch.randn(2, 3, 4, 4)
    tokens = torch.cat([torch.full((2, in_front, 3), 9.0), places.flatten(2).transpose(1, 2)], 1)
    assert laid_out(as_map(tokens)).equal(places)
    student = Outputs(torch.zeros(2, 10), {"@-2": torch.randn(2, 5, 8, 8)})
    values = []
    for feature in (tokens, places):
        teacher = Outputs(student.logits, {"@-2": feature})
        torch.manual_seed(0)
        objective = WeightedSum({"fitnet": Term()})
        objective.prepare(student, teacher, 2)
        values.append(objective(student, teacher, None).total)
    assert values[0] == values[1]


def test_tokens_of_no_square_beside_a_map_are_refused() -> None:
    student, teacher = (
        Outputs(torch.zeros(2, 10), {"@-2": f}) for f in (torch.randn(2, 5, 8, 8), torch.randn(2, 7, 3))
    )
    with pytest.raises(ObjectiveError, match="7 tokens are no square map"):
        WeightedSum({"fitnet": Term()}).prepare(student, teacher, 2)


@pytest.mark.parametrize("grid", [False, True])
def test_one_minus_features_is_the_share_of_variance_that_is_explained(grid: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    mine = torch.randn(500, 6, 2, 2, generator=generator, dtype=torch.float64)
    told = torch.einsum("nchw,dc->ndhw", mine, torch.randn(4, 6, generator=generator, dtype=torch.float64))
    noise = told.std() * torch.randn(told.shape, generator=generator, dtype=torch.float64)
    teacher = 7 + torch.tensor([1.0, 10.0, 0.1, 3.0])[:, None, None] * (told + noise)
    student = Outputs(torch.zeros(500, 10), {"@-1": mine})
    objective = WeightedSum({"features": Term(grid=grid)})
    objective.prepare(student, Outputs(torch.zeros(500, 10), {"@-1": teacher}), 500)
    optimizer = torch.optim.LBFGS(objective.parameters(), max_iter=60, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        total: Tensor = objective(student, Outputs(student.logits, {"@-1": teacher}), None).total
        total.backward()
        return total

    optimizer.step(closure)
    values = [value.mean((2, 3), keepdim=True) if not grid else value for value in (mine, teacher)]
    flat, wanted = (value.permute(0, 2, 3, 1).flatten(0, 2) for value in values)
    flat = torch.cat([flat, torch.ones(len(flat), 1, dtype=flat.dtype)], 1)
    left = wanted - flat @ torch.linalg.lstsq(flat, wanted).solution
    share = float((left.var(0) / wanted.var(0)).mean())
    assert float(closure()) == pytest.approx(share, abs=1e-3)
    assert 0.2 < share < 0.8
