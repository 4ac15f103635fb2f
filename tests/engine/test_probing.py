"""A linear classifier on the features of a network without one, kept as a teacher."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import counterpoise
from counterpoise.errors import CounterpoiseError
from counterpoise.models import probing
from counterpoise.models.digits import create

DATA: dict[str, Any] = {"source": "digits", "options": {"train_size": 400}}


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that learned digits, with the weights of its network without its classifier beside it."""
    out = tmp_path_factory.mktemp("trained") / "run"
    train = {"epochs": 12, "batch_size": 50, "device": "cpu"}
    counterpoise.train({"data": DATA, "student": {"model": "digits/cnn_8_16"}, "train": train, "out": str(out)})
    weights = load_file(out / "student" / "model.safetensors")
    save_file({k: v for k, v in weights.items() if "classifier" not in k}, out.parent / "backbone.safetensors")
    return out


def asked(trained: Path, **sections: Any) -> dict[str, Any]:
    network = {"model": "digits/cnn_8_16", "checkpoint": str(trained.parent / "backbone.safetensors")}
    return {"data": DATA, "teacher": network, "train": {"device": "cpu"}, **sections}


def test_a_probe_is_as_good_as_the_networks_own_classifier_and_teaches(
    trained: Path, run: Callable[..., Any], tmp_path: Path
) -> None:
    flags = ["--data.source", "digits", "--data.options.train_size", "400", "--train.device", "cpu"]
    network = ["--teacher.model", "digits/cnn_8_16", "--teacher.checkpoint", trained.parent / "backbone.safetensors"]
    code, printed, _ = run("probe", *flags, *network, "--out", "probed", "--json")
    assert code == 0
    found = json.loads(printed)
    own = counterpoise.evaluate(trained)["top1"]
    assert found["top1"] > own - 1
    assert found["top1"] == pytest.approx(counterpoise.evaluate(Path("probed"), data={"data": DATA})["top1"])
    assert found["held_out"][str(found["penalty"])] == max(found["held_out"].values())
    backbone = load_file(trained.parent / "backbone.safetensors")
    kept = load_file("probed/model.safetensors")
    assert all(kept[name].equal(value) for name, value in backbone.items())
    student = ["--student.model", "digits/cnn_4_8", "--train.epochs", "1", "--out", "small"]
    code, _, said = run("distill", *flags, "--teacher.checkpoint", "probed", *student)
    assert code == 0
    assert f"teacher  top1 {found['top1']:.2f}" in said
    code, _, said = run("probe", *flags, *network, "--out", "probed")
    assert (code, "replace it with --overwrite" in said) == (2, True)


def test_the_classifier_minimizes_what_its_docstring_says() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(80, 5, generator=generator) * torch.tensor([1.0, 3.0, 0.2, 1.0, 10.0]) + 2
    labels = torch.randint(0, 3, (80,), generator=generator)
    ((_, found),) = probing.fit(features, labels, 3, [1e-2])
    mean, deviation = features.double().mean(0), features.double().std(0, correction=0)
    weight = (found.weight.double() * deviation).requires_grad_()
    bias = (found.bias.double() + found.weight.double() @ mean).requires_grad_()
    logits = (features.double() - mean) / deviation @ weight.T + bias
    loss = torch.nn.functional.cross_entropy(logits, labels) + 1e-2 / 2 * weight.square().sum()
    gradients = torch.autograd.grad(loss, [weight, bias])
    assert max(float(gradient.abs().max()) for gradient in gradients) < 1e-4


def test_the_nearest_neighbors_vote() -> None:
    features, labels = torch.eye(4)[[0, 0, 1, 1, 2]], torch.tensor([0, 1, 1, 1, 2])
    said = probing.neighbors((features, labels), torch.tensor([[5.0, 0, 0, 0], [0, 0, 1, 0]]), 3, [1, 4, 20])
    assert said.keys() == {1, 4}
    assert said[4].tolist() == [1, 2]  # two at angle 0, of one class each: what lies at right angles decides


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"teacher": {"model": "digits/cnn_8_16"}}, "has no weights"),
        ({"teacher": None}, r"teacher\.model is missing"),
        ({"task": "segmentation"}, "the task is segmentation"),
    ],
    ids=["no weights", "no network", "scenes"],
)
def test_what_cannot_be_probed_is_refused(trained: Path, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(CounterpoiseError, match=message):
        counterpoise.probe(asked(trained, **change), out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_one_class_and_no_labels_are_no_probe(trained: Path, tmp_path: Path, make_picture: Callable[..., Any]) -> None:
    for half in ("train", "val"):
        (tmp_path / "photos" / half / "circle").mkdir(parents=True)
        for number in range(3):
            make_picture("circle", number, (32, 32)).save(tmp_path / "photos" / half / "circle" / f"{number}.png")
    with pytest.raises(CounterpoiseError, match="one class only, 'circle'"):
        counterpoise.probe(asked(trained, data={"path": str(tmp_path / "photos")}), out=tmp_path / "out")
    plain = str(tmp_path / "photos" / "train" / "circle")
    with pytest.raises(CounterpoiseError, match="none has a label"):
        counterpoise.probe(asked(trained, data={"path": plain}), out=tmp_path / "out")


def test_pictures_are_brought_to_the_square_as_the_data_section_says(
    run: Callable[..., Any], tmp_path: Path, make_picture: Callable[..., Any]
) -> None:
    for number in range(8):
        for shape in ("circle", "square"):
            path = tmp_path / "wide" / ("train" if number < 5 else "val") / shape / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            make_picture(shape, number, (48, 16)).save(path)
    save_file(create("cnn_4_8", 10).state_dict(), tmp_path / "weights.safetensors")
    network = {"model": "digits/cnn_4_8", "checkpoint": str(tmp_path / "weights.safetensors")}
    data = {"path": str(tmp_path / "wide"), "fit": "squash", "size": 16}
    counterpoise.probe({"data": data, "teacher": network, "train": {"device": "cpu"}}, out=tmp_path / "probed")
    assert json.loads((tmp_path / "probed" / "student.json").read_text())["input"]["fit"] == "squash"
