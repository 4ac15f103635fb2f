"""torchvision/NAME: the classifiers of torchvision, and their published weights."""

from __future__ import annotations

import re

from torch import Tensor, nn

from counterpoise.errors import ModelError, unknown
from counterpoise.models import checkpoint, guard, imagenet, published
from counterpoise.models.families.base import Built, Request, register

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
INCEPTIONS = ("googlenet", "inception_v3")
# Their side branches serve only to train from nothing, and their published weights want another normalization than the
# other networks, which torchvision patches into the network's input and we state as mean and std.
INCEPTION_ARGUMENTS = {"aux_logits": False, "transform_input": False, "init_weights": True}
SIDE_BRANCHES = ("aux1.", "aux2.", "AuxLogits.")


def names() -> list[str]:
    """All classifiers of the torchvision that is installed."""
    guard.ready()
    from torchvision import models

    listed: list[str] = models.list_models(models)
    return listed


def publish(name: str, request: Request, pretrained: bool | str) -> checkpoint.Weights:
    """Published weights: those torchvision calls DEFAULT, or those of a tag such as IMAGENET1K_V1."""
    _check(name)
    from torchvision.models import get_model_weights

    kinds = get_model_weights(name)
    tag = pretrained.upper() if isinstance(pretrained, str) else "DEFAULT"
    if tag not in kinds.__members__:
        raise ModelError(unknown(f"Tag of torchvision/{name}", tag, [kind.name for kind in kinds]))
    kind = kinds[tag]
    path = published.from_url(kind.url, None, f"torchvision/{name}")
    state = _rename(name, checkpoint.read(path).state)
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
    """The state of a published file in the names of today's networks."""
    return _rename(name, state)


@register(
    "torchvision",
    summary="classifiers of torchvision, with published weights",
    names=names,
    published=publish,
    convert=convert,
)
def build(name: str, request: Request) -> Built:
    """A classifier of torchvision, with the input size of its default weights."""
    _check(name)
    from torchvision.models import get_model, get_model_weights

    inception = name in INCEPTIONS
    arguments = {**(INCEPTION_ARGUMENTS if inception else {}), **request.arguments}
    size = arguments.get("image_size", get_model_weights(name).DEFAULT.transforms().crop_size[0])
    if name.startswith("vit_"):
        size = request.input_size or arguments.get("image_size", 224)
        arguments["image_size"] = size
    num_classes = 1000 if request.num_classes is None else request.num_classes
    try:
        net: nn.Module = get_model(name, weights=None, num_classes=num_classes, **arguments)
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        given = f" with {dict(request.arguments)}" if request.arguments else ""
        raise ModelError(f"torchvision/{name} cannot be built{given}: {error}") from error
    return Built(
        net,
        num_classes,
        arguments,
        mean=(0.5,) * 3 if inception else MEAN,
        std=(0.5,) * 3 if inception else STD,
        input_size=size,
        crop_share=0.875,
        stages=_stages(net),
    )


def _check(name: str) -> None:
    known = names()
    if name not in known:
        raise ModelError(unknown("torchvision model", name, known))


def _rename(name: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    if name in INCEPTIONS:
        return {key: value for key, value in state.items() if not key.startswith(SIDE_BRANCHES)}
    # files of DenseNet are older than the rule that names hold no dot: denselayer1.norm.1.weight
    return {re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)", r"\1\2", key): value for key, value in state.items()}


def _stages(net: nn.Module) -> list[str]:
    children = dict(net.named_children())
    layers = [child for child in children if re.fullmatch(r"(layer|stage|block)_?\d", child)]
    if layers or "features" not in children:
        return layers
    return [f"features.{child}" for child, _ in children["features"].named_children()]
