"""hf/segformer-b0 to hf/segformer-b5, and hf/FOLDER or hf/OWNER/NAME: networks of Hugging Face transformers.

A folder, or what the hub calls OWNER/NAME, holds SegFormer or a network of pictures with or without a classifier: see
`models.hf_pictures`. With prompts it is CLIP, SigLIP or SigLIP 2: see `models.prompts.towers`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from counterpoise.errors import ModelError, nearest, unknown
from counterpoise.models import checkpoint, hf_folder, hf_pictures, published
from counterpoise.models.families.base import Built, Part, Request, State, cannot_build, each_channel, register
from counterpoise.models.hf_folder import FILES, library
from counterpoise.models.prompts import towers
from counterpoise.models.prompts.reading import Prompts

DECODER = "decode_head."
HEAD = f"{DECODER}classifier."
# Xie et al., SegFormer, arXiv:2105.15203, table 6: widths, depths and the decoder's width.
NARROW, WIDE = [32, 64, 160, 256], [64, 128, 320, 512]
SIZES: dict[str, dict[str, Any]] = {
    "segformer-b0": {"hidden_sizes": NARROW, "depths": [2, 2, 2, 2], "decoder_hidden_size": 256},
    "segformer-b1": {"hidden_sizes": WIDE, "depths": [2, 2, 2, 2], "decoder_hidden_size": 256},
    "segformer-b2": {"hidden_sizes": WIDE, "depths": [3, 4, 6, 3], "decoder_hidden_size": 768},
    "segformer-b3": {"hidden_sizes": WIDE, "depths": [3, 4, 18, 3], "decoder_hidden_size": 768},
    "segformer-b4": {"hidden_sizes": WIDE, "depths": [3, 8, 27, 3], "decoder_hidden_size": 768},
    "segformer-b5": {"hidden_sizes": WIDE, "depths": [3, 6, 40, 3], "decoder_hidden_size": 768},
}
ARGUMENTS = (
    "num_encoder_blocks",
    "depths",
    "sr_ratios",
    "hidden_sizes",
    "patch_sizes",
    "strides",
    "num_attention_heads",
    "mlp_ratios",
    "hidden_act",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "classifier_dropout_prob",
    "initializer_range",
    "drop_path_rate",
    "layer_norm_eps",
    "decoder_hidden_size",
)


def names() -> list[str]:
    """The published sizes; a folder is named by its path."""
    return list(SIZES)


def publish(name: str, request: Request, pretrained: bool | str) -> checkpoint.Weights:
    """The weights in the folder; for the published sizes, the encoder trained on ImageNet."""
    if isinstance(pretrained, str):
        raise ModelError(f"hf/{name} has no weights of tag '{pretrained}': give `pretrained: true`.")
    if name in SIZES:
        path = published.from_hub(f"nvidia/mit-{name[-2:]}", FILES, None, f"the encoder of hf/{name}")
        return checkpoint.Weights(str(path), checkpoint.read(path).state)
    folder = _folder(name)
    config = hf_folder.description(folder)
    if hf_pictures.kind_of(config) is not None:
        return hf_pictures.publish(library(), name, folder, config, request)
    shown = hf_folder.shown(folder)
    return replace(
        hf_folder.weights(folder, name),
        arguments=_described(folder, config),
        classes=hf_folder.names(config),
        mean=shown.mean,
        std=shown.std,
    )


def convert(name: str, request: Request, state: State) -> Part | None:
    """A state in the names of the installed transformers, None where it is not of this network.

    For a file of the encoder alone the decoder starts anew, and the head is left out.
    """
    if (pictures := _of_pictures(name, request)) is not None:
        return hf_pictures.convert(library(), name, pictures.arguments, request, state)
    head = state.get(f"{HEAD}weight")
    arguments, count = _arguments(name, request)
    transformers = library()
    config = _config(transformers, name, arguments, count if head is None else len(head))
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()  # it tells at length that a head is missing
    try:
        net, report = transformers.SegformerForSemanticSegmentation.from_pretrained(
            None, config=config, state_dict=dict(state), output_loading_info=True
        )
    except RuntimeError:  # tensors of other shapes
        return None
    finally:
        transformers.logging.set_verbosity(verbosity)
    read = hf_folder.read(net, report)
    if any(key.startswith(DECODER) for key in state):
        return read
    started = {key: value for key, value in net.state_dict().items() if key.startswith(DECODER)}
    return Part({**{k: v for k, v in started.items() if not k.startswith(HEAD)}, **read.state}, read.left)


def prompted(name: str, prompts: Prompts, device: torch.device) -> Built:
    """A classifier of pictures by words."""
    return towers.build(library(), name, prompts, device)


@register(
    "hf",
    summary="SegFormer of Hugging Face transformers; hf/FOLDER or hf/OWNER/NAME as it saves SegFormer, ViT, DINOv2, "
    "ResNet and others, with or without a classifier; with prompts CLIP and SigLIP (extra hf)",
    names=names,
    published=publish,
    convert=convert,
    prompted=prompted,
)
def build(name: str, request: Request) -> Built:
    """A network of pictures, or a SegFormer: its logits are of a quarter of the image's resolution, of any size."""
    if (pictures := _of_pictures(name, request)) is not None:
        return hf_pictures.build(library(), name, pictures.arguments, request, pictures.classes, pictures.shown)
    given, count = _arguments(name, request)
    transformers = library()
    config = _config(transformers, name, {**given, "num_channels": request.channels}, count)
    try:
        net: nn.Module = transformers.SegformerForSemanticSegmentation(config)
    except Exception as error:  # kinds differ between versions of transformers
        raise cannot_build(f"hf/{name}", given, error) from error
    held = {key: getattr(config, key) for key in ARGUMENTS}
    arguments = {key: list(value) if isinstance(value, tuple) else value for key, value in held.items()}
    folder = None if name in SIZES or set(request.arguments) == set(ARGUMENTS) else hf_folder.located(name)
    shown = hf_folder.Shown() if folder is None else hf_folder.shown(folder)
    # transformers 4 has no module whose output is a stage
    stages = [key for key, module in net.named_modules() if type(module).__name__ == "SegformerStage"]
    return Built(
        net,
        count,
        arguments,
        mean=each_channel(shown.mean, request.channels),
        std=each_channel(shown.std, request.channels),
        stages=[*stages, "decode_head.activation"],
        task="segmentation",
    )


class _Pictures(NamedTuple):
    """Arguments of a network of pictures, its number of classes, and how pictures are shown to it."""

    arguments: Mapping[str, Any]
    classes: int
    shown: hf_folder.Shown


def _of_pictures(name: str, request: Request) -> _Pictures | None:
    """What a network of pictures is built of; None where the name is SegFormer's, or of nothing."""
    if hf_pictures.KIND in request.arguments:  # a trained student needs its folder no more
        return _Pictures(request.arguments, request.num_classes or 1, hf_folder.Shown())
    if name in SIZES or set(request.arguments) == set(ARGUMENTS):
        return None
    folder = _folder(name)
    config = hf_folder.description(folder)
    if hf_pictures.kind_of(config) is None:
        return None
    arguments = {**hf_pictures.described(library(), config), **request.arguments}
    return _Pictures(arguments, request.num_classes or len(hf_folder.classes(config)), hf_folder.shown(folder))


def _folder(name: str) -> Path:
    """The folder of a name. Raises ModelError where there is none."""
    folder = hf_folder.located(name)
    if folder is None:
        raise ModelError(
            f"hf/{name} is unknown: no folder with a config.json, nor one of {', '.join(SIZES)}.{nearest(name, SIZES)}"
        )
    return folder


def _arguments(name: str, request: Request) -> tuple[dict[str, Any], int]:
    """All arguments of a network, and its number of classes."""
    given = dict(request.arguments)
    for key in given:
        if key not in ARGUMENTS:
            raise ModelError(f"hf/{name}: {unknown('Argument', key, ARGUMENTS)}")
    count = request.num_classes
    if name in SIZES:
        return {**SIZES[name], **given}, count or 1
    if set(given) == set(ARGUMENTS) and count:  # a trained student needs its folder no more
        return given, count
    folder = _folder(name)
    config = hf_folder.description(folder)
    return {**_described(folder, config), **given}, count or len(hf_folder.classes(config))


def _config(transformers: Any, name: str, arguments: Mapping[str, Any], count: int) -> Any:
    try:
        return transformers.SegformerConfig(num_labels=count, **arguments)
    except Exception as error:  # kinds differ between versions of transformers
        raise cannot_build(f"hf/{name}", arguments, error) from error


def _described(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of the SegFormer that a folder describes."""
    kind = config.get("model_type")
    if kind != "segformer":
        others = ", ".join(sorted({*hf_pictures.KINDS, *hf_pictures.TAKEN_AS}))
        raise ModelError(
            f"{folder / hf_folder.CONFIG} describes a network of type {kind}, expected segformer or one of {others}."
        )
    return {key: config[key] for key in ARGUMENTS if key in config}
