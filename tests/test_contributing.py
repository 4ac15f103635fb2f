"""The worked example of CONTRIBUTING.md is an objective: registered, tested, and usable in a run."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch

from counterpoise import config, objectives
from counterpoise.objectives import base
from counterpoise.objectives.composite import WeightedSum
from counterpoise.outputs import Outputs

ROOT = Path(__file__).resolve().parents[1]


def test_an_objective_is_one_file_its_test_and_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    method, test = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "logit_distance.py").write_text(method)
    with base.OBJECTIVES.trial():
        monkeypatch.setattr(objectives, "__path__", [*objectives.__path__, str(tmp_path)])
        assert base.entries()["logit_distance"].year == 2014
        space: dict[str, object] = {}
        exec(compile(test, "example", "exec"), space)
        (proof,) = [value for name, value in space.items() if name.startswith("test_")]
        assert callable(proof)
        proof()
        run = config.resolve({"objective": {"logit_distance": {"weight": 2.0}}})
        student, teacher = torch.randn(2, 4, 3)
        terms = WeightedSum(run.objective)(Outputs(student), Outputs(teacher), None)
        torch.testing.assert_close(terms.total, 2 * (student - teacher).square().mean())
    sys.modules.pop("counterpoise.objectives.logit_distance", None)
