from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from counterpoise.errors import ModelError
from counterpoise.models import catalog
from counterpoise.models.families import Request, families
from counterpoise.system import torchvision_guard

SMALL = "torchvision/lraspp_mobilenet_v3_large"


def image(height: int, width: int) -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8)


@pytest.mark.parametrize("name", [SMALL, "torchvision/deeplabv3_mobilenet_v3_large", "torchvision/fcn_resnet50"])
def test_every_parameter_gets_a_gradient(name: str) -> None:
    model = catalog.build(name, num_classes=5)
    assert (model.task, model.input_size) == ("segmentation", None)
    logits = model(image(64, 96))
    scale = 16 if name.endswith("deeplabv3_mobilenet_v3_large") else 8
    assert logits.shape == (2, 5, 64 // scale, 96 // scale)
    logits.square().mean().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_answers_are_torchvisions_own_before_its_upsampling() -> None:
    torchvision_guard.ready()
    from torchvision.models import get_model

    theirs = get_model("lraspp_mobilenet_v3_large", weights=None, weights_backbone=None, num_classes=4).eval()
    ours = catalog.build(SMALL, num_classes=4).eval()
    ours.net.load_state_dict(theirs.state_dict())
    pixels = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        resized = F.interpolate(ours.net(pixels), (64, 96), mode="bilinear", align_corners=False)
        assert torch.equal(resized, theirs(pixels)["out"])


def test_stages_are_those_of_the_backbone() -> None:
    with torch.device("meta"):
        model = catalog.build("torchvision/deeplabv3_resnet50", num_classes=2)
    assert model.stages == tuple(f"backbone.layer{stage}" for stage in (1, 2, 3, 4))
    small = catalog.build(SMALL, num_classes=2).eval()
    outputs = small(image(45, 70), features=["@-1"])
    assert outputs.logits.shape == (2, 2, 6, 9)
    assert outputs.features["@-1"].shape == (2, 960, 3, 5)


def test_published_file_is_read_without_its_second_classifier() -> None:
    convert = families()["torchvision"].convert
    assert convert is not None
    with torch.device("meta"):
        weights = catalog.build("torchvision/fcn_resnet50", num_classes=2).weights()
    assert convert("fcn_resnet50", Request(), {**weights, "aux_classifier.0.weight": torch.ones(1)}) == weights


def test_weights_of_a_classifier_start_the_backbone_but_are_no_teacher(tmp_path: Path) -> None:
    classifier = catalog.build("torchvision/mobilenet_v3_large", num_classes=7)
    path = tmp_path / "classifier.safetensors"
    save_file(classifier.weights(), path)
    model = catalog.build(SMALL, num_classes=3, checkpoint=path, keep_head=False)
    for name in ("0.0.weight", "16.1.running_mean"):
        assert torch.equal(model.weights()[f"backbone.{name}"], classifier.weights()[f"features.{name}"])
    with pytest.raises(ModelError, match="no classifier"):
        catalog.build(SMALL, num_classes=3, checkpoint=path)


def test_checkpoint_tells_the_number_of_classes_or_gets_a_new_head(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    saved = catalog.build(SMALL, num_classes=3)
    save_file(saved.weights(), path)
    assert catalog.build(SMALL, checkpoint=path).weights_hash() == saved.weights_hash()
    fresh = catalog.build(SMALL, num_classes=6, checkpoint=path, keep_head=False).weights()
    assert fresh["classifier.low_classifier.weight"].shape[0] == 6
    assert torch.equal(fresh["classifier.cbr.0.weight"], saved.weights()["classifier.cbr.0.weight"])


def test_mistakes_are_named() -> None:
    with pytest.raises(ModelError, match=r"'deeplabv3_resnet5' is unknown\. Did you mean 'deeplabv3_resnet50'"):
        catalog.build("torchvision/deeplabv3_resnet5")
    with pytest.raises(ModelError, match="aux_loss cannot be among the arguments"):
        catalog.build(SMALL, arguments={"aux_loss": True})
    with pytest.raises(ModelError, match=r"'IMAGENET' is unknown\. .*COCO_WITH_VOC_LABELS_V1.*IMAGENET1K_V1"):
        catalog.build(SMALL, pretrained="imagenet")
