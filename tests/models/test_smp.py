from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from counterpoise.errors import ModelError
from counterpoise.models import catalog
from counterpoise.models.network import VisionModel
from counterpoise.system import torchvision_guard

PAIRS = [
    "pspnet:resnet18",
    "pspnet:mobilenet_v2",
    "pspnet:efficientnet-b0",
    "pspnet:mit_b0",
    "deeplabv3plus:tu-mobilenetv3_small_100",
    "fpn:efficientnet-b0",
    "unet:mobilenet_v2",
    "upernet:tu-test_resnet",
]


def image(height: int, width: int) -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8)


@pytest.mark.parametrize("pair", PAIRS)
def test_every_parameter_gets_a_gradient(pair: str) -> None:
    model = catalog.build(f"smp/{pair}", num_classes=5)
    logits = model(image(64, 64))
    assert logits.shape[:2] == (2, 5)
    logits.square().mean().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_pspnet_is_that_of_the_paper() -> None:
    model = catalog.build("smp/pspnet:resnet18", num_classes=5).eval()
    assert model.arguments == {"encoder_depth": 5, "output_stride": 8}
    outputs = model(image(64, 96), features=["@-2", "@-1"])
    assert outputs.logits.shape == (2, 5, 8, 12)
    assert model.stages[-2:] == ("encoder.layer4", "decoder")
    assert outputs.features["@-2"].shape == (2, 512, 8, 12)
    assert outputs.features["@-1"].shape == (2, 512, 8, 12)


def test_layers_beyond_a_depth_of_ones_own_are_left_out() -> None:
    model = catalog.build("smp/pspnet:resnet18", num_classes=5, arguments={"encoder_depth": 3})
    assert not any(".layer3." in name or ".layer4." in name for name in model.weights())
    assert model(image(40, 40)).shape == (2, 5, 5, 5)


@pytest.mark.parametrize(
    ("pair", "stride"), [("deeplabv3:mobilenet_v2", 8), ("fpn:mobilenet_v2", 4), ("unet:mobilenet_v2", 1)]
)
def test_images_of_any_size_are_answered_at_the_networks_own_resolution(pair: str, stride: int) -> None:
    model = catalog.build(f"smp/{pair}", num_classes=3).eval()
    assert (model.task, model.input_size) == ("segmentation", None)
    assert model(image(45, 70)).shape == (2, 3, -(-45 // stride), -(-70 // stride))


def test_names_pair_architectures_and_encoders() -> None:
    listed = catalog.names("smp")
    assert {"smp/pspnet:resnet18", "smp/deeplabv3:mobilenet_v2", "smp/unet:resnet50"} <= set(listed)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("smp/pspnt:resnet18", r"'pspnt' is unknown\. Did you mean 'pspnet'"),
        ("smp/pspnet", r"names no encoder: smp/pspnet:ENCODER, such as smp/pspnet:resnet18"),
        ("smp/pspnet:resnet17", r"'resnet17' of smp/pspnet:resnet17 is unknown\. Did you mean 'resnet"),
        ("smp/unet:timm-mobilenetv3_small_100", r"network of timm: smp/unet:tu-mobilenetv3_small_100\."),
        ("smp/fpn:mobilenetv3_small_100", r"network of timm: smp/fpn:tu-mobilenetv3_small_100\."),
        ("smp/unet:tu-resnt18", r"timm model 'resnt18' is unknown\. Did you mean 'resnet18'"),
        ("smp/deeplabv3:densenet121", "smp/deeplabv3:densenet121 cannot be built: "),
        ("smp/fpn:tu-swin_tiny_patch4_window7_224", r"fails on an image of 256 x 256: .* argument img_size"),
    ],
)
def test_unknown_or_unfit_parts_of_a_name_are_told(name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        catalog.build(name, num_classes=2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"wings": 2}, "Argument 'wings' is unknown"),
        ({"upsampling": 8}, "upsampling cannot be among the arguments: logits stay"),
        ({"encoder_weights": "imagenet"}, "weights are named by checkpoint or pretrained"),
        ({"encoder_depth": 9}, "cannot be built with {'encoder_depth': 9}"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        catalog.build("smp/pspnet:resnet18", num_classes=2, arguments=arguments)


def test_arguments_of_a_network_build_it_again(tmp_path: Path) -> None:
    model = catalog.build("smp/pspnet:efficientnet-b0", num_classes=3, arguments={"psp_out_channels": 16}).eval()
    path = tmp_path / "weights.safetensors"
    save_file(model.weights(), path, metadata={"architecture": model.name})
    loaded = catalog.build(None, checkpoint=path, arguments=model.arguments)
    assert loaded.weights_hash() == model.weights_hash()


def test_file_of_the_library_is_read(tmp_path: Path) -> None:
    torchvision_guard.ready()
    import segmentation_models_pytorch as smp

    theirs = smp.Unet("efficientnet-b0", encoder_weights=None, classes=4).eval()
    path = tmp_path / "unet.pt"
    torch.save(theirs.state_dict(), path)
    ours = catalog.build("smp/unet:efficientnet-b0", checkpoint=path).eval()
    assert ours.num_classes == 4
    pixels = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(ours.net(pixels), theirs(pixels))


def test_weights_of_a_classifier_start_the_encoder_but_are_no_teacher(tmp_path: Path) -> None:
    name = "smp/deeplabv3plus:tu-test_resnet"
    classifier = catalog.build("timm/test_resnet", num_classes=7)
    path = tmp_path / "classifier.safetensors"
    save_file(classifier.weights(), path)

    def start() -> VisionModel:
        torch.manual_seed(3)
        return catalog.build(name, num_classes=3, checkpoint=path, keep_head=False)

    model = start()
    layers = [key for key in classifier.weights() if key.startswith("layer")]
    assert len(layers) > 20
    assert all(torch.equal(model.weights()[f"encoder.model.{key}"], classifier.weights()[key]) for key in layers)
    assert model.weights_hash() == start().weights_hash()  # decoder and head are drawn from the seed
    with pytest.raises(ModelError, match="no classifier"):
        catalog.build(name, num_classes=3, checkpoint=path)


def test_half_of_a_classifier_starts_no_encoder(tmp_path: Path) -> None:
    classifier = catalog.build("timm/test_resnet", num_classes=7).weights()
    path = tmp_path / "half.safetensors"
    save_file({key: value for key, value in classifier.items() if not key.startswith("layer4.")}, path)
    with pytest.raises(ModelError, match="does not fit smp/fpn:tu-test_resnet"):
        catalog.build("smp/fpn:tu-test_resnet", num_classes=3, checkpoint=path, keep_head=False)


def test_published_encoder_that_is_not_here_names_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match=r"model\.safetensors of https://huggingface\.co/smp-hub/resnet18\.imagenet"):
        catalog.build("smp/pspnet:resnet18", num_classes=3, pretrained=True, keep_head=False)
    with pytest.raises(ModelError, match=r"'imagnet' is unknown\. Did you mean 'imagenet'"):
        catalog.build("smp/pspnet:resnet18", num_classes=3, pretrained="imagnet", keep_head=False)


def test_published_encoder_is_taken_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    source = catalog.build("torchvision/mobilenet_v2", num_classes=9)
    revision = "e67aa804e17f7b404b629127eabbd224c4e0690b"
    snapshot = tmp_path / "models--smp-hub--mobilenet_v2.imagenet" / "snapshots" / revision
    snapshot.mkdir(parents=True)
    save_file(source.weights(), snapshot / "model.safetensors")
    (snapshot / "config.json").write_text(json.dumps({"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    model = catalog.build("smp/pspnet:mobilenet_v2", num_classes=3, pretrained=True, keep_head=False)
    assert model.normalization == {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}
    assert torch.equal(model.weights()["encoder.features.18.1.bias"], source.weights()["features.18.1.bias"])
    assert model.classes is None
    with pytest.raises(ModelError, match="no classifier"):
        catalog.build("smp/pspnet:mobilenet_v2", num_classes=3, pretrained=True)


def test_an_encoder_from_a_classifier_shows_scenes_its_own_way(tmp_path: Path) -> None:
    classifier = catalog.build("timm/test_resnet", num_classes=3)
    file = tmp_path / "classifier.safetensors"
    save_file(classifier.weights(), file, {"architecture": "timm/test_resnet", "input_size": "64"})
    assert catalog.build("timm/test_resnet", num_classes=3, checkpoint=file).input_size == 64
    model = catalog.build("smp/fpn:tu-test_resnet", num_classes=5, checkpoint=file, keep_head=False)
    first = "layer1.0.conv1.weight"
    assert torch.equal(model.weights()[f"encoder.model.{first}"], classifier.weights()[first])
    assert model.input_size is None
    assert "is timm/test_resnet: smp/fpn:tu-test_resnet starts from it where it can, all else anew." in model.notes[-1]


def test_whole_weights_of_scenes_keep_how_scenes_are_shown(tmp_path: Path) -> None:
    whole = catalog.build("smp/fpn:tu-test_resnet", num_classes=5)
    file = tmp_path / "whole.safetensors"
    save_file(whole.weights(), file, {"architecture": "smp/fpn:tu-test_resnet.r160_in1k", "input_size": "96"})
    model = catalog.build("smp/fpn:tu-test_resnet", num_classes=5, checkpoint=file)
    assert (model.input_size, model.notes) == (96, ())
