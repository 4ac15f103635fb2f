"""Weights as others save them: in dictionaries, under prefixes, beside a moving average or a loss."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

import counterpoise
from counterpoise.data.images import decode, to_tensor
from counterpoise.deploy import base, runner
from counterpoise.errors import ModelError, StoreError
from counterpoise.models import catalog, digits
from counterpoise.models.network import VisionModel
from counterpoise.models.wrapped import Which

RUN: dict[str, Any] = {
    "data": {"source": "digits", "options": {"train_size": 60}},
    "student": {"model": "digits/cnn_4_8"},
    "train": {"epochs": 1, "precision": "fp32", "device": "cpu"},
}
Command = Callable[..., tuple[int, str, str]]
State = dict[str, Tensor]


@pytest.fixture(scope="session")
def live() -> State:
    torch.manual_seed(0)
    return catalog.build("digits/cnn_4_8", num_classes=3).weights()


@pytest.fixture(scope="session")
def moving(live: State) -> State:
    return {key: value + 1 if value.is_floating_point() else value for key, value in live.items()}


def under(prefix: str, state: State) -> State:
    return {prefix + key: value for key, value in state.items()}


def load(path: Path, which: Which = "auto", **options: Any) -> VisionModel:
    return catalog.build("digits/cnn_4_8", checkpoint=path, which=which, **options)


def holds(model: VisionModel, state: State) -> bool:
    return all(torch.equal(value, state[key]) for key, value in model.weights().items())


@pytest.mark.parametrize(
    "prefix",
    ["", "model.", "net.", "backbone.", "module.", "_orig_mod.", "model._orig_mod.", "module.model.backbone.net."],
)
@pytest.mark.parametrize("wrapper", [(), ("state_dict",), ("model_state",), ("weights",), ("model", "state_dict")])
def test_weights_under_wrappers_and_prefixes_are_found(
    tmp_path: Path, live: State, prefix: str, wrapper: tuple[str, ...]
) -> None:
    content: Any = under(prefix, live)
    for key in reversed(wrapper):
        content = {key: content, "epoch": 3}
    torch.save(content, tmp_path / "w.pt")
    model = load(tmp_path / "w.pt")
    assert holds(model, live)
    assert model.notes == ()


@pytest.mark.parametrize("prefix", ["", "model.", "model._orig_mod."])
def test_what_lies_beside_a_network_is_left_out_and_said(tmp_path: Path, live: State, prefix: str) -> None:
    state = {**under(prefix, live), "criterion.weight": torch.ones(3)}
    torch.save({"state_dict": state}, tmp_path / "w.pt")
    save_file(state, tmp_path / "w.safetensors")
    for name in ("w.pt", "w.safetensors"):
        model = load(tmp_path / name)
        assert holds(model, live)
        assert [note for note in model.notes if "criterion.weight is no part of the network, and left out" in note]


@pytest.mark.parametrize("key", ["state_dict_ema", "model_ema", "ema", "ema_state_dict"])
def test_live_weights_and_their_average_are_told_apart(tmp_path: Path, live: State, moving: State, key: str) -> None:
    torch.save({"state_dict": live, key: under("module.", moving)}, tmp_path / "both.pt")
    model = load(tmp_path / "both.pt")
    assert holds(model, moving)
    assert "the moving average count; weights: live takes the others" in model.notes[0]
    other = load(tmp_path / "both.pt", "live")
    assert holds(other, live)
    assert "the weights count; weights: ema takes the others" in other.notes[0]
    torch.save({key: moving}, tmp_path / "alone.pt")
    model = load(tmp_path / "alone.pt")
    assert holds(model, moving)
    assert "holds a moving average of weights, which counts" in model.notes[0]
    with pytest.raises(ModelError, match="a moving average of weights alone"):
        load(tmp_path / "alone.pt", "live")


def test_an_average_may_lie_in_the_same_state(tmp_path: Path, live: State, moving: State) -> None:
    torch.save({**under("model.", live), **under("model_ema.module.", moving)}, tmp_path / "w.pt")
    assert holds(load(tmp_path / "w.pt"), moving)
    assert holds(load(tmp_path / "w.pt", "live"), live)
    torch.save({"n_averaged": torch.tensor(3), **under("module.", live)}, tmp_path / "w.pt")
    assert holds(load(tmp_path / "w.pt"), live)
    with pytest.raises(ModelError, match="no moving average"):
        load(tmp_path / "w.pt", "ema")


def test_two_networks_that_fit_are_refused(tmp_path: Path, live: State, moving: State) -> None:
    torch.save({**under("model.", live), **under("net.", moving)}, tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"several networks that fit, under 'model\.' and 'net\.'"):
        load(tmp_path / "w.pt")


def test_a_prefix_of_the_networks_own_stays(tmp_path: Path) -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = digits.create("cnn_4_8", 3)

        def forward(self, images: Tensor) -> Tensor:
            answer: Tensor = self.model(images)
            return answer

    own = Own()
    torch.save({"state_dict": under("module.", own.state_dict())}, tmp_path / "w.pt")
    model = catalog.build(Own(), checkpoint=tmp_path / "w.pt", input_size=8)
    assert holds(model, own.state_dict())


class Averaging(nn.Module):
    """A network whose parts have the names of moving averages, or of what others wrap networks in."""

    def __init__(self, part: str, num_classes: int = 3) -> None:
        super().__init__()
        self.part = part
        alone = part == "module"  # all is under this name
        self.add_module(part, nn.Conv2d(3, num_classes if alone else 4, 3))
        self.head = nn.Identity() if alone else nn.Linear(4, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        answer: Tensor = self.head(self.get_submodule(self.part)(images).mean((2, 3)))
        return answer


@pytest.mark.parametrize("part", ["ema", "shadow", "module"])
@pytest.mark.parametrize("handed_in", [True, False])
@pytest.mark.parametrize("wrapper", [None, "state_dict"])
def test_parts_of_a_network_may_be_called_as_wrappers_are(
    tmp_path: Path, part: str, handed_in: bool, wrapper: str | None
) -> None:
    state = Averaging(part).state_dict()
    torch.save(state if wrapper is None else {wrapper: state}, tmp_path / "w.pt")
    save_file(state, tmp_path / "w.safetensors")
    for name in ("w.pt", "w.safetensors"):
        net: Any = Averaging(part) if handed_in else lambda num_classes=3: Averaging(part, num_classes)
        model = catalog.build(net, checkpoint=tmp_path / name, input_size=8)
        assert holds(model, state)
        assert model.notes == ()
    del state[f"{part}.bias"]
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(ModelError, match=rf"does not fit [^\n]*\n  missing: {part}\.bias \[\d\]\.$"):
        catalog.build(Averaging(part), checkpoint=tmp_path / "w.pt", input_size=8)


@pytest.mark.parametrize("part", ["ema", "module"])
def test_a_run_of_such_a_network_keeps_its_epochs(tmp_path: Path, part: str) -> None:
    options = {"data": RUN["data"], "train": {**RUN["train"], "epochs": 2}, "out": str(tmp_path / "run")}
    counterpoise.train(options, student=Averaging(part, 10))
    found = json.loads((tmp_path / "run" / "summary.json").read_text())
    for epoch in ("last", "best"):
        scores = counterpoise.evaluate(tmp_path / "run", model=Averaging(part, 10), epoch=epoch)
        assert scores["top1"] == pytest.approx(found[epoch]["top1"])


def test_a_head_for_other_classes_starts_anew_and_is_said(tmp_path: Path, live: State) -> None:
    torch.save(live, tmp_path / "w.pt")
    model = load(tmp_path / "w.pt", num_classes=5, keep_head=False)
    assert "has 3 classes and 5 are asked for: the classifier starts anew" in model.notes[0]


SOFT = """
from torch import nn
from counterpoise.models.digits import create


def net(num_classes=10):
    return nn.Sequential(create("cnn_4_8", num_classes), nn.Softmax(1))
"""


@pytest.fixture
def soft(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "net.py").write_text(SOFT)
    state = nn.Sequential(digits.create("cnn_4_8", 10)).state_dict()
    torch.save(state, tmp_path / "w.pt")
    return {"model": f"{tmp_path}/net.py:net", "checkpoint": str(tmp_path / "w.pt"), "input_size": 8}


def test_a_teacher_of_probabilities_is_refused_with_the_way_out(tmp_path: Path, soft: dict[str, Any]) -> None:
    counterpoise.train({**RUN, "out": str(tmp_path / "alone")})
    for ask in (
        lambda: counterpoise.distill({**RUN, "teacher": soft, "out": str(tmp_path / "run")}),
        lambda: counterpoise.record({**RUN, "teacher": soft, "out": str(tmp_path / "store")}),
        lambda: counterpoise.gauge(tmp_path / "alone", teacher=soft),
    ):
        with pytest.raises(ModelError, match=r"answers probabilities.*teacher\.outputs: probabilities"):
            ask()


def test_of_probabilities_the_logarithm_is_taken(tmp_path: Path, soft: dict[str, Any]) -> None:
    counterpoise.train({**RUN, "out": str(tmp_path / "alone")})
    told = counterpoise.gauge(tmp_path / "alone", teacher={**soft, "outputs": "probabilities"})
    plain = digits.create("cnn_4_8", 10)
    plain.load_state_dict({key.removeprefix("0."): value for key, value in torch.load(soft["checkpoint"]).items()})
    expected = counterpoise.gauge(tmp_path / "alone", teacher=catalog.build(plain, input_size=8))
    assert told["forward_kl"] == pytest.approx(expected["forward_kl"], rel=1e-4)
    with pytest.raises(ModelError, match="answers no probabilities"):
        catalog.build(plain, input_size=8, outputs="probabilities")


@pytest.mark.parametrize(
    ("model", "arguments"),
    [
        ("timm/test_resnet", {"in_chans": 1}),
        ("timm/test_resnet", {"num_classes": 3}),
        ("timm/test_resnet", {"pretrained": True}),
        ("timm/test_resnet", {"checkpoint_path": "/dev/zero"}),
        ("timm/test_resnet", {"a b": 1}),
        ("torchvision/resnet18", {"weights": "DEFAULT"}),
        ("torchvision/resnet18", {"name": "vgg11"}),
        ("torchvision/resnet18", {"request": 1}),
        ("torchvision/resnet18", {"nonsense": 1}),
        ("digits/cnn_4_8", {"name": "cnn_8_16"}),
        ("cifar/resnet8", {"nonsense": 1}),
    ],
)
def test_arguments_that_collide_with_ours_are_refused_in_a_sentence(model: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(ModelError) as refused:
        catalog.build(model, num_classes=3, arguments=arguments)
    assert str(refused.value).count("\n") < 3


def test_a_store_of_probabilities_is_refused_when_it_is_read(tmp_path: Path, soft: dict[str, Any]) -> None:
    store = str(tmp_path / "store")
    for precision in ("float16", "int8", "int4"):
        where = f"{store}-{precision}"
        teacher = {**soft, "outputs": "logits", "accept_chance": True}  # as before probabilities were noticed
        counterpoise.record({**RUN, "teacher": teacher, "out": where}, views="epochs", precision=precision)
        run = {**RUN, "teacher": {"store": where}}
        with pytest.raises(StoreError, match=r"holds probabilities.*teacher\.outputs: probabilities"):
            counterpoise.distill({**run, "out": str(tmp_path / "run")})
    run["teacher"] = {"store": where, "outputs": "logits"}
    counterpoise.distill({**run, "out": str(tmp_path / "run")})


def test_a_student_of_probabilities_is_said_where_it_is_scored_and_answered_with_them_everywhere(
    run: Command, tmp_path: Path, soft: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    counterpoise.train({**RUN, "student": {"model": soft["model"], "input_size": 8}, "out": str(tmp_path / "run")})
    code, out, _ = run("evaluate", "run", "--model", soft["model"])
    assert code == 0
    assert "answers probabilities" in " ".join(out.split())  # lines break where the folder is long
    Image.fromarray((np.arange(64).reshape(8, 8) * 4 % 251).astype(np.uint8)).save("digit.png")
    picture = to_tensor(decode(Path("digit.png")))[None]
    wanted = float(counterpoise.load_student("run", model=soft["model"])(picture).detach().max())  # type: ignore[union-attr]
    flags = ["--student", "run", "--model", soft["model"]]
    answer = json.loads(run("predict", "digit.png", *flags, "--json")[1])[0]
    assert answer["probability"] == pytest.approx(wanted, abs=1e-5)
    code, out, error = run("export", "run", "--to", "onnx", "--images", "2", "--model", soft["model"], "--json")
    assert code == 0, error
    assert json.loads(out)["outputs"] == "probabilities"
    here = tmp_path / "run" / "exports" / "onnx-float32"
    load = base.find("onnx").load
    assert runner.main(here, "export.json", "model.onnx", runner.top_five, load, ["digit.png"]) == 0
    assert capsys.readouterr().out.splitlines()[0].split() == [f"{wanted:.4f}", answer["class"]]
    counterpoise.train({**RUN, "out": str(tmp_path / "plain")})
    assert "notes" not in counterpoise.evaluate(tmp_path / "plain")
