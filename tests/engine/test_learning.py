"""Which parameters learn, how fast and with which decay, and a run that stops once it gets no better."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import counterpoise
from counterpoise import config
from counterpoise.engine import learning
from counterpoise.engine.optimization import build_optimizer, set_rate
from counterpoise.errors import ConfigError
from counterpoise.models import catalog
from counterpoise.models.network import VisionModel

DATA: dict[str, Any] = {"source": "digits", "options": {"train_size": 150}}


def values(out: Path, student: dict[str, Any] | None = None, **train: Any) -> dict[str, Any]:
    plan = {"epochs": 2, "batch_size": 50, "device": "cpu", **train}
    return {"data": DATA, "student": {"model": "digits/cnn_8_16", **(student or {})}, "train": plan, "out": str(out)}


def vit() -> VisionModel:
    return catalog.build(
        "timm/vit_tiny_patch16_224", num_classes=5, arguments={"depth": 2, "embed_dim": 8, "num_heads": 2}
    )


def by_name(net: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, tuple[float, float]]:
    names = {parameter: name for name, parameter in net.named_parameters()}
    return {
        names[parameter]: (round(group["lr"] * group.get("lr_scale", 1.0), 9), group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


@pytest.mark.parametrize("layer_decay", [None, 0.5])
def test_groups_are_timms(layer_decay: float | None) -> None:
    model = vit()
    options = config.Optimizer(
        name="adamw", learning_rate=0.1, decay_norms=False, no_weight_decay=True, layer_decay=layer_decay
    )
    from timm.optim import create_optimizer_v2  # once torchvision is known to load

    ours = build_optimizer([model], options)
    theirs = create_optimizer_v2(model.net, "adamw", lr=0.1, weight_decay=5e-4, layer_decay=layer_decay)
    assert by_name(model.net, ours) == by_name(model.net, theirs)
    assert by_name(model.net, ours)["pos_embed"][1] == 0.0
    set_rate(ours, 0.2)
    assert by_name(model.net, ours)["patch_embed.proj.weight"][0] == pytest.approx(0.2 * (layer_decay or 1.0) ** 3)


def test_rates_go_by_the_last_pattern_that_names_a_part() -> None:
    model = vit()
    options = config.Optimizer(learning_rate=0.1, rates={"blocks": 0.5, "blocks.1": 0.25, "head": 10.0})
    rates = {name: rate for name, (rate, _) in by_name(model.net, build_optimizer([model], options)).items()}
    assert (rates["blocks.0.attn.qkv.weight"], rates["blocks.1.norm1.bias"]) == (0.05, 0.025)
    assert (rates["head.weight"], rates["cls_token"]) == (1.0, 0.1)


def test_frozen_parts_stay_as_they_are_with_their_statistics(tmp_path: Path) -> None:
    counterpoise.train(values(tmp_path / "first"))
    start = {"model": None, "checkpoint": str(tmp_path / "first"), "freeze": ["features.stage*"]}
    counterpoise.train(values(tmp_path / "run", start, optimizer={"weight_decay": 0.1}))
    before, after = (load_file(tmp_path / name / "student" / "model.safetensors") for name in ("first", "run"))
    still = {name for name in before if before[name].equal(after[name])}
    assert still == {name for name in before if name.partition(".")[0] == "features"}
    assert len(still) < len(before)
    said = json.loads((tmp_path / "run" / "data.json").read_text())["said"]
    assert any("student.freeze: 1,416 of 1,586 parameters" in line for line in said)
    assert not any("at random" in line for line in said)


@pytest.mark.parametrize(
    ("student", "optimizer", "message"),
    [
        (
            {"freeze": ["block"]},
            {},
            "student.freeze: nothing in the student is called 'block'. It has features, classifier",
        ),
        ({"freeze": ["*"]}, {}, "leaves nothing of the student to be trained"),
        ({}, {"rates": {"head": 2}}, "train.optimizer.rates: nothing in the student is called 'head'"),
        ({}, {"layer_decay": 0.7}, r"does not say what its layers are .* train\.optimizer\.rates"),
        ({}, {"no_weight_decay": True}, "excepts nothing from weight decay"),
        (
            {"freeze": ["classifier"]},
            {"rates": {"classifier": 2}},
            "'classifier' names parts that student.freeze keeps",
        ),
    ],
    ids=["unknown part", "all frozen", "unknown rate", "no layers", "nothing excepted", "rate of a frozen part"],
)
def test_what_the_student_has_not_is_refused(
    tmp_path: Path, student: dict[str, Any], optimizer: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        counterpoise.train(values(tmp_path / "run", student, optimizer=optimizer))


def test_resting_parts_are_in_eval_mode_while_the_rest_trains() -> None:
    """Loops of other tools call `train` on the network itself, or on a copy: frozen batch norms moved there."""
    model = VisionModel(
        nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten(), nn.Linear(4, 2)),
        name="own", num_classes=2,
    )  # fmt: skip
    said = learning.freeze(model, ["[0-1]"])
    net = model.net.eval()
    for copied in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        copied.train()
        assert [module.training for module in copied] == [False, False, True, True, True]
        assert not any(module.training for module in net.modules())
    for trained in (net, model):
        assert trained.train() is trained
        assert [module.training for module in net] == [False, False, True, True, True]
    assert said == "student.freeze: 24 of 34 parameters stay as they are"


def test_a_run_stops_once_it_gets_no_better_and_ships_its_best(tmp_path: Path) -> None:
    # At this rate the student leaps about, and an epoch that is better than all before is soon followed by worse ones.
    plan = {"epochs": 40, "patience": 2, "optimizer": {"learning_rate": 0.6}}
    result = counterpoise.train(values(tmp_path / "run", **plan))
    assert result.epochs == result.last["epoch"] == result.best["epoch"] + 2 < 40
    assert f"Stopped after epoch {result.epochs} of 40" in result.note
    shipped = load_file(tmp_path / "run" / "student" / "model.safetensors")
    best = load_file(tmp_path / "run" / "checkpoints" / "best.safetensors")
    assert all(shipped[name].equal(best[name]) for name in best)
    again = counterpoise.train(tmp_path / "run" / "run.yaml", resume=True)
    assert (again.last, again.steps) == (result.last, result.steps)
    assert again.note.startswith("Nothing was done")
    longer = counterpoise.train(values(tmp_path / "longer", **{**plan, "epochs": 50}), extend=tmp_path / "run")
    assert longer.note.startswith(f"Stopped after epoch {result.epochs} of 50")
    assert f"after {result.epochs} of 50 epochs" in (tmp_path / "longer" / "data.json").read_text()


def test_patience_that_ships_the_last_epoch_is_refused() -> None:
    with pytest.raises(ValueError, match="give ship: best"):
        config.Train(patience=3, ship="last")
    assert config.Train(patience=3).ship == "best"
