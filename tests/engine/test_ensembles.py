"""Several teachers that answer as one, and answers over several views."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import counterpoise
from counterpoise import config
from counterpoise.engine.networks import build_teacher
from counterpoise.errors import CounterpoiseError
from counterpoise.models.classmap import partly
from counterpoise.models.ensemble import Ensemble, combined, require_shared
from counterpoise.models.network import VisionModel

DATA: dict[str, Any] = {"source": "digits", "options": {"train_size": 200}}
TRAIN: dict[str, Any] = {"epochs": 2, "batch_size": 50, "device": "cpu", "precision": "fp32"}


class Fixed(nn.Module):
    """Answers the same logits to every picture, those of sample n moved by n."""

    def __init__(self, logits: list[float]) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.logits.expand(len(pixels), -1)


def member(logits: list[float]) -> VisionModel:
    return VisionModel(Fixed(logits), name="fixed", num_classes=len(logits)).eval()


A, B = [2.0, 0.0, 0.0], [0.0, 1.0, 4.0]
PIXELS = torch.zeros(4, 3, 2, 2)


def answer(combine: Any, **more: Any) -> torch.Tensor:
    net = Ensemble([member(A), member(B)], [3.0, 1.0], combine, [None, None], 3, more.pop("sigmoid", False))
    net.target = more.get("target")
    answered: torch.Tensor = net(PIXELS)
    return answered.detach()


def test_means_are_those_of_probabilities_or_of_logits() -> None:
    one, other = torch.tensor(A), torch.tensor(B)
    torch.testing.assert_close(answer("probabilities")[0].exp(), 0.75 * one.softmax(0) + 0.25 * other.softmax(0))
    torch.testing.assert_close(answer("logits")[0], 0.75 * one + 0.25 * other)
    torch.testing.assert_close(
        answer("probabilities", sigmoid=True)[0].sigmoid(), 0.75 * one.sigmoid() + 0.25 * other.sigmoid()
    )


@pytest.mark.parametrize(
    ("target", "chosen"),
    [
        (None, [B, B, B, B]),
        (torch.tensor([0, 1, 2, -1]), [A, A, B, B]),
        (torch.tensor([[1.0, 0, 0], [0, 0, 1.0], [0.9, 0.1, 0], [0, 0, 0]]), [A, B, A, B]),
    ],
    ids=["surest", "by labels", "by mixed labels"],
)
def test_one_is_chosen_for_each_sample(target: torch.Tensor | None, chosen: list[list[float]]) -> None:
    torch.testing.assert_close(answer("right", target=target), torch.tensor(chosen))
    torch.testing.assert_close(answer("surest"), torch.tensor([B] * 4))


def test_each_place_of_a_scene_goes_by_its_own_label_and_by_the_surest_where_it_has_none() -> None:
    answers = [torch.tensor(logits).view(1, 3, 1, 1).expand(1, 3, 2, 2) for logits in (A, B)]
    mask = torch.tensor([[0, 0, 2, 2], [0, 0, 2, 2], [255, 255, -1, -1], [255, 255, -1, -1]]).unsqueeze(0)
    found = combined(answers, torch.ones(2) / 2, "right", [None, None], 3, target=mask)
    assert found[0, 0].tolist() == [[A[0], B[0]], [B[0], B[0]]]


def test_means_of_sure_answers_of_several_labels_are_finite() -> None:
    sure = [torch.tensor([[30.0, -200.0, 0.5]]), torch.tensor([[40.0, -300.0, 0.5]])]
    found = combined(sure, torch.tensor([0.25, 0.75]), "probabilities", [None, None], 3, sigmoid=True)
    exact = torch.stack(sure).double()
    yes, no = (
        torch.logsumexp(torch.nn.functional.logsigmoid(sign * exact) + torch.tensor([[[0.25]], [[0.75]]]).log(), 0)
        for sign in (1, -1)
    )
    torch.testing.assert_close(found[:, [0, 2]].double(), (yes - no)[:, [0, 2]])
    assert found[0, 1] < -80


@pytest.fixture(scope="session")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("teachers")
    for seed in range(2):
        values = {"data": DATA, "student": {"model": "digits/cnn_8_16"}, "seed": seed, "train": {**TRAIN, "epochs": 5}}
        counterpoise.train({**values, "out": str(folder / str(seed))})
    return [folder / "0", folder / "1"]


def asked(teachers: list[Path], out: Path, **teacher: Any) -> dict[str, Any]:
    return {
        "data": DATA,
        "teachers": [{"checkpoint": str(path)} for path in teachers],
        "teacher": {"accept_chance": True, **teacher},
        "student": {"model": "digits/cnn_4_8"},
        "train": TRAIN,
        "out": str(out),
    }


def test_a_student_of_two_and_of_their_store_are_the_same(teachers: list[Path], tmp_path: Path) -> None:
    asked_for = asked(teachers, tmp_path / "live", views=2)
    live = counterpoise.distill(asked_for)
    counterpoise.record(asked_for, out=tmp_path / "store", precision="float32", views="epochs")
    section = {"store": str(tmp_path / "store"), "accept_chance": True}
    stored = {key: value for key, value in asked_for.items() if key != "teachers"}
    again = counterpoise.distill({**stored, "teacher": section, "out": str(tmp_path / "stored")})
    assert again.last == pytest.approx(live.last, rel=1e-4)
    provenance = json.loads((tmp_path / "live" / "student" / "student.json").read_text())["provenance"]["teacher"]
    assert provenance["architecture"] == "ensemble of 2"
    moved = shutil.copytree(teachers[0], tmp_path / "moved")
    again = counterpoise.distill(asked([moved, teachers[1]], tmp_path / "live", views="2"), resume=True)
    assert "the run had come to its end" in again.note
    with pytest.raises(CounterpoiseError, match=r"views: 10, and the store holds answers to 2 of each picture"):
        counterpoise.distill({**stored, "teacher": {**section, "views": 10}, "out": str(tmp_path / "no")})
    others = asked(teachers, tmp_path / "live", views=2, combine="logits")
    with pytest.raises(CounterpoiseError, match=r"teacher\.combine: 'probabilities' there, 'logits' given"):
        counterpoise.distill(others, resume=True)


def test_stores_of_several_teachers_are_read_as_one(teachers: list[Path], tmp_path: Path) -> None:
    live = counterpoise.distill(asked(teachers, tmp_path / "live", combine="logits"))
    stores = []
    for path in teachers:
        alone = {key: value for key, value in asked([path], tmp_path / "none").items() if key != "teachers"}
        alone["teacher"] = {"checkpoint": str(path), "accept_chance": True}
        stores.append({"store": str(tmp_path / f"store-{path.name}")})
        counterpoise.record(alone, out=stores[-1]["store"], precision="float32", views="epochs")
    both = {**asked(teachers, tmp_path / "stored", combine="logits"), "teachers": stores}
    assert counterpoise.distill(both).last == pytest.approx(live.last, rel=1e-4)
    for change, message in (
        ({"teachers": [stores[0], {"checkpoint": str(teachers[1])}]}, "Some of the teachers have a store"),
        ({"teacher": {"combine": "right"}}, "stores are read ahead of them"),
        ({"seed": 5}, "views, seed"),
        ({"teachers": [stores[0], {**stores[1], "mean": [0, 0, 0]}]}, r"teachers\.2\.mean: 0\.0, 0\.0, 0\.0, and"),
    ):
        with pytest.raises(CounterpoiseError, match=message):
            counterpoise.distill({**both, "out": str(tmp_path / "no"), **change})
    with pytest.raises(CounterpoiseError, match=r"teachers\.1 is a store, .*store-0, and record asks networks"):
        counterpoise.record(both, out=tmp_path / "again")
    named = [{**store, "checkpoint": str(path)} for store, path in zip(stores, teachers, strict=True)]
    told = counterpoise.record({**both, "teachers": named}, out=tmp_path / "again", views="epochs")
    assert told["architecture"] == "ensemble of 2"


def test_teachers_that_each_know_some_classes_are_one_that_knows_all(teachers: list[Path], tmp_path: Path) -> None:
    classes = [str(digit) for digit in range(10)]
    some = []
    for path, names in zip(teachers, (classes[:7], classes[4:]), strict=True):
        mapped = build_teacher(config.resolve({"teacher": {"checkpoint": str(path)}}), tuple(names))
        some.append(mapped.eval())
    images = torch.randint(0, 256, (5, 3, 8, 8), dtype=torch.uint8)
    expected = torch.zeros(5, 10)
    for model, place in zip(some, (slice(0, 7), slice(4, 10)), strict=True):
        expected[:, place] += model(images).softmax(1)
    expected[:, 4:7] /= 2
    net = Ensemble(some, [1, 1], "probabilities", [tuple(range(7)), tuple(range(4, 10))], 10)
    torch.testing.assert_close(net(images / 255).exp(), expected, rtol=1e-4, atol=1e-6)
    with pytest.raises(CounterpoiseError, match="knows one of the 2 classes, 1, which it would answer to every"):
        partly(some[0], ["1", "mouse"])
    with pytest.raises(CounterpoiseError, match="logits is of several, and there is one teacher: give teachers"):
        build_teacher(config.resolve({"teacher": {"checkpoint": "x", "combine": "logits"}}), ())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"teachers": [{"model": "x"}]}, "a list of two or more"),
        ({"teachers": "runs/a"}, "teachers is a list of two or more"),
        ({"teacher": {"checkpoint": "runs/a"}}, r"teacher\.checkpoint beside teachers"),
        ({"teacher": {"weights": "live"}}, r"teacher\.weights beside teachers"),
        ({"objective": {"fitnet": {}}, "teacher": {"views": 2}}, "looks at the teacher's features, too"),
        ({"objective": {"features": {}}}, "Several teachers have no stage @-1 in common"),
        (
            {"teachers": [{"store": "a"}, {"store": "b"}], "teacher": {"missing": "live"}},
            "no store of several teachers",
        ),
    ],
    ids=["one", "no list", "another", "which weights", "features", "a stage", "live"],
)
def test_what_several_teachers_cannot_be_is_refused(
    teachers: list[Path], tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(CounterpoiseError, match=message):
        counterpoise.distill({**asked(teachers, tmp_path / "out"), **change})


def test_teachers_that_share_no_class_and_a_store_that_goes_by_labels_are_refused(
    teachers: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(CounterpoiseError, match="a and b share no class"):
        require_shared(["a", "b"], [[0, 1], [2, 3]])
    require_shared(["a", "b", "c"], [[0, 1], [3, 4], [1, 3]])
    with pytest.raises(CounterpoiseError, match="right goes by labels"):
        counterpoise.record(asked(teachers, tmp_path / "out", combine="right"), out=tmp_path / "store")
    result = counterpoise.distill(asked(teachers, tmp_path / "right", combine="right"))
    assert result.teacher.keys() >= {"top1"}
    said = json.loads((tmp_path / "right" / "data.json").read_text())["said"]
    assert any("for each picture the one that is most sure of its label counts" in line for line in said)
