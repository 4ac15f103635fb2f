"""What every objective on logits promises, whatever it says: finite numbers, no gradient to the teacher, a paper."""

from __future__ import annotations

import inspect
import json
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from counterpoise.commands import app
from counterpoise.objectives.base import Objective, entries, means
from counterpoise.objectives.composite import WeightedSum
from counterpoise.outputs import Outputs

ENTRIES = {name: entry for name, entry in entries().items() if "features" not in entry.kind.needs}
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
IGNORED = 255
shapes = st.one_of(
    st.tuples(st.integers(1, 5), st.sampled_from([1, 2, 11])),
    st.tuples(st.integers(1, 2), st.sampled_from([1, 2, 5]), st.integers(1, 3), st.just(2)),
)
every = pytest.mark.parametrize("name", list(ENTRIES))
TAUGHT = [name for name, entry in ENTRIES.items() if "teacher" in entry.kind.needs]
BEYOND_THE_TEACHER = ("pld", "rld", "wkd")
"""What wants another student than one that equals its teacher, by its labels or by its blur; see their own tests."""
taught = pytest.mark.parametrize("name", TAUGHT)


def positions(name: str) -> tuple[int, ...]:
    """What to add to [N, C], where logits must be maps."""
    return (2, 3) if "maps" in ENTRIES[name].kind.needs else ()


def build(name: str, temperature: float | None = None, **arguments: Any) -> Objective:
    """The objective with its defaults, but for `arguments` that it has and any kind of temperature."""
    kind = ENTRIES[name].kind
    parameters = inspect.signature(kind).parameters
    free = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    chosen = {key: value for key, value in arguments.items() if key in parameters or (free and key == "ignore_index")}
    if temperature is not None:
        chosen |= {key: temperature for key in parameters if key == "temperature" or key.endswith("_temperature")}
        chosen |= {key: [temperature, 2 * temperature] for key in parameters if key == "temperatures"}
    return kind(**chosen)


def told(objective: Objective, classes: int) -> Objective:
    """The objective with what it is told of the teacher's last layer, where it is."""
    if "classifier" in objective.needs:
        objective.set_classifier(torch.randn(classes, 6, generator=torch.Generator().manual_seed(classes)))
    return objective


def logits(seed: int, shape: tuple[int, ...], scale: float, dtype: torch.dtype) -> Tensor:
    """At least one logit at +-`scale`, where there is more than one."""
    random = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (random / random.abs().max() * scale).to(dtype)


def labels(seed: int, shape: tuple[int, ...]) -> Tensor:
    return torch.randint(shape[1], shape[:1] + shape[2:], generator=torch.Generator().manual_seed(seed))


def total_and_gradient(
    objective: Objective,
    student: Tensor,
    teacher: Tensor,
    target: Tensor | None,
    weight: Tensor | None = None,
    autocast: bool = False,
) -> tuple[Tensor, Tensor]:
    student = student.detach().requires_grad_()
    teacher = teacher.detach().requires_grad_()
    told(objective, student.shape[1])
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        parts = means(objective.terms(Outputs(student), Outputs(teacher), target, weight))
    assert all(part.shape == () for part in parts.values())
    total = torch.stack(list(parts.values())).sum()
    total.backward()
    assert teacher.grad is None, "the teacher must not learn"
    assert student.grad is not None
    assert student.grad.dtype == student.dtype
    return total.detach(), student.grad


@every
@given(
    seed=st.integers(0, 2**31),
    shape=shapes,
    scale=st.sampled_from((0.0, 1.0, 30.0, 1e4)),
    student_dtype=st.sampled_from(DTYPES),
    teacher_dtype=st.sampled_from(DTYPES),
    temperature=st.one_of(st.sampled_from((0.05, 1.0, 20.0)), st.floats(0.05, 20.0)),
)
@settings(max_examples=60)
def test_loss_and_gradient_are_finite(
    name: str,
    seed: int,
    shape: tuple[int, ...],
    scale: float,
    student_dtype: torch.dtype,
    teacher_dtype: torch.dtype,
    temperature: float,
) -> None:
    shape = shape if len(shape) > 2 else shape + positions(name)
    student = logits(seed, shape, scale, student_dtype)
    teacher = logits(seed + 1, shape, max(scale, 1.0), teacher_dtype)
    total, gradient = total_and_gradient(build(name, temperature), student, teacher, labels(seed, shape))
    assert total.isfinite()
    assert gradient.isfinite().all()


@every
def test_outside_of_a_run_a_term_is_its_objective(name: str) -> None:
    """Terms that warm up were 0 in a loop that tells nothing of progress."""
    shape = (3, 5, *positions(name))
    given = logits(1, shape, 2.0, torch.float32), logits(2, shape, 2.0, torch.float32), labels(3, shape)
    term = WeightedSum({name: {}})
    told(term.objective(name), 5)
    total = term(Outputs(given[0]), Outputs(given[1]), given[2]).total
    torch.testing.assert_close(total, told(build(name), 5)(*given))


@every
@given(
    seed=st.integers(0, 2**31),
    shape=shapes,
    sides=st.sampled_from((("student",), ("teacher",), ("student", "teacher"))),
)
@settings(max_examples=30)
def test_nan_is_seen_in_loss_and_gradient(name: str, seed: int, shape: tuple[int, ...], sides: tuple[str, ...]) -> None:
    """focal_tversky took a student without a number for one that had found everything."""
    if "teacher" not in ENTRIES[name].kind.needs:
        sides = ("student",)
    shape = shape if len(shape) > 2 else shape + positions(name)
    both = {
        side: logits(seed + number, shape, 1.0, torch.float32) for number, side in enumerate(("student", "teacher"))
    }
    for side in sides:
        both[side].view(-1)[seed % both[side].numel()] = torch.nan
    total, gradient = total_and_gradient(build(name), **both, target=labels(seed, shape))
    assert total.isnan()
    assert not gradient.isfinite().all()


@every
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("temperature", [0.05, 20.0])
def test_the_teachers_opposite_at_the_largest_logits_is_finite(
    name: str, dtype: torch.dtype, temperature: float
) -> None:
    student, target = torch.tensor([[1e4, -1e4, -1e4], [-1e4, 1e4, 1e4]], dtype=dtype), torch.tensor([1, 0])
    if positions(name):
        student, target = torch.stack([student, -student], -1), torch.stack([target, 1 - target], -1)
    total, gradient = total_and_gradient(build(name, temperature), student, -student, target)
    assert total.isfinite()
    assert gradient.isfinite().all()


@every
@pytest.mark.parametrize("scale", [1.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_21841_classes_are_not_too_many(name: str, scale: float, dtype: torch.dtype) -> None:
    if name == "wkd":
        pytest.skip("its matrix of classes by classes takes 2 GB")
    shape = (2, 21_841, *positions(name))
    student, teacher = logits(0, shape, scale, dtype), logits(1, shape, scale, dtype)
    total, gradient = total_and_gradient(build(name), student, teacher, labels(0, shape))
    assert total.isfinite()
    assert gradient.isfinite().all()


@every
@pytest.mark.parametrize("shape", [(3, 5), (2, 5, 2, 2)])
def test_all_positions_ignored_is_zero_and_not_nan(name: str, shape: tuple[int, ...]) -> None:
    objective = build(name, ignore_index=IGNORED)
    shape = shape if len(shape) > 2 else shape + positions(name)
    student, teacher = logits(0, shape, 3.0, torch.float32), logits(1, shape, 3.0, torch.float32)
    target = torch.full_like(labels(0, shape), IGNORED)
    total, gradient = total_and_gradient(objective, student, teacher, target)
    assert total == 0
    assert (gradient == 0).all()


@every
@pytest.mark.parametrize("shape", [(6, 5), (2, 5, 2, 3)])
def test_what_stands_at_an_ignored_position_is_not_felt(name: str, shape: tuple[int, ...]) -> None:
    objective = build(name, ignore_index=IGNORED)
    shape = shape if len(shape) > 2 else shape + positions(name)
    student, teacher = logits(0, shape, 3.0, torch.float64), logits(1, shape, 3.0, torch.float64)
    target = labels(0, shape)
    ignored = torch.zeros_like(target, dtype=torch.bool)
    ignored.view(-1)[::3] = True
    target = target.masked_fill(ignored, IGNORED)
    total, gradient = total_and_gradient(objective, student, teacher, target)
    changed = student + ignored.unsqueeze(1) * logits(2, shape, 50.0, torch.float64)
    torch.testing.assert_close(total_and_gradient(objective, changed, teacher, target)[0], total)
    assert (gradient * ignored.unsqueeze(1) == 0).all()
    assert gradient.abs().sum() > 0


@every
def test_a_weight_of_zero_takes_a_sample_out(name: str) -> None:
    shape = (4, 5, *positions(name))
    student, teacher = logits(0, shape, 3.0, torch.float64), logits(1, shape, 3.0, torch.float64)
    target = labels(0, shape)
    weight = torch.tensor([1.0, 0.0, 1.0, 1.0])
    kept = weight > 0
    total, gradient = total_and_gradient(build(name), student, teacher, target, weight)
    torch.testing.assert_close(total, total_and_gradient(build(name), student[kept], teacher[kept], target[kept])[0])
    assert (gradient[1] == 0).all()


@pytest.mark.parametrize("name", [name for name in TAUGHT if name not in BEYOND_THE_TEACHER])
@given(seed=st.integers(0, 2**31), temperature=st.floats(0.3, 20.0), dtype=st.sampled_from(DTYPES[2:]))
@settings(max_examples=15)
def test_gradient_vanishes_where_student_equals_teacher(
    name: str, seed: int, temperature: float, dtype: torch.dtype
) -> None:
    shape = (5, 7, *positions(name))
    teacher = logits(seed, shape, 3.0, dtype)
    # Below gamma 1, ttm and wttm want a student that is flatter than its teacher; epsilon moves the optimum of dist.
    objective = build(name, temperature, gamma=1.0, epsilon=0.0)
    total, gradient = total_and_gradient(objective, teacher, teacher, labels(seed, shape))
    assert total.abs() < 1e-3 * temperature**2
    assert gradient.abs().max() < 1e-4 * max(temperature, temperature**2)


@taught
def test_a_step_against_the_gradient_brings_the_student_closer(name: str) -> None:
    shape = (6, 5, *positions(name))
    student, teacher = logits(0, shape, 3.0, torch.float64), logits(1, shape, 3.0, torch.float64)
    before, gradient = total_and_gradient(build(name), student, teacher, labels(0, shape))
    step = 1e-3 / gradient.norm()
    after, _ = total_and_gradient(build(name), student - step * gradient, teacher, labels(0, shape))
    assert after < before


@every
@pytest.mark.parametrize("dtype", DTYPES[1:3])
def test_narrower_logits_are_computed_as_the_same_numbers_in_float64_are(name: str, dtype: torch.dtype) -> None:
    shape = (6, 5, *positions(name))
    student, teacher = logits(0, shape, 8.0, dtype), logits(1, shape, 8.0, dtype)
    found, gradient = total_and_gradient(build(name), student, teacher, labels(0, shape))
    expected, wanted = total_and_gradient(build(name), student.double(), teacher.double(), labels(0, shape))
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gradient, wanted.to(dtype), rtol=max(1e-4, 2 * torch.finfo(dtype).eps), atol=1e-5)


@every
def test_under_autocast_the_loss_is_the_same(name: str) -> None:
    shape = (6, 5, *positions(name))
    student, teacher = logits(0, shape, 3.0, torch.float32), logits(1, shape, 3.0, torch.float32)
    plain, mixed = (
        total_and_gradient(build(name), student, teacher, labels(0, shape), autocast=on) for on in (False, True)
    )
    torch.testing.assert_close(mixed, plain)


def test_the_list_shows_paper_year_needs_and_defaults_of_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["list", "objectives", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert set(rows) == set(entries())
    published = {"forward_kl", "reverse_kl", "balance", "dkd", "dist", "standardized", "ttm", "wttm", "abkd", "jsd"}
    assert published | {"skewed_forward_kl", "skewed_reverse_kl", "mlkd"} <= set(rows)
    for name, row in rows.items():
        assert row["summary"], name
        assert row["needs"], name
        if name not in ("cross_entropy", "class_weighted"):  # no paper's
            assert row["paper"], name
            assert 2014 <= row["year"] <= 2030, name
    assert rows["dkd"]["needs"] == ["labels", "teacher"]
    assert rows["dkd"]["defaults"]["beta"] == 8.0
    assert rows["standardized"]["defaults"] == {"of": "forward_kl", "temperature": 2.0}
