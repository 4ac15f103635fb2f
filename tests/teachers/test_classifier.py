"""What a teacher's last layer has for each class, in the order of the classes that it answers in."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from counterpoise.errors import ConfigError, ModelError
from counterpoise.models import catalog
from counterpoise.models.classmap import map_teacher
from counterpoise.models.ensemble import Ensemble
from counterpoise.models.network import Answers, VisionModel
from counterpoise.models.prompts.network import Prompted
from counterpoise.models.several_views import SeveralViews
from counterpoise.objectives.composite import WeightedSum
from counterpoise.objectives.wkd import WassersteinLogits, cosines
from counterpoise.teachers.classifier import rows_of, tell

IMAGES = torch.randint(0, 256, (1, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def model(*layers: nn.Module, classes: int = 4, outputs: Answers = "auto") -> VisionModel:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 6), nn.ReLU(), *layers)
    names = [f"c{index}" for index in range(classes)]
    return VisionModel(net, name="mine", num_classes=classes, classes=names, outputs=outputs)


def test_it_is_the_weight_of_the_layer_whose_output_is_the_answer() -> None:
    teacher = model(nn.Linear(6, 4), nn.Dropout(0.5))  # which does nothing where the teacher answers
    assert torch.equal(rows_of(teacher, IMAGES), teacher.net[3].weight)
    assert teacher.training
    softened = model(nn.Linear(6, 4), nn.Softmax(1), outputs="probabilities")
    assert torch.equal(rows_of(softened, IMAGES), softened.net[3].weight)


@pytest.mark.parametrize("tail", [nn.LayerNorm(4), nn.Sequential(nn.Linear(4, 4), nn.Tanh())])
def test_a_teacher_that_does_something_after_its_last_layer_is_refused(tail: nn.Module) -> None:
    with pytest.raises(ModelError, match="mine: what it answers is not the output of one linear layer or convolution"):
        rows_of(model(nn.Linear(6, 4), tail), IMAGES)


def test_rows_are_in_the_order_of_the_data_and_those_of_several_classes_are_none(tmp_path: Path) -> None:
    teacher = model(nn.Linear(6, 4))
    mapped = map_teacher(teacher, ["c2", "c0"])
    assert torch.equal(rows_of(mapped, IMAGES), teacher.net[3].weight[[2, 0]])
    (tmp_path / "map.yaml").write_text("{a: [c0, c1], b: c3}")
    with pytest.raises(ModelError, match="several of its classes are taken as one"):
        rows_of(map_teacher(teacher, ["a", "b"], tmp_path / "map.yaml"), IMAGES)


def test_of_words_it_is_what_they_are_encoded_to() -> None:
    head = torch.nn.functional.normalize(torch.randn(4, 192), dim=1)
    words = VisionModel(
        Prompted(nn.Flatten(), head, torch.full((4,), torch.nan), 100.0, 0.0, {}), name="words", num_classes=4
    )
    assert torch.equal(rows_of(words, IMAGES), head)


def test_of_several_views_it_is_the_networks_and_of_several_networks_there_is_none() -> None:
    teacher = model(nn.Linear(6, 4))
    settings = teacher.settings()
    views = VisionModel(**{**settings, "net": SeveralViews(teacher.net, 2)})
    assert torch.equal(rows_of(views, IMAGES), teacher.net[3].weight)
    # Of one picture the surest answers as it does alone: that it is one of several is not seen in its answer.
    both = Ensemble([teacher, model(nn.Linear(6, 4))], [1.0, 1.0], "surest", [None, None], 4)
    with pytest.raises(ModelError, match="mine: several networks have no last layer in common"):
        rows_of(VisionModel(**{**settings, "net": both}), IMAGES)


def test_a_dense_teachers_is_its_last_convolution() -> None:
    teacher = catalog.build("digits/unet_4_4", num_classes=11)
    layers = [one for one in teacher.net.modules() if isinstance(one, nn.Conv2d) and one.out_channels == 11]
    for images in (IMAGES, IMAGES[:, :, :7, :5]):  # which it pads
        assert torch.equal(rows_of(teacher, images), layers[-1].weight.flatten(1))


@pytest.mark.parametrize("corners", [False, True])
def test_a_convolution_whose_output_is_made_larger_is_the_last_layer_all_the_same(corners: bool) -> None:
    small = nn.Sequential(nn.Conv2d(3, 5, 3, stride=2), nn.ReLU(), nn.Conv2d(5, 4, 1))
    larger = nn.Upsample((8, 8), mode="bilinear", align_corners=corners)
    teacher = VisionModel(nn.Sequential(small, larger), name="dense", num_classes=4, task="segmentation")
    assert torch.equal(rows_of(teacher, IMAGES), small[2].weight.flatten(1))


def test_terms_are_told_through_wrappers_and_nobody_is_asked_in_vain() -> None:
    teacher = model(nn.Linear(6, 4))
    wrapped = {"objective": "class_weighted", "of": "wkd"}
    objective = WeightedSum({"wkd": {}, "wrapped": wrapped, "balance": {}})
    tell(objective, teacher, lambda: IMAGES)
    expected = cosines(teacher.net[3].weight)
    found = [one.likeness for one in objective.modules() if isinstance(one, WassersteinLogits)]
    assert len(found) == 2
    assert all(isinstance(one, Tensor) and torch.equal(one, expected) for one in found)

    def asked() -> Tensor:
        raise AssertionError("no images are needed")

    tell(WeightedSum({"balance": {}, "wkd": {"likeness": torch.eye(4).tolist()}}), None, asked)


def test_what_is_missing_is_said_with_both_ways_out() -> None:
    objective = WeightedSum({"mine": {"objective": "wkd"}})
    with pytest.raises(ConfigError, match=r"objective\.mine .* a store holds .*teacher\.checkpoint.*mine\.likeness"):
        tell(objective, None, lambda: IMAGES)
    with pytest.raises(ConfigError, match=r"objective\.mine: mine: what it answers.* Else say.*mine\.likeness"):
        tell(objective, model(nn.Linear(6, 4), nn.LayerNorm(4)), lambda: IMAGES)
