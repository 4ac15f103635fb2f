"""A student with a head for labels and one for the teacher, shipped as one network that mixes their answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import counterpoise
from counterpoise import config
from counterpoise.data import sources
from counterpoise.engine.mixing_heads import SHARES, TEMPERATURES
from counterpoise.errors import ConfigError, ModelError
from counterpoise.models import catalog, two_heads
from counterpoise.objectives.composite import WeightedSum
from counterpoise.outputs import Outputs

DATA: dict[str, Any] = {"source": "digits", "options": {"train_size": 150}}
TRAIN: dict[str, Any] = {"epochs": 3, "batch_size": 50, "device": "cpu", "optimizer": {"learning_rate": 0.6}}


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("teacher") / "run"
    train = {**TRAIN, "epochs": 6}
    counterpoise.train({"data": DATA, "student": {"model": "digits/cnn_8_16"}, "train": train, "out": str(out)})
    return out


def values(teacher: Path, out: Path, **student: Any) -> dict[str, Any]:
    return {
        "data": DATA,
        "teacher": {"checkpoint": str(teacher), "accept_chance": True},
        "student": {"model": "digits/cnn_4_8", "two_heads": True, **student},
        "train": TRAIN,
        "out": str(out),
    }


def test_terms_of_labels_see_one_head_and_the_teachers_the_other() -> None:
    model = catalog.build("digits/cnn_4_8", num_classes=10, arguments={"two_heads": True})
    names = two_heads.names(model.net)
    assert names == ("classifier.labels", "classifier.teacher")
    objective = WeightedSum({"cross_entropy": {}, "balance": {}})
    objective.heads = names
    images, target = torch.randint(0, 256, (6, 3, 8, 8), dtype=torch.uint8), torch.arange(6)
    answered = model(images, objective.student_features)
    teacher = Outputs(torch.randn(6, 10))
    found = objective(answered, teacher, target).parts
    for term, name in (("cross_entropy", names[0]), ("balance", names[1])):
        alone = WeightedSum({term: {}})(Outputs(answered.features[name]), teacher, target).parts
        assert {key: float(value) for key, value in found.items() if key.startswith(term)} == pytest.approx(
            {key: float(value) for key, value in alone.items()}
        )
    share = model.net.classifier.share.fill_(0.3)
    mixture = share * answered.features[names[0]].softmax(1) + (1 - share) * answered.features[names[1]].softmax(1)
    torch.testing.assert_close(model(images).softmax(1), mixture)


def test_the_mixture_that_ships_is_the_best_of_all_on_the_val_images(teacher: Path, tmp_path: Path) -> None:
    result = counterpoise.distill(values(teacher, tmp_path / "run"))
    described = json.loads((tmp_path / "run" / "student" / "student.json").read_text())
    assert described["arguments"]["two_heads"] is True
    assert f"{100 * described['provenance']['heads']['last']['share']:.0f}% those of the head" in result.note
    student = counterpoise.load_student(tmp_path / "run")
    best = 0.0
    for share in SHARES:
        for temperature in TEMPERATURES:
            head = two_heads.of(student.net)
            head.share.fill_(share)
            head.temperature.fill_(temperature)
            images = sources.load(config.Data.model_validate(DATA)).val
            right = (student(images.images).argmax(1) == images.labels).double().mean()
            best = max(best, 100 * float(right))
    assert result.last["top1"] == pytest.approx(best)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    curve = [line["val"]["top1"] for line in lines if line["kind"] == "epoch"]
    assert (curve[-1], max(curve)) == (pytest.approx(best), pytest.approx(result.best["top1"]))
    assert counterpoise.evaluate(tmp_path / "run")["top1"] == result.last["top1"]
    assert counterpoise.evaluate(tmp_path / "run", epoch="best")["top1"] == result.best["top1"]


def test_a_student_with_one_head_may_be_where_both_start_from(teacher: Path) -> None:
    model = catalog.build(None, checkpoint=teacher, arguments={"two_heads": True}, keep_head=False)
    one = load_file(teacher / "student" / "model.safetensors")
    head = two_heads.of(model.net)
    assert head is not None
    for side in (head.labels, head.teacher):
        assert side.weight.equal(one["classifier.weight"])
        assert side.bias.equal(one["classifier.bias"])


def test_a_head_that_learns_nothing_and_networks_without_a_linear_classifier_are_refused(
    teacher: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="no term of labels"):
        counterpoise.distill({**values(teacher, tmp_path / "run"), "objective": {"balance": {}}})
    with pytest.raises(ConfigError, match="no term of the teacher"):
        counterpoise.train(values(teacher, tmp_path / "run"))
    with pytest.raises(ConfigError, match="no term of the teacher"):
        counterpoise.distill({**values(teacher, tmp_path / "run"), "objective": {"cross_entropy": {}, "features": {}}})
    with pytest.raises(ModelError, match="this network has no linear classifier"):
        catalog.build("torchvision/squeezenet1_1", num_classes=4, arguments={"two_heads": True})
