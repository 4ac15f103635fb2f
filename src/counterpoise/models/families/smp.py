"""smp/ARCHITECTURE:ENCODER: the segmentation networks of segmentation-models-pytorch, such as smp/pspnet:resnet18."""

from __future__ import annotations

import copy
import inspect
import warnings
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from counterpoise.errors import ModelError, damage, nearest, unknown
from counterpoise.models import checkpoint, published
from counterpoise.models.families import timm
from counterpoise.models.families.base import (
    BUILDING,
    Built,
    Request,
    State,
    cannot_build,
    each_channel,
    read_by_library,
    register,
)
from counterpoise.models.imagenet import MEAN, STD
from counterpoise.models.padding import Padded
from counterpoise.system import documents, torchvision_guard

TIMM = "tu-"  # how the library marks encoders that timm builds
HEAD = "segmentation_head."
TRIAL_SIZE = 256
FIXED = {  # beside what is reserved for all families
    "upsampling": "logits stay at the network's own resolution, the task resizes them",
    "aux_params": "objectives take one tensor of logits",
}
# The library's PSPNet ends its encoder after the third of five stages, so that most of a ResNet-18 is never used. In
# the paper (Zhao et al., arXiv:1612.01105) the ResNet is whole, and dilated to an output stride of 8.
PSPNET = {"encoder_depth": 5, "output_stride": 8}
STRIDE_UNDILATED = 32


class Network(Padded):
    """A network of the library without its last upsampling, and without layers that do not serve its answer.

    Names of parameters are the library's: encoder, decoder, segmentation_head.

    Args:
        net: as the library builds it; it is taken apart.
        size: edge of an image that it can take.
        channels: of that.

    Attributes:
        stages: submodules whose outputs are the encoder's features, and the decoder.
    """

    def __init__(self, net: Any, size: int = TRIAL_SIZE, channels: int = 3) -> None:
        super().__init__(int(net.encoder.output_stride))
        self.encoder: nn.Module = net.encoder
        self.decoder: nn.Module = net.decoder
        self.segmentation_head: nn.Module = net.segmentation_head
        self.segmentation_head[1] = nn.Identity()
        self.stages, unused = _try_out(self, size, channels)
        _drop(self, unused)

    def answer(self, images: Tensor) -> Tensor:
        """Logits at the resolution of the decoder's output."""
        logits: Tensor = self.segmentation_head(self.decoder(self.encoder(images)))
        return logits


class Unused(nn.Module):
    """In the place of a layer whose output is thrown away."""

    def forward(self, images: Tensor, *further: Any) -> Tensor:
        """The images as they are."""
        return images


def names() -> list[str]:
    """All pairs of an architecture and one of the library's own encoders; tu-NAME, a network of timm, is one too."""
    smp = _library()
    encoders = [name for name in smp.encoders.get_encoder_names() if not name.startswith("timm-")]  # deprecated ones
    return [f"{architecture}:{encoder}" for architecture in _architectures() for encoder in encoders]


def publish(name: str, request: Request, pretrained: bool | str) -> checkpoint.Weights:
    """Published weights of the encoder, by default those of ImageNet. Decoder and head start anew."""
    encoder = _parts(name)[1]
    if encoder.startswith(TIMM):
        held = timm.publish(encoder.removeprefix(TIMM), Request(), pretrained)
        return checkpoint.Weights(held.origin, held.state, mean=held.mean, std=held.std)
    kinds = _library().encoders.encoders[encoder]["pretrained_settings"]
    tag = pretrained if isinstance(pretrained, str) else "imagenet" if "imagenet" in kinds else next(iter(kinds), "")
    if tag not in kinds:
        raise ModelError(unknown(f"Tag of the encoder {encoder}", tag, list(kinds)))
    source = (kinds[tag]["revision"], f"the encoder of smp/{name}")
    path = published.from_hub(kinds[tag]["repo_id"], ["model.safetensors"], *source)
    described = published.from_hub(kinds[tag]["repo_id"], ["config.json"], *source)
    try:
        settings = documents.read_json(described)
        mean, std = tuple(settings["mean"]), tuple(settings["std"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ModelError(f"{described} does not say how pictures are normalized: {damage(error)}.") from None
    return checkpoint.Weights(str(path), checkpoint.read(path).state, mean=mean, std=std)


def convert(name: str, request: Request, state: State) -> State | None:
    """The state of a file of the library, or of an encoder alone, in this network's terms; None where it is neither."""
    architecture, encoder = _parts(name)
    if any(key.startswith("encoder.") for key in state):
        raw, _ = _create(architecture, encoder, request)
        whole = raw.state_dict().keys()
        kept = _network(raw, name, request).state_dict().keys()
        return {key: value for key, value in state.items() if key in kept or key not in whole}

    def read(given: State) -> State:
        by_timm = encoder.startswith(TIMM)
        raw, _ = _create(architecture, encoder, request, given if by_timm else None)
        if not by_timm:
            raw.encoder.load_state_dict(dict(given))  # it renames and removes what it must
        return dict(_network(raw, name, request).state_dict())

    try:
        own, lacking = read_by_library(read, state)
    except (ModelError, RuntimeError, KeyError):
        return None
    if any(key.startswith("encoder.") for key in lacking):
        return None
    return {key: value for key, value in own.items() if not key.startswith(HEAD)}


@register(
    "smp",
    summary="segmentation networks ARCHITECTURE:ENCODER of segmentation-models-pytorch, with published encoders",
    names=names,
    published=publish,
    convert=convert,
)
def build(name: str, request: Request) -> Built:
    """A segmentation network that answers at its own resolution; images of any size are padded to its stride."""
    raw, arguments = _create(*_parts(name), request)
    net = _network(raw, name, request)
    count = 1 if request.num_classes is None else request.num_classes
    mean, std = (each_channel(values, request.channels) for values in (MEAN, STD))
    return Built(net, count, arguments, mean=mean, std=std, stages=net.stages, task="segmentation")


def _library() -> Any:
    torchvision_guard.ready()
    import segmentation_models_pytorch as smp

    return smp


def _architectures() -> dict[str, Any]:
    # DPT is left out: its transformers are built for one size of image
    return {name: make for name, make in _library().MODEL_ARCHITECTURES_MAPPING.items() if name != "dpt"}


def _parts(name: str) -> tuple[str, str]:
    """Architecture and encoder. Raises ModelError where one is unknown or missing."""
    architecture, _, encoder = name.partition(":")
    known = list(_architectures())
    if architecture not in known:
        raise ModelError(unknown("Architecture of segmentation-models-pytorch", architecture, known))
    if not encoder:
        raise ModelError(
            f"smp/{name} names no encoder: smp/{architecture}:ENCODER, such as smp/{architecture}:resnet18."
        )
    if encoder.startswith(TIMM):
        import timm as library

        if not library.is_model(encoder.removeprefix(TIMM).partition(".")[0]):
            raise ModelError(unknown("timm model", encoder.removeprefix(TIMM), library.list_models()))
    elif encoder not in (own := _library().encoders.get_encoder_names()):
        hint = _of_timm(architecture, encoder) or nearest(encoder, own) or f" {TIMM}NAME takes an encoder of timm."
        raise ModelError(f"Encoder '{encoder}' of smp/{name} is unknown.{hint}")
    return architecture, encoder


def _of_timm(architecture: str, encoder: str) -> str:
    """What to write where timm has the encoder under this name; older releases of the library marked some by timm-."""
    import timm as library

    plain = encoder.removeprefix("timm-")
    for name in (plain, plain.replace("-", "_")):
        if library.is_model(name.partition(".")[0]):
            return f" It is a network of timm: smp/{architecture}:{TIMM}{name}."
    return ""


def _create(
    architecture: str, encoder: str, request: Request, state: State | None = None
) -> tuple[Any, dict[str, Any]]:
    """A network of the library and the arguments that build it; with `state`, timm reads its encoder from there."""
    make = _architectures()[architecture]
    name = f"smp/{architecture}:{encoder}"
    given = dict(request.arguments)
    for key in given:
        if key in FIXED:
            raise ModelError(f"{name}: {key} cannot be among the arguments: {FIXED[key]}.")
    known = {*inspect.signature(make).parameters, "output_stride"} - FIXED.keys() - {"kwargs"}
    odd = [key for key in given if key not in known]
    if odd and not encoder.startswith(TIMM):  # the library itself ignores what its own encoders do not know
        raise ModelError(f"{name}: {unknown('Argument', odd[0], sorted(known))}")
    trials = [given]
    if architecture == "pspnet":
        trials = [{**PSPNET, **given}]
        if "output_stride" not in given:
            trials.append({**trials[0], "output_stride": STRIDE_UNDILATED})  # for encoders that cannot be dilated
    fixed: dict[str, Any] = {"encoder_name": encoder, "encoder_weights": None, "classes": request.num_classes or 1}
    fixed["in_channels"] = request.channels
    if state is not None:
        fixed.update(encoder_weights=True, pretrained_cfg_overlay={"state_dict": dict(state), "custom_load": False})
    for arguments in trials:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                return make(**fixed, **arguments), arguments
        except BUILDING as error:  # for a depth or stride that an encoder has not
            reason = error
    raise cannot_build(name, given, reason) from reason


def _network(raw: Any, name: str, request: Request) -> Network:
    size = request.arguments.get("img_size", TRIAL_SIZE)
    try:
        return Network(raw, size if isinstance(size, int) else max(size), request.channels)
    except (AssertionError, RuntimeError, ValueError) as error:  # as networks refuse a size they were not made for
        raise ModelError(
            f"smp/{name} fails on an image of {size} x {size}: {error} "
            f"An encoder for images of one size takes it as the argument img_size."
        ) from error


def _try_out(net: Network, size: int, channels: int) -> tuple[list[str], set[str]]:
    """Stages of a network, and its parameters that its answer does not depend on, from shapes alone."""
    twin = copy.deepcopy(net).to("meta").eval().requires_grad_(True)
    outputs: list[tuple[str, Any]] = []

    def keep(name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if not any(value is output for value in inputs):  # which has passed it on, or worked in place
            outputs.append((name, output))

    for name, module in twin.encoder.named_modules(prefix="encoder"):
        module.register_forward_hook(partial(keep, name))
    with torch.enable_grad():
        features = twin.encoder(torch.zeros(2, channels, size, size, device="meta"))
        twin.segmentation_head(twin.decoder(features)).sum().backward()
    # of the modules that hand on one tensor, the outermost comes last
    makers = [[name for name, output in outputs if output is feature] for feature in features]
    unused = {name for name, parameter in twin.named_parameters() if parameter.grad is None}
    return [*(found[-1] for found in makers if found), "decoder"], unused


def _drop(net: nn.Module, unused: set[str]) -> None:
    """Put `Unused` in the place of the modules all of whose parameters are unused."""
    gone: list[str] = []
    for name, module in list(net.named_modules()):
        held = {f"{name}.{key}" for key, _ in module.named_parameters()}
        if held and held <= unused and not any(name.startswith(f"{above}.") for above in gone):
            net.set_submodule(name, Unused())
            gone.append(name)
