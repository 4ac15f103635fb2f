"""The worked example of CONTRIBUTING.md is an objective: registered, tested as all others are, and usable in a run."""

from __future__ import annotations

import itertools
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from counterpoise import config, objectives
from counterpoise.objectives import base
from counterpoise.objectives.composite import WeightedSum
from counterpoise.outputs import Outputs

ROOT = Path(__file__).resolve().parents[1]
NAME = "logit_distance"
PLUGIN = "from counterpoise import objectives\nobjectives.__path__.append({!r})\n"


@pytest.fixture
def example(tmp_path: Path) -> tuple[Path, Path]:
    """The two files that the page has, in a folder of their own."""
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    files = (tmp_path / f"{NAME}.py", tmp_path / f"test_{NAME}.py")
    for file, text in zip(files, re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL), strict=True):
        file.write_text(text)
    return files


def calls(test: Callable[..., None]) -> Iterator[dict[str, Any]]:
    """The arguments of each case of a test that is parametrized by names of objectives, where ours is among them."""
    marks = [mark for mark in getattr(test, "pytestmark", []) if mark.name == "parametrize"]
    if any(mark.args[0] == "name" and NAME in mark.args[1] for mark in marks):
        names = [mark.args[0] for mark in marks]
        cases = itertools.product(*([NAME] if mark.args[0] == "name" else mark.args[1] for mark in marks))
        yield from (dict(zip(names, case, strict=True)) for case in cases)


def test_an_objective_is_one_file_its_test_and_a_line(
    example: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with base.OBJECTIVES.trial():
        monkeypatch.setattr(objectives, "__path__", [*objectives.__path__, str(example[0].parent)])
        assert base.entries()[NAME].year == 2014
        (proof,) = [value for name, value in runpy.run_path(str(example[1])).items() if name.startswith("test_")]
        proof()
        run = config.resolve({"objective": {NAME: {"weight": 2.0}}})
        student, teacher = torch.randn(2, 4, 3)
        terms = WeightedSum(run.objective)(Outputs(student), Outputs(teacher), None)
        torch.testing.assert_close(terms.total, 2 * (student - teacher).square().sum(1).mean())
        tried = 0
        for name, test in runpy.run_path(str(ROOT / "tests" / "objectives" / "test_left_out.py")).items():
            for arguments in calls(test) if name.startswith("test_") else ():
                test(**arguments)
                tried += 1
        assert tried >= 4
    sys.modules.pop(f"counterpoise.objectives.{NAME}", None)


@pytest.mark.slow
def test_all_tests_of_objectives_pass_with_it(example: tuple[Path, Path]) -> None:
    (example[0].parent / "with_the_example.py").write_text(PLUGIN.format(str(example[0].parent)))
    path = os.pathsep.join(filter(None, (str(example[0].parent), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-m", "pytest", "-p", "with_the_example", "-p", "no:cacheprovider", "-k", NAME]
    done = subprocess.run(
        [*command, "tests/objectives", str(example[1])],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert re.search(r"^\.{30,} +\[100%\]$", done.stdout, re.MULTILINE)
