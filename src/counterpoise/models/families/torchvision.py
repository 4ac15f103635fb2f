"""torchvision/NAME: the classifiers and segmentation networks of torchvision, and their published weights."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn

from counterpoise.errors import ModelError, unknown
from counterpoise.models import checkpoint, imagenet, published
from counterpoise.models.families.base import BUILDING, Built, Request, cannot_build, each_channel, register
from counterpoise.models.imagenet import MEAN, STD
from counterpoise.models.padding import Padded
from counterpoise.system import torchvision_guard

INCEPTIONS = ("googlenet", "inception_v3")
# Their side branches serve only to train from nothing, and their published weights want another normalization than the
# other networks, which torchvision patches into the network's input and we state as mean and std.
INCEPTION_ARGUMENTS = {"aux_logits": False, "transform_input": False, "init_weights": True}
SIDE_BRANCHES = ("aux1.", "aux2.", "AuxLogits.", "aux_classifier.")
# Heads of segmentation: DeepLab's and FCN's fifth layer, the two of LR-ASPP.
HEADS = re.compile(r"classifier\.(4|low_classifier|high_classifier)\.")
STRIDES = {"resnet": 8, "mobilenet": 16}  # of their dilated backbones


class Segmenter(Padded):
    """A segmentation network that answers at its own resolution; parameters are named as torchvision does."""

    def __init__(self, net: Any, stride: int) -> None:
        super().__init__(stride)
        self.backbone: nn.Module = net.backbone
        self.classifier: nn.Module = net.classifier

    def answer(self, images: Tensor) -> Tensor:
        """Logits at the resolution of the classifier."""
        features = self.backbone(images)
        logits: Tensor = self.classifier(features.get("out", features))  # LR-ASPP takes two features
        return logits


def names() -> list[str]:
    """All classifiers and segmentation networks of the torchvision that is installed."""
    torchvision_guard.ready()
    from torchvision import models

    return [*models.list_models(models), *_segmenters()]


def publish(name: str, request: Request, pretrained: bool | str) -> checkpoint.Weights:
    """Published weights: those torchvision calls DEFAULT, or those of a tag such as IMAGENET1K_V1.

    Those of segmentation are of COCO with the classes of Pascal VOC; tags of ImageNet name weights of the backbone.
    """
    _check(name)
    from torchvision.models import get_model_weights

    segmenter = name in _segmenters()
    own = get_model_weights(name).__members__
    kinds = {**get_model_weights(name.partition("_")[2]).__members__, **own} if segmenter else own
    tag = pretrained.upper() if isinstance(pretrained, str) else "DEFAULT"
    if tag not in kinds:
        raise ModelError(unknown(f"Tag of torchvision/{name}", tag, [kind for kind in kinds if kind != "DEFAULT"]))
    kind = kinds[tag]
    path = published.from_url(kind.url, None, f"torchvision/{name}")
    state = _rename(name, checkpoint.read(path).state)
    if segmenter:
        return checkpoint.Weights(str(path), state, classes=tuple(kind.meta["categories"]) if tag in own else None)
    preset = kind.transforms()
    size = preset.crop_size[0]
    count = len(kind.meta["categories"])
    return checkpoint.Weights(
        origin=str(path),
        state=state,
        arguments={"image_size": size} if name.startswith("vit_") and size != 224 else {},
        classes=imagenet.classes(count) or tuple(kind.meta["categories"]),
        input_size=size,
        crop_share=min(1.0, size / preset.resize_size[0]),
    )


def convert(name: str, request: Request, state: dict[str, Tensor]) -> dict[str, Tensor] | None:
    """The state of a published file in today's names; that of a classifier becomes the backbone of a segmenter."""
    renamed = _rename(name, state)
    if name not in _segmenters() or any(key.startswith("backbone.") for key in renamed):
        return renamed
    own: dict[str, Tensor] = build(name, request).net.state_dict()
    backbone = {f"backbone.{key.removeprefix('features.')}": value for key, value in renamed.items()}
    needed = {key for key in own if key.startswith("backbone.")}
    if any(key not in backbone for key in needed if not key.endswith("num_batches_tracked")):
        return None
    found = {key: backbone.get(key, value) for key, value in own.items()}
    return {key: value for key, value in found.items() if not HEADS.match(key)}


@register(
    "torchvision",
    summary="classifiers and segmentation networks of torchvision, with published weights",
    names=names,
    published=publish,
    convert=convert,
)
def build(name: str, request: Request) -> Built:
    """A network of torchvision, classifiers with the input size of their default weights."""
    _check(name)
    from torchvision.models import get_model_weights

    if name in _segmenters():
        return _segmenter(name, request)
    inception = name in INCEPTIONS
    arguments = {**(INCEPTION_ARGUMENTS if inception else {}), **request.arguments}
    size = arguments.get("image_size", get_model_weights(name).DEFAULT.transforms().crop_size[0])
    if name.startswith("vit_"):
        size = request.input_size or arguments.get("image_size", 224)
        arguments["image_size"] = size
    num_classes = 1000 if request.num_classes is None else request.num_classes
    net = _create(name, request, num_classes=num_classes, **arguments)
    if request.channels != 3:
        _take_channels(net, request.channels)
    return Built(
        net,
        num_classes,
        arguments,
        mean=each_channel((0.5,) if inception else MEAN, request.channels),
        std=each_channel((0.5,) if inception else STD, request.channels),
        input_size=size,
        crop_share=0.875,
        stages=_stages(net),
    )


def _segmenter(name: str, request: Request) -> Built:
    if "aux_loss" in request.arguments:
        raise ModelError(f"torchvision/{name}: aux_loss cannot be among the arguments: objectives take one answer.")
    num_classes = 21 if request.num_classes is None else request.num_classes  # as published
    whole = _create(name, request, num_classes=num_classes, weights_backbone=None, **request.arguments)
    net = Segmenter(whole, next(stride for kind, stride in STRIDES.items() if kind in name))
    if request.channels != 3:
        _take_channels(net.backbone, request.channels)
    mean, std = (each_channel(values, request.channels) for values in (MEAN, STD))
    stages = [f"backbone.{stage}" for stage in _stages(net.backbone) or dict(net.backbone.named_children())]
    return Built(net, num_classes, request.arguments, mean=mean, std=std, stages=stages, task="segmentation")


def _create(name: str, request: Request, **arguments: Any) -> nn.Module:
    from torchvision.models import get_model

    try:
        net: nn.Module = get_model(name, weights=None, **arguments)
    except BUILDING as error:
        raise cannot_build(f"torchvision/{name}", request.arguments, error) from error
    return net


def _take_channels(net: nn.Module, channels: int) -> None:
    """Put another first convolution into a network, for as many channels, drawn as widely as its own was."""
    found: tuple[str, Any] = next((key, value) for key, value in net.named_modules() if isinstance(value, nn.Conv2d))
    name, old = found
    kept = old.out_channels, old.kernel_size, old.stride, old.padding
    new = nn.Conv2d(channels, *kept, bias=old.bias is not None)
    with torch.no_grad():
        if not new.weight.is_meta:
            nn.init.normal_(new.weight, std=float(old.weight.std()) * (3 / channels) ** 0.5)
        if new.bias is not None:
            new.bias.zero_()
    net.set_submodule(name, new)


def _segmenters() -> list[str]:
    torchvision_guard.ready()
    from torchvision import models

    listed: list[str] = models.list_models(models.segmentation)
    return listed


def _check(name: str) -> None:
    known = names()
    if name not in known:
        raise ModelError(unknown("torchvision model", name, known))


def _rename(name: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    if name in INCEPTIONS or name in _segmenters():
        return {key: value for key, value in state.items() if not key.startswith(SIDE_BRANCHES)}
    # files of DenseNet are older than the rule that names hold no dot: denselayer1.norm.1.weight
    return {re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)", r"\1\2", key): value for key, value in state.items()}


def _stages(net: nn.Module) -> list[str]:
    children = dict(net.named_children())
    layers = [child for child in children if re.fullmatch(r"(layer|stage|block)_?\d", child)]
    if layers or "features" not in children:
        return layers
    return [f"features.{child}" for child, _ in children["features"].named_children()]
