"""Every code block of README and docs, run in their order, in a folder that holds what they speak of."""

from __future__ import annotations

import contextlib
import csv
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml
from PIL import Image

from counterpoise import config
from counterpoise.objectives.base import entries
from counterpoise.objectives.composite import WeightedSum

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, make_picture: Callable[..., Image.Image]) -> Path:
    """photos/{train,val}/CLASS/NN.png, and teacher.safetensors, a timm/resnet50 for their classes."""
    from safetensors.torch import save_file

    from counterpoise.models import guard

    guard.ready()
    import timm

    folder = tmp_path_factory.mktemp("workspace")
    for half, count in (("train", 3), ("val", 2)):
        for shape in ("circle", "square"):
            (folder / "photos" / half / shape).mkdir(parents=True)
            for number in range(count):
                picture = make_picture(shape, number + 10 * (half == "val"), (96, 80))
                picture.save(folder / "photos" / half / shape / f"{number:02d}.png")
    torch.manual_seed(0)
    save_file(timm.create_model("resnet50", num_classes=2).state_dict(), folder / "teacher.safetensors")
    return folder


def run_bash(code: str, folder: Path) -> None:
    code = re.sub(r"^make (\S+)", rf"make --dry-run -C {ROOT} \1", code, flags=re.MULTILINE)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "2"}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", code],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout


def run_python(code: str, folder: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    loop: dict[str, Any] = {  # what a block about the loss alone finds in its reader's loop
        "cross_entropy": F.cross_entropy,
        "student_logits": torch.randn(8, 10, generator=generator, requires_grad=True),
        "teacher_logits": torch.randn(8, 10, generator=generator),
        "target": torch.arange(8),
    }
    with contextlib.chdir(folder):
        exec(compile(code, "block", "exec"), loop)
    if "loss" in loop:
        loop["loss"].backward()
        assert loop["student_logits"].grad.isfinite().all()


def run_yaml(code: str, folder: Path) -> None:
    with contextlib.chdir(folder):
        WeightedSum(config.resolve(yaml.safe_load(code)).objective)


RUNNERS = {"bash": run_bash, "python": run_python, "yaml": run_yaml}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_runs(page: Path, workspace: Path) -> None:
    blocks = BLOCK.findall(page.read_text(encoding="utf-8"))
    for language, code in blocks:
        assert language in RUNNERS, f"{page.name}: a block is marked '{language}', which no test can run"
        RUNNERS[language](code, workspace)
    if page.name == "README.md":
        assert {language for language, _ in blocks} == set(RUNNERS)


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_objective_is_in_the_docs() -> None:
    page = (ROOT / "docs" / "objectives.md").read_text(encoding="utf-8")
    assert [name for name in entries() if f"`{name}`" not in page] == []


def test_the_table_on_digits_is_that_of_its_csv() -> None:
    page = (ROOT / "docs" / "objectives.md").read_text(encoding="utf-8")
    shown = {
        row[0]: row[1:] for row in re.findall(r"^\| ([^|]+) \| ([\d.]+ ± [\d.]+) \| ([\d.]+ ± [\d.]+) \|$", page, re.M)
    }
    runs: dict[str, list[dict[str, str]]] = {}
    with (ROOT / "benchmarks" / "results" / "digits-objectives.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            runs.setdefault(row["method"], []).append(row)
    for method, rows in runs.items():
        columns = [[float(row[name]) for row in rows] for name in ("top1_last", "top1_best")]
        assert shown.pop(method) == tuple(f"{fmean(c):.1f} ± {stdev(c):.1f}" for c in columns)
    assert not shown
