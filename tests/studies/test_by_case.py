"""Methods compared by scores over cases, and case by case where there is one seed."""

from __future__ import annotations

import csv
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from scipy import stats

from counterpoise.engine.case_files import of_cases
from counterpoise.errors import ConfigError
from counterpoise.pages.report.answer import between, evidence
from counterpoise.pages.report.methods import group, main
from counterpoise.pages.report.reading import read
from counterpoise.studies import plan, report, results, running
from counterpoise.studies.standing import Present
from counterpoise.studies.summary import summarize

RUN = {
    "task": "segmentation",
    "data": {
        "source": "digit_scenes",
        "options": {"train_size": 8, "val_size": 5, "edge": 24},
        "workers": 0,
    },
    "student": {"model": "digits/unet_4_8"},
    "train": {
        "epochs": 3,
        "optimizer": {"name": "adamw", "learning_rate": 0.05},
        "batch_size": 4,
        "precision": "fp32",
        "device": "cpu",
    },
}
METHODS = {
    "plain": {"objective": {"cross_entropy": {}}},
    "weighted": {"objective": {"cross_entropy": {"class_weight": [0.0] + 10 * [1.0]}}},
}


def values(**given: Any) -> dict[str, Any]:
    return {"out": "compared", "run": RUN, "methods": METHODS, "seeds": 1, "baseline": "plain", **given}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_one_seed_is_compared_case_by_case(tmp_path: Path) -> None:
    found = plan.resolve(values(metric="case_dice:background", out=str(tmp_path / "compared")), "file", tmp_path)
    assert [running.work(job, None).kind for job in found.jobs] == ["done", "done"]
    told = results.gather(found.jobs, [], found.metric)
    summed = summarize(found, told, False, Present())
    folders = [job.folder for job in found.jobs]
    plain, weighted = ([*of_cases(folder, found.metric).values()] for folder in folders)
    assert len(plain) == 5
    assert [float(row["last"]) for row in told] == pytest.approx([fmean(plain), fmean(weighted)])
    (line,) = summed.differences
    expected = stats.ttest_rel(weighted, plain)
    assert (line["n"], line["over"]) == (5, "cases")
    assert line["difference"] == pytest.approx(fmean(weighted) - fmean(plain))
    assert line["p"] == pytest.approx(expected.pvalue)
    assert line["verdict"].endswith(", over cases of one seed")
    page = report.markdown(summed)
    assert "| 5 cases |" in page
    assert "paired case by case on the val images, since there is one seed" in page
    methods = group([read(folder) for folder in folders])
    (row,) = between(methods, main(methods), "miou")
    sign = 1 if row["one"] == main(methods).name and "weighted" in str(main(methods).runs[0].folder) else -1
    assert (row["n"], row["over"], row["of"]) == (5, "cases", "mean Dice of background by case")
    assert (row["mean"], row["p"]) == (pytest.approx(sign * line["difference"]), pytest.approx(line["p"]))
    assert evidence([row])[0].count("by case") == 1
    assert row["verdict"].endswith(", over cases of one seed")
    # of the mean over classes, each case has that of the classes that it has a score of
    by_class = [row for row in rows(folders[0] / "cases.csv") if row["level"] == "case"]
    first = [float(row["dice"]) for row in by_class if row["case"] == by_class[0]["case"] and row["dice"]]
    assert next(iter(of_cases(folders[0], "case_dice").values())) == pytest.approx(fmean(first))
    assert of_cases(folders[0], "dice") == of_cases(folders[0], "miou") == of_cases(tmp_path, "case_dice") == {}


def test_a_metric_is_told_by_the_runs_that_are_compared_by_it() -> None:
    found = plan.resolve(values(metric="hd95"), "file", Path())
    assert {job.run.train.scores for job in found.jobs} == {("hd95",)}
    asked = {**RUN, "train": {**RUN["train"], "scores": ["case_dice"]}}  # type: ignore[dict-item]
    found = plan.resolve(values(metric="case_dice", run=asked), "file", Path())
    assert {job.run.train.scores for job in found.jobs} == {("case_dice",)}
    assert {job.run.train.scores for job in plan.resolve(values(), "file", Path()).jobs} == {()}
    with pytest.raises(ConfigError, match=r"metric in the file: .*Did you mean 'case_dice'"):
        plan.resolve(values(metric="case_dise"), "file", Path())
    with pytest.raises(ConfigError, match="keeps what is largest"):
        plan.metric_of(found.jobs[0].run, "hd95", "file", largest=True)
