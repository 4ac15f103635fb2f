"""The demos, with fewer seeds; that of segmentation with less of everything."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

import counterpoise
from counterpoise import config, demos
from counterpoise.commands import app
from counterpoise.demos import digits, drawn_vessels, multilabel, segmentation, vessels
from counterpoise.errors import ConfigError, RunError


@pytest.mark.parametrize("module", [digits, segmentation])
def test_kd_and_balance_carry_equal_weight(module: Any) -> None:
    balance = module.OBJECTIVES["balance"]["balance"]
    total = balance["weight"] * (balance["forward_weight"] + balance["reverse_weight"])
    assert total == module.OBJECTIVES["kd"]["forward_kl"]["weight"] == module.TOTAL_WEIGHT
    labels = [dict(terms) for terms in module.OBJECTIVES.values()]
    labels[1].pop("forward_kl")
    labels[2].pop("balance")
    assert labels[0] == labels[1] == labels[2]


def test_the_demo_compares_and_writes_its_summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    demo = digits.DEMO
    teacher, student = (
        config.merge(values, {"train": {"epochs": epochs}})
        for values, epochs in ((demo.teacher, 12), (demo.student, 3))
    )
    monkeypatch.setitem(demos.DEMOS, "digits", replace(demo, teacher=teacher, student=student))
    summary = counterpoise.demo(out=tmp_path / "demo", seeds=2)
    assert json.loads((tmp_path / "demo" / "summary.json").read_text()) == summary
    assert list(summary) == ["teacher", "alone", "kd", "balance"]
    page = (tmp_path / "demo" / "report.html").read_text(encoding="utf-8")
    assert f"{summary['balance']['top1']['last']['mean']:.1f}%" in page
    for row in summary.values():
        assert list(row) == ["top1", "params", "bytes", "seconds"]
        assert set(row["top1"]) == {"last", "best"}
        assert row["top1"]["best"]["mean"] >= row["top1"]["last"]["mean"] > 20
        assert set(row["top1"]["last"]) == {"mean", "std"}
    assert summary["teacher"]["params"] > 10 * summary["kd"]["params"]
    assert summary["teacher"]["top1"]["last"]["mean"] > 90
    with pytest.raises(RunError, match="--overwrite, or give another --out") as error:
        counterpoise.demo(out=tmp_path / "demo", seeds=2)
    assert "--resume" not in str(error.value)


@pytest.fixture
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo of segmentation on a few small scenes, an epoch a network."""

    def reduced(values: Any) -> dict[str, Any]:
        over = {
            "data": {"options": {"train_size": 24, "val_size": 10, "edge": 32}},
            "train": {"epochs": 1, "batch_size": 8},
        }
        return config.merge(values, over)

    demo = segmentation.DEMO
    small = replace(demo, teacher=reduced(demo.teacher), student=reduced(demo.student))
    monkeypatch.setitem(demos.DEMOS, "segmentation", small)


@pytest.mark.slow
def test_the_demo_of_segmentation_writes_its_summary_and_overlays(
    tmp_path: Path, little: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert app.run(["demo", "segmentation", "--seeds", "2", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    out = tmp_path / "runs" / "demo-segmentation"
    assert json.loads((out / "summary.json").read_text()) == summary
    assert list(summary) == ["teacher", "alone", "kd", "balance"]
    for row in summary.values():
        assert list(row) == ["miou", "params", "bytes", "seconds"]
        for when in ("last", "best"):
            assert set(row["miou"][when]) == {"mean", "std"}
            assert 0 < row["miou"][when]["mean"] < 100
    assert summary["teacher"]["params"] > 10 * summary["kd"]["params"] == 10 * summary["alone"]["params"]
    assert sorted(path.name for path in out.iterdir() if path.name.startswith(("alone", "kd", "balance"))) == [
        f"{kind}-{seed}" for kind in ("alone", "balance", "kd") for seed in (1, 2)
    ]
    run = yaml.safe_load((out / "balance-2" / "run.yaml").read_text())
    assert run["task"] == "segmentation"
    assert run["teacher"]["checkpoint"] == "runs/demo-segmentation/teacher"

    pictures = sorted((out / "overlays").iterdir())
    assert [path.name for path in pictures] == [f"{number}.png" for number in range(1, 9)]
    sheets = [np.asarray(Image.open(path)) for path in pictures]
    panels = ["image", "truth", "teacher", "student alone", "KD", "Balance"]
    assert {sheet.shape[1] for sheet in sheets} == {8 + len(panels) * (192 + 8)}
    image, truth = (sheets[0][20:212, left : left + 192].astype(int) for left in (8, 208))
    assert np.ptp(image) > 50
    assert np.abs(image - truth).max() > 20  # digits are colored in

    with pytest.raises(RunError, match="--overwrite, or give another --out"):
        counterpoise.demo("segmentation", seeds=2)
    before = pictures[0].stat().st_mtime_ns
    assert app.run(["demo", "segmentation", "--seeds", "2", "--overwrite"]) == 0
    printed = capsys.readouterr().out
    assert "mIoU (%)" in printed
    assert "runs/demo-segmentation/overlays" in printed
    assert printed.rstrip().endswith("open runs/demo-segmentation/report.html")
    assert "data-scene" in (out / "report.html").read_text(encoding="utf-8")
    assert pictures[0].stat().st_mtime_ns > before
    again = json.loads((out / "summary.json").read_text())
    assert {kind: row["miou"] for kind, row in again.items()} == {kind: row["miou"] for kind, row in summary.items()}


def test_the_demo_of_several_labels_writes_its_summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    less = {"data": {"options": {"train_size": 64, "val_size": 64}}, "train": {"epochs": 1}}
    small = {
        "teacher": config.merge(multilabel.DEMO.teacher, less),
        "student": config.merge(multilabel.DEMO.student, less),
    }
    monkeypatch.setitem(demos.DEMOS, "multilabel", replace(multilabel.DEMO, **small))
    kd, balance = (multilabel.OBJECTIVES[kind]["binary_balance"] for kind in ("kd", "balance"))
    assert kd["weight"] * kd["forward_weight"] == multilabel.TOTAL_WEIGHT
    assert balance["weight"] * (balance["forward_weight"] + balance["reverse_weight"]) == multilabel.TOTAL_WEIGHT
    summary = counterpoise.demo("multilabel", out=tmp_path, seeds=2)
    assert list(summary) == ["teacher", "alone", "kd", "balance"]
    assert list(summary["kd"]) == ["map", "params", "bytes", "seconds"]
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert all(words in page for words in ("mean average precision", ">KD<", ">Balance<", "All labels"))


def test_an_unknown_demo_is_named_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match=r"Demo 'digit' is unknown\. Did you mean 'digits'"):
        counterpoise.demo("digit")
    assert app.run(["demo", "segmentaton"]) == 2
    assert "Did you mean 'segmentation'" in capsys.readouterr().err


def test_a_single_seed_has_no_deviation() -> None:
    with pytest.raises(ConfigError, match="at least 2, got 1"):
        counterpoise.demo("segmentation", seeds=1)


@pytest.mark.slow
def test_the_demo_of_vessels_holds_each_patient_out_once_with_a_teacher_that_has_not_seen_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    demo = vessels.DEMO
    less = {"data": {"scenes": {"crops": 1}}, "train": {"epochs": 1, "evaluate_every": 1}}
    small = replace(
        demo,
        teacher=config.merge(demo.teacher, less),
        student=config.merge(demo.student, less),
        objectives={kind: demo.objectives[kind] for kind in ("alone", "binary balance")},
        folds=2,
    )
    monkeypatch.setitem(demos.DEMOS, "vessels", small)
    summary = counterpoise.demo("vessels", out=tmp_path / "demo")
    assert list(summary) == ["teacher", "binary teacher", "alone", "binary balance"]
    assert {row["by_case"]["cases"] for row in summary.values()} == {drawn_vessels.PATIENTS}
    run = config.kept(tmp_path / "demo" / "binary-balance-1-fold-2" / "run.yaml")
    assert run.teacher is not None
    assert (run.data.fold, run.teacher.checkpoint) == ("2/2", tmp_path / "demo" / "binary-teacher-fold-2")
    page = (tmp_path / "demo" / "report.html").read_text(encoding="utf-8")
    assert "over 2 folds" in page  # runs of a kind are one method, though each fold has a teacher of its own
    pixels = np.asarray(Image.open(tmp_path / "demo" / "data" / "images" / "patient_01_left.png"))
    assert 255 < pixels.max() <= drawn_vessels.WHITE
