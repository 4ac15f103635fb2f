"""What a user imports: every command as a function, every objective as a class, and nothing heavy before it is used."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
import textwrap

import pytest
import torch

import counterpoise
from counterpoise import objectives
from counterpoise.commands import answers, flags, pages, store
from counterpoise.commands.app import app
from counterpoise.config import Term
from counterpoise.config.section import Section
from counterpoise.errors import ConfigError
from counterpoise.objectives.base import entries
from counterpoise.outputs import Outputs


def test_every_command_is_a_function_of_the_same_name() -> None:
    verbs = {verb for verb in app if not verb.startswith("-")} - {"store"}  # a group, whose verbs are in a module
    functions = {
        name.rstrip("_"): function
        for name in counterpoise.__all__
        if inspect.isfunction(function := getattr(counterpoise, name))
    }
    beside = {"balance_divergence", "load_student", "objective"}
    assert verbs == functions.keys() - beside
    assert all(functions[verb].__name__.rstrip("_") == verb for verb in verbs)
    assert {verb for verb in app["store"] if not verb.startswith("-")} == set(counterpoise.store.__all__) - {"Damage"}


@pytest.mark.parametrize(
    ("verb", "section"),
    [
        ("evaluate", answers.Evaluate),
        ("gauge", answers.Gauge),
        ("predict", answers.Predict),
        ("record", store.Record),
        ("report", pages.Report),
    ],
)
def test_the_help_of_a_flag_tells_the_default_that_the_function_has(verb: str, section: type[flags.Flags]) -> None:
    parameters = inspect.signature(getattr(counterpoise, verb)).parameters
    for name, field in section.model_fields.items():
        if not field.is_required():
            assert field.default == (parameters[name].default or field.default)


def test_type_checkers_see_which_options_may_be_left_out() -> None:
    """They know a default by its keyword alone: `Field(None)` made every option one that must be given."""
    faces = [*vars(counterpoise.store).values(), *(getattr(counterpoise, name) for name in counterpoise.__all__)]
    sections = set()
    for face in filter(inspect.isfunction, faces):
        while face is not None:  # through what else is wrapped around it
            kind = inspect.getclosurevars(face).nonlocals.get("kind", Section)
            sections |= {each for each in kind.__mro__ if issubclass(each, Section)} - {Section}
            face = getattr(face, "__wrapped__", None)
    assert {"Evaluate", "Export", "FitOptions", "Record", "Report"} <= {section.__name__ for section in sections}
    for section in sections:
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(section))).body
        assert isinstance(body, ast.ClassDef)
        for field in body.body:
            if isinstance(field, ast.AnnAssign) and isinstance(field.value, ast.Call):
                assert not field.value.args, f"{section.__name__}: {ast.unparse(field)}"


def test_every_exported_name_is_there() -> None:
    assert {name: hasattr(counterpoise, name) for name in counterpoise.__all__} == dict.fromkeys(
        counterpoise.__all__, True
    )
    with pytest.raises(AttributeError, match="nothing"):
        _ = counterpoise.nothing


def test_every_objective_can_be_imported_by_the_name_of_its_class() -> None:
    kinds = [entry.kind for entry in entries().values()]
    assert all(getattr(objectives, kind.__name__) is kind for kind in kinds)
    assert {kind.__name__ for kind in kinds} | set(objectives.__all__) <= set(dir(objectives))
    assert not hasattr(objectives, "Nothing")


def test_the_face_waits_for_nothing_heavy() -> None:
    script = "import sys, counterpoise, counterpoise.objectives; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=True, capture_output=True).stdout == b"False\n"


def test_an_objective_is_built_by_its_registered_name() -> None:
    built = counterpoise.objective("dkd", alpha=2, beta="5e-1")
    assert (type(built).__name__, built.alpha, built.beta) == ("DecoupledDistillation", 2.0, 0.5)


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("dkdd", {}, "Objective 'dkdd' is unknown. Did you mean 'dkd'?"),
        ("dkd", {"alhpa": 1.0}, "objective.dkd.alhpa: Argument 'alhpa' is unknown. Did you mean 'alpha'?"),
        ("dkd", {"weight": 2.0}, "Argument 'weight' is unknown"),
        ("dkd", {"alpha": "much"}, "objective.dkd.alpha: expected float, got 'much'"),
        ("dkd", {"alpha": {"start": 0, "end": 1}}, "a schedule moves in a WeightedSum"),
    ],
)
def test_what_is_no_objective_is_refused_with_the_nearest(name: str, arguments: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError) as refused:
        counterpoise.objective(name, **arguments)
    assert told in str(refused.value)


def test_a_weighted_sum_takes_terms_as_run_files_have_them() -> None:
    student, teacher = (Outputs(logits) for logits in torch.randn(2, 4, 10))
    target = torch.arange(4)
    plain = counterpoise.WeightedSum(
        {"balance": {"weight": 2}, "labels": {"objective": "cross_entropy"}, "dkd": Term()}
    )
    terms = {"balance": Term(weight=2.0), "labels": Term(objective="cross_entropy"), "dkd": Term()}
    total, parts = counterpoise.WeightedSum(terms)(student, teacher, target)
    assert list(plain(student, teacher, target).parts) == list(parts)
    torch.testing.assert_close(plain(student, teacher, target).total, total)
    with pytest.raises(ConfigError, match=r"objective\.balance\.weight"):
        counterpoise.WeightedSum({"balance": {"weight": "much"}})
