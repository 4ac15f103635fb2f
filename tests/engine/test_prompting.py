"""Runs whose teacher answers by words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import counterpoise
from counterpoise.engine import prompting
from counterpoise.errors import ConfigError, CounterpoiseError
from counterpoise.models import catalog
from counterpoise.system import torchvision_guard

torchvision_guard.ready()
pytest.importorskip("transformers", reason="needs the extra hf")
WordModel = Callable[[str], Path]


@pytest.fixture
def values(image_folder: Path, word_model: WordModel, tmp_path: Path) -> dict[str, Any]:
    """A run on labeled pictures of shapes whose teacher reads their names, in another order than the folders."""
    (tmp_path / "classes.yaml").write_text("[stripes, circle, square]")
    return {
        "data": {"path": image_folder, "size": 16, "workers": 0},
        "teacher": {
            "model": f"hf/{word_model('clip')}",
            "prompts": tmp_path / "classes.yaml",
            "accept_chance": True,
            "precision": "fp32",
        },
        "student": {"model": "cifar/resnet8"},
        "train": {"epochs": 1, "batch_size": 8, "device": "cpu", "precision": "fp32"},
        "out": tmp_path / "run",
    }


def summary(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "summary.json").read_text()))


def test_labeled_data_keeps_its_order_its_scores_and_a_temperature_that_fits(values: dict[str, Any]) -> None:
    values["teacher"] |= {"calibrate": "auto", "minimum_confidence": 0.4}
    result = counterpoise.distill(values)
    assert set(result.last) == {"top1", "loss", "epoch"}
    assert result.teacher["top1"] >= 0
    kept = counterpoise.config.kept(values["out"] / "run.yaml").teacher
    assert kept is not None
    assert isinstance(kept.calibrate, float)
    assert json.loads((values["out"] / "student/student.json").read_text())["classes"] == [
        "circle",
        "square",
        "stripes",
    ]
    known = json.loads((values["out"] / "identity.json").read_text())
    assert known["teacher.calibration"] == f"temperature {kept.calibrate:g}"
    said = " ".join(json.loads((values["out"] / "data.json").read_text())["said"])
    assert f"temperature {kept.calibrate:g}, by 24 labeled training images" in said
    seen = summary(values["out"])["minimum_confidence"]
    assert seen["views"] == 24
    assert f"{seen['left_out']} of 24 views did not teach" in result.note
    assert counterpoise.distill(values, resume=True).note.startswith("Nothing was done")


def test_the_temperature_is_the_one_that_the_logits_were_multiplied_by() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(4000, 5, generator=generator)
    target = torch.distributions.Categorical(logits=logits).sample()
    assert prompting.fitted(7 * logits, target) == pytest.approx(7, rel=0.1)
    with pytest.raises(ConfigError, match=r"no temperature between 0.01 and 100 fits 4000 labeled images"):
        prompting.fitted(50 * torch.nn.functional.one_hot(target, 5), target)


@pytest.mark.parametrize(
    ("teacher", "told"),
    [
        ({"prompts": ["circle", "square", "triangle"]}, "in the data alone: stripes\n  in the prompts alone: triangle"),
        ({"prompts": ["circle", "square"]}, "is for 2 classes, and the data has 3 of other names"),
        ({"calibrate": "auto", "views": 2}, "find the number with teacher.views 1"),
        ({"checkpoint": "weights.pt"}, "teacher.prompts and checkpoint: a network that takes words is named by"),
        ({"input_size": 32}, "teacher.prompts and input_size"),
        ({"model": "cifar/resnet8"}, "cifar/resnet8 takes no words; prompts are for hf/NAME"),
        ({"model": "cifar/resnet8", "prompts": None, "calibrate": 2}, "teacher.calibrate is for teachers by prompts"),
    ],
)
def test_what_does_not_fit_a_teacher_by_words_is_refused(
    values: dict[str, Any], teacher: dict[str, Any], told: str, tmp_path: Path
) -> None:
    if teacher.get("prompts"):
        (tmp_path / "classes.yaml").write_text(json.dumps(teacher.pop("prompts")))
    if teacher.get("calibrate") == 2:
        teacher["checkpoint"] = _trained(values, tmp_path / "trained")
    values["teacher"] |= teacher
    with pytest.raises(CounterpoiseError) as raised:
        counterpoise.distill(values)
    assert told in str(raised.value)


def _trained(values: dict[str, Any], out: Path) -> Path:
    counterpoise.train({**{key: values[key] for key in ("data", "student", "train")}, "out": out})
    return out


def test_photos_without_labels_have_nothing_to_calibrate_by_and_no_score_from_a_store_alone(
    values: dict[str, Any], tmp_path: Path
) -> None:
    values["data"] = {**values["data"], "path": values["data"]["path"] / "train" / "circle", "source": "photos"}
    with pytest.raises(ConfigError, match=r"calibrate: auto needs labeled training images, and the data has none"):
        counterpoise.distill({**values, "teacher": {**values["teacher"], "calibrate": "auto"}})
    objective = {"balance": {"weight": 1.0}}
    counterpoise.record({**values, "objective": objective}, out=tmp_path / "store", views="epochs")
    run = {**values, "objective": objective, "teacher": {"store": str(tmp_path / "store")}}
    assert set(counterpoise.distill(run).last) == {"epoch"}
    assert "no score is kept" in (values["out"] / "data.json").read_text()
    beside = {**run, "teacher": {**values["teacher"], **run["teacher"]}, "out": tmp_path / "beside"}
    assert set(counterpoise.distill(beside).last) == {"epoch", "agreement_top1", "agreement_loss"}


def test_several_labels_are_no_prompts_to_choose_from(values: dict[str, Any], image_folder: Path) -> None:
    table = image_folder / "several.csv"
    lines = [f"{file.relative_to(image_folder)},1,0,1" for file in sorted(image_folder.glob("*/*/*.*"))]
    table.write_text("\n".join(["file,circle,square,stripes", *lines]))
    values |= {"task": "multilabel", "data": {"path": table, "options": {"label_columns": "others"}, "size": 16}}
    with pytest.raises(ConfigError, match="compares the prompts with one another, by a softmax"):
        counterpoise.distill(values)
    values |= {"teacher": {"minimum_confidence": 0.5}}
    with pytest.raises(ConfigError, match="minimum_confidence is for one class a picture"):
        counterpoise.distill(values, teacher=catalog.build("cifar/resnet8", num_classes=3))
