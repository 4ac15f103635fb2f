"""What a run file says of a teacher whose recorded answers alone are there."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch

from counterpoise import config
from counterpoise.engine.recorded import require_as_recorded
from counterpoise.errors import ConfigError
from counterpoise.models import catalog
from counterpoise.models.network import VisionModel
from counterpoise.models.several_views import averaged
from counterpoise.teachers import identity
from counterpoise.teachers.store import Header, Resident


def store_of(model: VisionModel, **changes: str) -> Resident:
    header = Header("d", "", "plain", {}, 1, (0,), (10,), "float32", 1)
    known = {**identity.of(model, torch.float32), **changes}
    return Resident(header.answered_by(known), "stores/one", torch.empty(0))


def network(**options: Any) -> VisionModel:
    return catalog.build("digits/cnn_4_8", num_classes=10, **options)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"model": "digits/cnn_8_16"}, "digits/cnn_8_16, and the store holds answers of digits/cnn_4_8"),
        ({"arguments": {"dropout": 0.5}}, "a network with arguments {}"),
        ({"mean": [0, 0, 0]}, "pictures with mean 0.25, 0.5, 0.5, std 0.1, 0.5, 0.5"),
        ({"std": [0.1, 0.5, 0.4]}, "pictures with mean 0.25, 0.5, 0.5, std 0.1, 0.5, 0.5"),
        ({"input_size": 20}, "pictures of 8 pixels"),
        ({"weights": "live"}, "answers of weights sha256 "),
        ({"classes": "map.yaml"}, "map.yaml, and the store holds answers whose classes were taken thus: as they are"),
        ({"outputs": "probabilities"}, "answers as the network gave them"),
        ({"views": 2}, "answers to 1 of each picture"),
    ],
)
def test_what_a_store_alone_does_not_hold_is_refused(given: dict[str, Any], said: str) -> None:
    store = store_of(network(mean=(0.25, 0.5, 0.5), std=(0.1, 0.5, 0.5)))
    with pytest.raises(ConfigError) as caught:
        require_as_recorded(config.Teacher(**given), store)
    assert str(caught.value).startswith(f"teacher.{next(iter(given))}: ")
    assert said in str(caught.value)
    assert "leave it out, give the network beside it (teacher.checkpoint, teacher.pretrained), or" in str(caught.value)
    if "views" not in given:  # which are said of all members
        with pytest.raises(ConfigError, match=r"^teachers\.2\..* leave it out, or record them anew"):
            require_as_recorded(config.Member(**given), store, "teachers.2", beside=False)
    old = replace(store.header, notes={})  # of an earlier version, which kept the weights alone
    require_as_recorded(config.Teacher(**given), Resident(old, "stores/old", torch.empty(0)))


def test_what_a_store_holds_may_be_said_and_so_may_all_that_is_said_anyway() -> None:
    model = averaged(network(mean=(0.1, 0.5, 0.7), input_size=12, outputs="probabilities"), 2, False, True)
    model.arguments |= {"sizes": (1, 2)}
    said = config.Teacher(
        model="digits/cnn_4_8",
        arguments={"sizes": [1, 2]},
        mean=(0.1, 0.5, 0.7),
        std=(0.5, 0.5, 0.5),
        input_size=12,
        outputs="probabilities",
        views=2,
    )
    store = store_of(model)
    for section in (said, config.Teacher(), config.Teacher(**json.loads(config.Teacher().model_dump_json()))):
        require_as_recorded(section, store)
    with pytest.raises(ConfigError, match=r"teacher\.outputs: logits, and the store holds the logarithm of answers"):
        require_as_recorded(config.Teacher(outputs="logits"), store)
    require_as_recorded(config.Teacher(outputs="logits"), store_of(network()))


@pytest.mark.parametrize(
    ("given", "there", "same"),
    [
        ("nets/own.py:make", "own.py:make", True),
        ("nets/own.py:other", "own.py:make", False),
        ("hf/models/vit/", "hf/vit", True),
        ("timm/resnet50", "torch.nn.modules.container:Sequential", True),
        ("timm/resnet50", "ensemble of 2", False),
    ],
)
def test_a_network_is_known_by_its_name(given: str, there: str, same: bool) -> None:
    section, store = config.Teacher(model=given), store_of(network(), architecture=there)
    if same:
        require_as_recorded(section, store)
        return
    with pytest.raises(ConfigError, match=r"teacher\.model"):
        require_as_recorded(section, store)
