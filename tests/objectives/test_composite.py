"""Terms with weights and schedules, as a run file lists them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from counterpoise.config import Schedule, Term
from counterpoise.errors import ConfigError
from counterpoise.objectives.base import Objective, entries
from counterpoise.objectives.composite import WeightedSum, described
from counterpoise.objectives.targets import Sum
from counterpoise.objectives.views import InParts
from counterpoise.outputs import Outputs
from counterpoise.system import own_code

STUDENT = Outputs(torch.randn(6, 10, generator=torch.Generator().manual_seed(0)))
TEACHER = Outputs(torch.randn(6, 10, generator=torch.Generator().manual_seed(1)))
TARGET = torch.tensor([0, 1, 2, 3, -1, -1])


def test_total_is_the_weighted_sum_of_named_parts() -> None:
    objective = WeightedSum({"cross_entropy": Term(weight=0.1), "balance": Term(weight=2.0, reverse_weight=0.5)})
    total, parts = objective(STUDENT, TEACHER, TARGET)
    assert list(parts) == ["cross_entropy", "balance/forward", "balance/reverse"]
    torch.testing.assert_close(total, sum(parts.values()))
    torch.testing.assert_close(parts["cross_entropy"], 0.1 * F.cross_entropy(STUDENT.logits[:4], TARGET[:4]))


def test_a_term_may_be_named_freely_and_used_twice() -> None:
    objective = WeightedSum(
        {"soft": Term(objective="forward_kl", temperature=4), "sharp": Term(objective="forward_kl", temperature=1)}
    )
    _, parts = objective(STUDENT, TEACHER, TARGET)
    p, q = (TEACHER.logits / 4).softmax(1), (STUDENT.logits / 4).log_softmax(1)
    torch.testing.assert_close(parts["soft"], 16 * F.kl_div(q, p, reduction="batchmean"))
    assert parts["sharp"] != parts["soft"]


def test_forward_and_reverse_terms_make_balance() -> None:
    single = WeightedSum(
        {"forward_kl": Term(weight=0.7, temperature=3), "reverse_kl": Term(weight=0.3, temperature=1.5)}
    )
    balance = WeightedSum(
        {"balance": Term(forward_weight=0.7, reverse_weight=0.3, forward_temperature=3, reverse_temperature=1.5)}
    )
    torch.testing.assert_close(single(STUDENT, TEACHER, TARGET).total, balance(STUDENT, TEACHER, TARGET).total)


@pytest.mark.parametrize(("shape", "middle"), [("constant", 4.0), ("linear", 2.5), ("cosine", 2.5)])
def test_weight_and_temperature_follow_a_schedule(shape: str, middle: float) -> None:
    moving = {"shape": shape, "start": 4.0, "end": 1.0}
    objective = WeightedSum({"balance": Term(weight=Schedule(**moving), forward_temperature=moving)})
    for progress, value in ((0.0, 4.0), (0.5, middle), (1.0, 4.0 if shape == "constant" else 1.0)):
        objective.set_progress(progress)
        assert objective.moving() == pytest.approx({"balance.weight": value, "balance.forward_temperature": value})
        fixed = WeightedSum({"balance": Term(weight=value, forward_temperature=value)})
        torch.testing.assert_close(objective(STUDENT, TEACHER, TARGET).total, fixed(STUDENT, TEACHER, TARGET).total)


def test_cosine_is_slow_at_both_ends() -> None:
    objective = WeightedSum({"forward_kl": Term(weight=Schedule(shape="cosine", start=0.0, end=1.0))})
    objective.set_progress(0.25)
    assert 0.1 < objective.weights["forward_kl"] < 0.2


def test_probabilities_as_target_count_only_rows_with_mass() -> None:
    target = F.one_hot(TARGET.clamp(min=0), 10).float() * (TARGET >= 0)[:, None]
    objective = WeightedSum({"cross_entropy": Term()})
    torch.testing.assert_close(objective(STUDENT, None, target).total, objective(STUDENT, None, TARGET).total)
    assert objective(STUDENT, None, torch.zeros(6, 10)).total == 0


@pytest.mark.parametrize(
    ("term", "message"),
    [
        ({"balanse": Term()}, "Did you mean 'balance'"),
        ({"balance": Term(forward_temprature=2.0)}, "Did you mean 'forward_temperature'"),
        ({"balance": Term(forward_temperature="hot")}, "expected float, got 'hot'"),
        ({"balance": Term(forward_temperature=0.0)}, "must be above 0"),
        ({"balance": Term(forward_temperature={"shape": "linear", "start": 4.0, "end": -1.0})}, "must be above 0"),
        ({"balance": Term(forward_temperature={"shape": "wavy", "start": 4.0, "end": 1.0})}, "linear"),
        ({"balance": Term(rule={"start": 1.0})}, "only a number may follow a schedule"),
        ({"balance": Term(ignore_index="foo")}, "balance.ignore_index: expected int or null, got 'foo'"),
        ({"balance": Term(reduction="most")}, "expected 'mean' or 'sum' or 'none', got 'most'"),
        ({"balance": Term(forward_temperature=True)}, "expected float, got True"),
        ({"balance": Term(weight=1.0, forward_temperature={"start": 1.0})}, "a linear schedule needs 'end'"),
        ({"type": Term(objective="forward_kl")}, "cannot be called 'type'"),
        ({"mine": Term(objective="nowhere.py:Mine")}, "does not exist"),
    ],
)
def test_mistakes_are_named_with_the_nearest_choice(term: dict[str, Term], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        WeightedSum(term)


def test_a_float_may_be_an_integer_or_text_that_yaml_takes_for_none() -> None:
    for given in (5, "50e-1"):
        term = Term(forward_temperature=given, rule_arguments=None)
        plain = WeightedSum({"balance": Term(forward_temperature=5.0)})
        assert WeightedSum({"balance": term})(STUDENT, TEACHER, TARGET).total == plain(STUDENT, TEACHER, TARGET).total
    wrapped = WeightedSum({"standardized": Term(of="balance", reverse_weight="2e-1")})
    fixed = WeightedSum({"standardized": Term(of="balance", reverse_weight=0.2)})
    assert wrapped(STUDENT, TEACHER, TARGET).total == fixed(STUDENT, TEACHER, TARGET).total


@pytest.mark.parametrize("text", ["x = 1 / 0", "def (", "import nothing_of_this_name"])
def test_a_file_that_cannot_be_imported_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "mine.py").write_text(text)
    own_code.name(f"{tmp_path}/mine.py:Mine")
    with pytest.raises(ConfigError, match=r"mine\.py cannot be imported: (ZeroDivision|Syntax|ModuleNotFound)Error"):
        WeightedSum({"mine": Term(objective=f"{tmp_path}/mine.py:Mine")})


def test_an_objective_of_ones_own_is_a_class_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from counterpoise.objectives.base import LogitObjective\n\n\n"
        "class Distance(LogitObjective):\n"
        '    """Squared distance of logits."""\n\n'
        "    def values(self, student_logits, teacher_logits, target):\n"
        '        return {"": (student_logits - teacher_logits).square().mean(1)}\n'
    )
    own_code.name(f"{file}:Distance")
    objective = WeightedSum({"mine": Term(objective=f"{file}:Distance", weight=3.0)})
    expected = 3 * F.mse_loss(STUDENT.logits, TEACHER.logits)
    torch.testing.assert_close(objective(STUDENT, TEACHER, None).total, expected)
    with pytest.raises(ConfigError, match="Did you mean 'Distance'"):
        WeightedSum({"mine": Term(objective=f"{file}:Distence")})


@pytest.mark.parametrize("name", ["terms", "parts", "sums"])  # the latter two as they were called before
def test_terms_of_ones_own_are_scalars_or_sums(name: str) -> None:
    squares = (STUDENT.logits - TEACHER.logits).square()
    term = Sum(squares.sum(), squares.numel()) if name == "sums" else squares.mean()
    kind = type("Mine", (Objective,), {name: lambda self, student, teacher, target, weight=None: {"": term}})
    assert kind()(STUDENT.logits, TEACHER.logits) == squares.mean()


@pytest.mark.parametrize("name", sorted(entries()))
def test_every_objective_has_a_summary_and_finite_defaults(name: str) -> None:
    entry = entries()[name]
    assert entry.summary
    if "features" in entry.kind.needs:
        return  # tests/objectives/test_features.py
    shape = (6, 10, 1, 1) if "maps" in entry.kind.needs else (6, 10)
    student, teacher = (Outputs(side.logits.view(shape)) for side in (STUDENT, TEACHER))
    total = WeightedSum({name: Term()})
    total.set_classifier(torch.eye(10) + 0.1)
    assert total(student, teacher, TARGET.view(6, *shape[2:])).total.isfinite()


def test_a_schedule_reaches_the_host_of_a_wrapper() -> None:
    moving = {"shape": "linear", "start": 1.0, "end": 3.0}
    objective = WeightedSum({"standardized": Term(of="balance", reverse_weight=moving)})
    objective.set_progress(0.5)
    fixed = WeightedSum({"standardized": Term(of="balance", reverse_weight=2.0)})
    torch.testing.assert_close(objective(STUDENT, TEACHER, TARGET).total, fixed(STUDENT, TEACHER, TARGET).total)


def test_the_terms_of_a_run_are_told_on_one_line() -> None:
    terms = {"cross_entropy": Term(weight=0.5), "balance": Term(weight=2.0, forward_temperature=4.0)}
    assert described(terms) == "0.5 x cross_entropy + 2 x balance (forward_temperature 4.0)"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_parts_of_half_precision_count_each_position(dtype: torch.dtype) -> None:
    logits, masks = torch.zeros(2, 2, 300, 300, dtype=dtype), torch.zeros(2, 300, 300, dtype=torch.int64)
    masks[:, 0] = 255
    objective = WeightedSum({"cross_entropy": Term(ignore_index=255)})
    plan = InParts([masks[1:]])
    totals = [objective(Outputs(logits[i : i + 1]), None, masks[i : i + 1], batch=plan).total for i in range(2)]
    assert plan.divisors["cross_entropy"][""] == 2 * 299 * 300  # half precision ends, or rounds, before that
    assert float(totals[0] + totals[1]) == pytest.approx(math.log(2), rel=1e-3)
