"""From a name to a network: timm/resnet50, torchvision/..., smp/pspnet:resnet18, cifar/resnet8x4, file.py:function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from counterpoise.decoding import Reading
from counterpoise.errors import ModelError, nearest, unknown
from counterpoise.models import checkpoint as checkpoints
from counterpoise.models import first_layer, fitting, trying, two_heads
from counterpoise.models.checkpoint import Weights
from counterpoise.models.families import Built, Family, Request, families
from counterpoise.models.families import file as own
from counterpoise.models.families.base import each_channel
from counterpoise.models.network import Answers, SceneView, VisionModel, are_probabilities
from counterpoise.models.prompts.reading import Prompts
from counterpoise.models.wrapped import Which
from counterpoise.system import own_code

Model = str | nn.Module | Callable[..., nn.Module]
PROBABILITIES = (
    "answers probabilities, from 0 on with a sum of 1, and losses take its answers for logits: they would take the "
    "softmax of a softmax."
)
CHANNELS = ("in_chans", "in_channels", "num_channels")
_WEIGHTS = "weights are named by checkpoint or pretrained"
RESERVED = {
    **dict.fromkeys(CHANNELS, "data.channels says how many channels pictures have"),
    **dict.fromkeys(("weights", "weights_backbone", "encoder_weights", "checkpoint_path"), _WEIGHTS),
    **dict.fromkeys(("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"), _WEIGHTS),
    **dict.fromkeys(("name", "model_name", "encoder_name", "request", "arch"), "the network is named by model"),
    "features_only": "objectives take features from whole networks",
    "activation": "losses take logits",
    "classes": "the number of classes follows from the data",
}
"""Arguments of the libraries that are said otherwise here, and how."""


def names(family: str | None = None) -> list[str]:
    """Names of all networks, or those of one family, each as `build` takes it. Raises ModelError: unknown family."""
    if family is not None and family not in families():
        raise ModelError(_unknown_family(family))
    chosen = families() if family is None else {family: families()[family]}
    return [f"{key}/{name}" for key, value in sorted(chosen.items()) for name in value.names()]


def build(
    model: Model | None,
    *,
    num_classes: int | None = None,
    checkpoint: Path | None = None,
    pretrained: bool | str = False,
    arguments: Mapping[str, Any] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    input_size: int | None = None,
    classes: Sequence[str] | None = None,
    keep_head: bool = True,
    which: Which = "auto",
    outputs: Answers = "auto",
    channels: int | None = None,
    adapt: bool = False,
) -> VisionModel:
    """Build a network, with its weights where some are named.

    Args:
        model: a name of the catalog, a module, or a function called with num_classes and `arguments`; None takes the
            network that `checkpoint` says it holds.
        num_classes: None takes that of the weights, else the network's own.
        checkpoint: file or folder of weights, see `checkpoint.read`.
        pretrained: published weights, the default ones or those of a tag.
        arguments: further arguments of the network, by name.
        mean, std, input_size: default: of the checkpoint, else the network's own.
        classes: names of the classes; default: of the checkpoint or the published weights.
        which: of a file with weights and their moving average; see `checkpoint.read`.
        outputs: what the network answers: logits, probabilities, of which the logarithm is taken, or auto: logits,
            unless it is seen to answer otherwise, which is refused.
        channels: of pictures; default: as the checkpoint says, else three.
        adapt: whether weights for three channels may start a network of other ones, its first layer adapted.
        keep_head: False initializes the head anew where the weights have another number of classes than wanted.

    Returns:
        VisionModel in train mode, on the CPU, in float32.

    Raises:
        ModelError: unknown name, weights that are missing or do not fit, a number of classes that differs.
    """
    if isinstance(model, VisionModel):
        return _of_channels(_ready(model, num_classes, checkpoint is not None or bool(pretrained)), channels)
    if checkpoint is not None and pretrained:
        raise ModelError("checkpoint and pretrained are both given: the weights to start from are either of them.")
    weights = None if checkpoint is None else checkpoints.read(Path(checkpoint), which)
    if model is None:
        model = _named_in(weights)
    name, family, make = _resolve(model)
    wanted = channels or (weights.channels if weights is not None else None) or 3
    held = _held(weights, pretrained, wanted)
    if held != wanted and not (adapt and held == 3):
        origin = f"{name} with published weights" if weights is None else weights.origin
        raise ModelError(f"{origin} is for pictures of {held} channels, and these have {wanted} (data.channels).")
    request = Request(num_classes, {**_arguments_of(weights, name), **(arguments or {})}, input_size, held)
    _check_arguments(name, request.arguments, wanted)
    if wanted != 3 and not is_code(name):
        rest = {key: value for key, value in request.arguments.items() if key not in CHANNELS}
        request = replace(request, arguments=rest)
    if request.arguments.get(two_heads.ARGUMENT):
        make = partial(two_heads.build, make)
    if weights is not None and request.input_size is None:
        request = replace(request, input_size=weights.input_size)
    if pretrained:
        if family is None or family.published is None:
            having = ", ".join(key for key, value in sorted(families().items()) if value.published is not None)
            raise ModelError(f"{name} has no published weights ({having} have some): give its file as checkpoint.")
        one_headed = {key: value for key, value in request.arguments.items() if key != two_heads.ARGUMENT}
        weights = family.published(name.partition("/")[2], replace(request, arguments=one_headed), pretrained)
        request = replace(request, arguments={**weights.arguments, **request.arguments})

    def made(request: Request) -> Built:
        own_size = None if weights is None else weights.input_size
        return trying.in_float32(make(request), name, input_size or own_size)

    notes: list[str] = []
    if weights is None:
        built = made(request)
    else:
        if isinstance(model, nn.Module):
            head, weights = None, fitting.of_module(weights, model)
        else:
            head, weights = fitting.fitted(weights, make, family, name, request)
        if head is not None:
            if not head.classes and keep_head:
                raise ModelError(
                    f"{weights.origin} has no classifier, so it answers nothing to imitate: fit one (counterpoise "
                    "probe), or imitate its features alone (objective features)."
                )
            if keep_head and head.classes != (num_classes or head.classes):
                raise ModelError(f"{weights.origin} has {head.classes} classes, expected {num_classes}.")
            request = replace(request, num_classes=num_classes or head.classes or 1)
        built = made(request)
        fits = head is None or head.classes == request.num_classes
        checkpoints.load(built.net, weights, name, but=() if fits or head is None else head.tensors)
        if fits and classes and weights.classes:
            notes += checkpoints.reorder_head(built.net, head, weights, classes)
        classes = classes or (weights.classes if fits else None)
        beside = built.task == "segmentation" and weights.is_classifier_beside(name)
        if not fits and head is not None and head.classes:
            notes.append(
                f"{weights.origin} has {head.classes} classes and {request.num_classes} are asked for: "
                f"{checkpoints.ANEW}, all else is from there."
            )
        elif not fits and not beside:
            notes.append(f"{weights.origin} has no classifier: {checkpoints.ANEW}, as does all else that it lacks.")
        notes[:0] = weights.notes
        if beside:
            notes.append(
                f"{weights.origin} is {weights.architecture}: {name} starts from it where it can, all else anew."
            )
            weights = weights.of_another()
    if held != wanted:
        built, note = first_layer.adapted(built, made, replace(request, channels=wanted), name)
        notes.append(note)
    if len(built.mean) != wanted:
        raise ModelError(f"{name} takes pictures of {len(built.mean)} channels here, and data.channels is {wanted}.")
    given = Weights("", {}) if weights is None else weights
    size = input_size or given.input_size or built.input_size
    if built.num_classes is None:
        count, seen = trying.count_classes(built, name, num_classes, size)
        notes += _of_answers(name, seen, outputs)
    else:
        count = built.num_classes
    notes += built.notes
    if built.normalization and mean is std is given.mean is given.std is None:
        told = (", ".join(f"{value:g}" for value in values) for values in (built.mean, built.std))
        notes.append(f"{name} is shown pixels with mean {' and std '.join(told)}, as {built.normalization} says.")
    model = VisionModel(
        built.net,
        name=name,
        num_classes=count,
        arguments=built.arguments,
        classes=classes or None,
        mean=mean or each_channel(given.mean or built.mean, wanted),
        std=std or each_channel(given.std or built.std, wanted),
        input_size=size,
        crop_share=given.crop_share or built.crop_share,
        fit=given.fit,
        whole=given.whole,
        scenes=SceneView(*(given.scenes or ())),
        reading=given.reading or Reading(),
        stages=built.stages,
        task=built.task,
        outputs=outputs,
        channels=wanted,
        own=built.num_classes is None,
    )
    model.notes, model.trained_for = tuple(notes), given.task
    return model


def prompted(
    model: Model | None,
    prompts: Prompts,
    device: torch.device,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> VisionModel:
    """A network that takes words as a classifier by these prompts, which `device` encodes, with its own weights.

    Raises:
        ModelError: none is named, or the family has no networks that take words.
    """
    having = [f"{key}/NAME" for key, value in sorted(families().items()) if value.prompted is not None]
    if not isinstance(model, str):
        raise ModelError(f"prompts are for a network that takes words, named by model: {' or '.join(having)}.")
    name, family, _ = _resolve(model)
    if family is None or family.prompted is None:
        raise ModelError(f"{name} takes no words; prompts are for {' and '.join(having)}.")
    built = family.prompted(name.partition("/")[2], prompts, device)
    return VisionModel(
        built.net,
        name=name,
        num_classes=len(prompts.classes),
        arguments=built.arguments,
        classes=prompts.classes,
        mean=mean or built.mean,
        std=std or built.std,
        input_size=built.input_size,
        crop_share=built.crop_share,
        outputs="logits",
    )


def _held(weights: Weights | None, pretrained: bool | str, wanted: int) -> int:
    """How many channels the pictures have that weights are for; as wanted where there are none, or they do not say."""
    if weights is None:
        return 3 if pretrained else wanted
    if weights.channels is not None:
        return weights.channels
    own = [value.shape[1] for value in weights.state.values() if value.ndim == 4]
    return 3 if 3 in own else wanted


def _of_channels(model: VisionModel, channels: int | None) -> VisionModel:
    if channels not in (None, model.channels):
        raise ModelError(f"{model.name} takes pictures of {model.channels} channels, and data.channels is {channels}.")
    return model


def _check_arguments(name: str, arguments: Mapping[str, Any], channels: int) -> None:
    """Raises ModelError for arguments of a network that are said elsewhere, or that none can have here."""
    if "num_classes" in arguments:
        raise ModelError(f"{name}: the number of classes follows from the data, so it cannot be among the arguments.")
    if is_code(name):
        return
    for key, way in RESERVED.items():
        if key in arguments and not (key in CHANNELS and arguments[key] == channels):
            raise ModelError(f"{name}: '{key}' cannot be among the arguments: {way}.")
    strange = [key for key in arguments if not key.isidentifier()]
    if strange:
        raise ModelError(f"{name}: {strange[0]!r:.80} is no name of an argument.")


def _of_answers(name: str, seen: Tensor | None, outputs: Answers) -> list[str]:
    """What is to be said where a network that was tried answers otherwise than it is taken to."""
    if seen is None or outputs == "logits":
        return []
    if outputs == "probabilities":
        if not are_probabilities(seen):
            raise ModelError(f"{name} answers no probabilities: they would be from 0 on, with a sum of 1.")
        return [f"{name} answers probabilities; their logarithm is taken."]
    return [f"{name} {PROBABILITIES}"] if are_probabilities(seen) else []


LISTED = ("cifar", "digits", "timm", "torchvision")
"""Families that list all of their networks; others fetch by name, or put names together."""


def published_by(name: str) -> bool:
    """Whether a network of this name may have published weights. Raises ModelError where there is none of this name.

    Of a family that lists its networks the name is looked up, and nothing is built or fetched.
    """
    _, family, _ = _resolve(name)
    assert family is not None
    key, _, rest = name.partition("/")
    if key in LISTED and not {rest, rest.partition(".")[0]} & {*family.names()}:
        raise ModelError(unknown(f"Network of {key}", rest, list(family.names())))
    return family.published is not None


def is_code(name: str) -> bool:
    """Whether a network of this name is code of the user's own, which must not be run without being asked."""
    return name.partition("/")[0] not in families() or own_code.is_file(name)


def _ready(model: VisionModel, num_classes: int | None, weights: bool) -> VisionModel:
    if weights:
        raise ModelError(
            f"{model.name} is ready, with weights: checkpoint and pretrained are for networks to be built."
        )
    if num_classes is not None and num_classes != model.num_classes:
        raise ModelError(f"{model.name} has {model.num_classes} classes, expected {num_classes}.")
    return model


def _named_in(weights: Weights | None) -> str:
    if weights is None:
        raise ModelError(
            "No network is named: give model, such as timm/resnet50, or a checkpoint that says what it holds."
        )
    if weights.architecture is None:
        raise ModelError(f"{weights.origin} does not say which network it holds: give model, such as timm/resnet50.")
    if is_code(weights.architecture):
        raise ModelError(
            f"{weights.origin} holds {weights.architecture}, code that does not come with it: "
            f"give model, such as path/to/file.py:function."
        )
    return weights.architecture


def _arguments_of(weights: Weights | None, name: str) -> Mapping[str, Any]:
    return weights.arguments if weights is not None and weights.architecture == name else {}


def _resolve(model: Model) -> tuple[str, Family | None, Callable[[Request], Built]]:
    """Name, family and maker of a network."""
    if isinstance(model, nn.Module):
        name = f"{type(model).__module__}:{type(model).__qualname__}"
        return name, None, partial(own.describe, model)
    if not isinstance(model, str):
        name = f"{getattr(model, '__module__', '?')}:{getattr(model, '__qualname__', type(model).__qualname__)}"
        return name, None, partial(own.call, model, name)
    if own_code.is_file(model):
        return model, families()["file"], partial(families()["file"].build, model)
    key, slash, rest = model.partition("/")
    family = families().get(key)
    if family is None or not slash or key == "file":
        raise ModelError(_unknown_family(key) if slash else _without_family(model))
    return model, family, partial(family.build, rest)


def _unknown_family(given: str) -> str:
    known = sorted(set(families()) - {"file"})
    forms = ", ".join(f"{key}/NAME" for key in known)
    return f"Model family '{given}' is unknown.{nearest(given, known)} A model is {forms} or path/to/file.py:function."


def _without_family(given: str) -> str:
    if given in families():
        return f"Model '{given}' is a family: name one of its networks, such as {names(given)[0]}."
    having = [full for full in names() if full.partition("/")[2] == given]
    hint = f" Did you mean {' or '.join(having)}?" if having else nearest(given, names())
    return f"Model '{given}' names no family.{hint} `counterpoise list models` shows all."
