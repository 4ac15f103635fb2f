"""Every code block of README and docs, run in their order, in a folder that holds what they speak of."""

from __future__ import annotations

import contextlib
import csv
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from PIL import Image

from counterpoise import config, tasks
from counterpoise.data import sources
from counterpoise.data.sources import ArraySet
from counterpoise.objectives.base import entries
from counterpoise.system import own_code

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LARGE, SMALL = "resnet50", "test_resnet"
"""A network of timm in the pages, and what stands for it here: of the same family, asked for alike, but quick."""
MOBILE, SMALL_MOBILE = "mobilenetv3_small_100", "test_efficientnet"
"""The same of students."""
STAND_INS = {
    f"timm/{LARGE}": f"timm/{SMALL}",
    f"timm/{MOBILE}": f"timm/{SMALL_MOBILE}",
    "smp/unet:resnet34": f"smp/unet:tu-{SMALL}",
    "timm/resnet18 --student.input_size 96": f"timm/{SMALL} --student.input_size 32",
    "--student.input_size 96": "--student.input_size 32",
    "--train.epochs 10 --out runs/photos-teacher": "--train.epochs 1 --out runs/photos-teacher",
    "--train.epochs 20 --out runs/photos-student": "--train.epochs 1 --out runs/photos-student",
    "--train.batch_size 16 --train.optimizer": "--train.batch_size 64 --train.optimizer",
    "--threads 1 --batch 1": "--threads 1 --batch 1 --rounds 6 --seconds 0.01",  # of calls in a turn, for 0.2
    "--rounds 6 --out runs/fit": "--rounds 6 --seconds 0.01 --out runs/fit",
}
"""What the pages say, and what is run for it: the same commands, of less."""
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="session")
def workspace(
    tmp_path_factory: pytest.TempPathFactory,
    make_picture: Callable[..., Image.Image],
    word_model: Callable[[str], Path],
) -> Path:
    """photos/{train,val}/CLASS/NN.png, and teacher.safetensors, what stands for a timm/resnet50, for their classes.

    Beside them scenes, photos without labels in album, and clip, a network that takes words.
    """
    from safetensors.torch import save_file

    from counterpoise.system import torchvision_guard

    torchvision_guard.ready()
    import timm

    folder = tmp_path_factory.mktemp("workspace")
    for half, count in (("train", 2), ("val", 2)):
        for shape in ("circle", "square"):
            (folder / "photos" / half / shape).mkdir(parents=True)
            for number in range(count):
                picture = make_picture(shape, number + 10 * (half == "val"), (96, 80))
                picture.save(folder / "photos" / half / shape / f"{number:02d}.png")
    (folder / "album").mkdir()
    for number in range(8):
        make_picture("circle", 20 + number, (64, 64)).save(folder / "album" / f"{number}.png")
    shutil.copytree(word_model("clip"), folder / "clip")
    (folder / "scenes").mkdir()
    (folder / "scenes" / "classes.txt").write_text("ground\nthing\n")
    for half, count in (("train", 4), ("val", 2)):
        for kind in ("images", "masks"):
            (folder / "scenes" / kind / half).mkdir(parents=True)
        for number in range(count):
            mask = np.zeros((48, 64), dtype=np.uint8)
            mask[8 + number : 30, 10 : 40 + number] = 1
            Image.fromarray(mask).save(folder / "scenes" / "masks" / half / f"{number}.png")
            Image.fromarray(np.stack([60 + 120 * mask] * 3, 2)).save(
                folder / "scenes" / "images" / half / f"{number}.png"
            )
    for number in range(6):
        values = np.full((24, 24, 3), -90 + 40 * number, np.int16)
        labels = np.zeros((24, 24, 3), np.uint8)
        labels[6:12, 6:14] = 1
        for name, volume in (("imagesTr/patient{}_a_0000", values), ("labelsTr/patient{}_a", labels)):
            path = folder / "organs" / f"{name.format(number)}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), path)
    (folder / "organs" / "dataset.json").write_text('{"labels": {"background": 0, "liver": 1}}')
    torch.manual_seed(0)
    assert timm.is_model(LARGE)
    assert timm.is_model(MOBILE)
    save_file(timm.create_model(SMALL, num_classes=2).state_dict(), folder / "teacher.safetensors")
    return folder


@pytest.fixture(scope="session")
def commands(tmp_path_factory: pytest.TempPathFactory, program: list[str]) -> Path:
    """A folder for PATH whose `counterpoise` is the real one, but imported before."""
    folder = tmp_path_factory.mktemp("bin")
    script = folder / "counterpoise"
    script.write_text(f'#!/bin/sh\nexec {shlex.join(program)} "$@"\n')
    script.chmod(0o755)
    return folder


def run_bash(code: str, folder: Path, commands: Path) -> None:
    code = re.sub(r"^make (\S+)", rf"make --dry-run -C {ROOT} \1", code, flags=re.MULTILINE)
    environment = {**os.environ, "PATH": f"{commands}:{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", code],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout


def run_python(code: str, folder: Path, commands: Path) -> None:
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
        if loop["student_logits"].grad is None:
            loop["loss"].backward()
        assert loop["student_logits"].grad.isfinite().all()


def run_yaml(code: str, folder: Path, commands: Path) -> None:
    with contextlib.chdir(folder):
        run = config.resolve(yaml.safe_load(code))
        own_code.name(run)  # as the run file that the command was given
        images = ArraySet(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), torch.zeros(1), ["a"])
        named = run.data.path is not None or run.data.source != "auto"
        tasks.get(run.task).objective(run, sources.load(run.data).train if named else images)


RUNNERS = {"bash": run_bash, "python": run_python, "yaml": run_yaml}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_runs(page: Path, workspace: Path, commands: Path) -> None:
    if page.name == "scaling.md":
        pytest.skip("its blocks are for two machines: test_docs_scaling.py runs them")
    if page.name == "integrations.md":
        pytest.skip("its blocks are whole scripts of other tools: test_docs_integrations.py runs them")
    blocks = BLOCK.findall(page.read_text(encoding="utf-8"))
    for language, code in blocks:
        assert language in RUNNERS, f"{page.name}: a block is marked '{language}', which no test can run"
        for said, run in STAND_INS.items():
            code = code.replace(said, run)
        RUNNERS[language](code, workspace, commands)
    if page.name == "README.md":
        assert {language for language, _ in blocks} == set(RUNNERS)


@pytest.mark.parametrize("said", STAND_INS)
def test_what_is_stood_in_for_is_in_the_pages(said: str) -> None:
    assert any(said in page.read_text(encoding="utf-8") for page in PAGES)


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_a_page_begins_with_what_one_can_do_after_it() -> None:
    for page in PAGES[1:]:
        assert re.match(r"# .+\n\nAfter this page ", page.read_text(encoding="utf-8")), page.name


def test_the_objectives_of_the_docs_are_those_of_the_registry() -> None:
    """What is not in the table is in `counterpoise list objectives`, which the page names."""
    page = (ROOT / "docs" / "objectives.md").read_text(encoding="utf-8")
    table = page[page.index("| `cross_entropy` |") :].split("\n\n")[0]
    named = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    assert len(named) > 15
    assert set(named) <= entries().keys()
    assert "counterpoise list objectives" in page


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
