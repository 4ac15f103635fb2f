"""hf/segformer-b0 to hf/segformer-b5, and hf/FOLDER: SegFormer of Hugging Face transformers, from a folder on disk.

With prompts, hf/FOLDER and hf/OWNER/NAME of the hub are CLIP, SigLIP and SigLIP 2: see `models.prompts.towers`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from counterpoise.errors import MissingExtraError, ModelError, nearest, unknown
from counterpoise.models import checkpoint, published
from counterpoise.models.families.base import Built, Request, cannot_build, register
from counterpoise.models.imagenet import MEAN, STD
from counterpoise.models.prompts import towers
from counterpoise.models.prompts.reading import Prompts
from counterpoise.system import documents, torchvision_guard

FILES = ("model.safetensors", "pytorch_model.bin")
HEAD = "decode_head.classifier."
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


@dataclass(frozen=True)
class Folder:
    """What config.json of a folder says.

    Attributes:
        classes: one name a logit, LABEL_0 and so on where nobody gave names.
    """

    arguments: Mapping[str, Any]
    classes: tuple[str, ...]


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
    path = Path(name)
    held = _read(path)
    weights = next((path / file for file in FILES if (path / file).is_file()), path / FILES[0])
    if not weights.is_file():
        raise ModelError(f"{path} holds no weights: expected {' or '.join(FILES)} beside config.json.")
    mean, std = _normalization(path)
    named = not all(re.fullmatch(r"LABEL_\d+", label) for label in held.classes)
    return checkpoint.Weights(
        str(weights),
        checkpoint.read(weights).state,
        arguments=held.arguments,
        classes=held.classes if named else None,
        mean=mean,
        std=std,
    )


def convert(name: str, request: Request, state: dict[str, Tensor]) -> dict[str, Tensor] | None:
    """A state in the names of the installed transformers; a file of the encoder alone leaves the head out."""
    head = state.get(f"{HEAD}weight")
    arguments, count = _arguments(name, request)
    transformers = _library()
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
    missing = {key for key in report["missing_keys"] if not key.endswith("num_batches_tracked")}
    if any(not key.startswith("decode_head.") for key in missing):
        return None
    read: dict[str, Tensor] = net.state_dict()
    return {key: value for key, value in read.items() if key not in missing or not key.startswith(HEAD)}


def prompted(name: str, prompts: Prompts, device: torch.device) -> Built:
    """A classifier of pictures by words."""
    return towers.build(_library(), name, prompts, device)


@register(
    "hf",
    summary="SegFormer of Hugging Face transformers, or hf/FOLDER as it saves one; with prompts CLIP and SigLIP (extra "
    "hf)",
    names=names,
    published=publish,
    convert=convert,
    prompted=prompted,
)
def build(name: str, request: Request) -> Built:
    """A SegFormer; its logits are of a quarter of the image's resolution. It takes images of any size."""
    given, count = _arguments(name, request)
    transformers = _library()
    config = _config(transformers, name, given, count)
    try:
        net: nn.Module = transformers.SegformerForSemanticSegmentation(config)
    except Exception as error:  # kinds differ between versions of transformers
        raise cannot_build(f"hf/{name}", given, error) from error
    held = {key: getattr(config, key) for key in ARGUMENTS}
    arguments = {key: list(value) if isinstance(value, tuple) else value for key, value in held.items()}
    mean, std = (MEAN, STD) if name in SIZES else _normalization(Path(name))
    # transformers 4 has no module whose output is a stage
    stages = [key for key, module in net.named_modules() if type(module).__name__ == "SegformerStage"]
    return Built(
        net, count, arguments, mean=mean, std=std, stages=[*stages, "decode_head.activation"], task="segmentation"
    )


def _library() -> Any:
    torchvision_guard.ready()
    try:
        import transformers
    except ImportError:
        raise MissingExtraError("A model of the family hf", "hf") from None
    return transformers


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
    if not (Path(name) / "config.json").is_file():
        raise ModelError(
            f"hf/{name} is unknown: no folder with a config.json, nor one of {', '.join(SIZES)}.{nearest(name, SIZES)}"
        )
    folder = _read(Path(name))
    return {**folder.arguments, **given}, count or len(folder.classes)


def _config(transformers: Any, name: str, arguments: Mapping[str, Any], count: int) -> Any:
    try:
        return transformers.SegformerConfig(num_labels=count, **arguments)
    except Exception as error:  # kinds differ between versions of transformers
        raise cannot_build(f"hf/{name}", arguments, error) from error


def _read(folder: Path) -> Folder:
    config = _json(folder / "config.json")
    kind = config.get("model_type")
    if kind != "segformer":
        raise ModelError(f"{folder / 'config.json'} describes a network of type {kind}, expected segformer.")
    if config.get("num_channels", 3) != 3:
        raise ModelError(f"{folder / 'config.json'}: num_channels is {config['num_channels']}, expected 3.")
    labels = config.get("id2label") or {"0": "LABEL_0", "1": "LABEL_1"}  # transformers writes none where they are these
    classes = tuple(str(labels[key]) for key in sorted(labels, key=int))
    return Folder({key: config[key] for key in ARGUMENTS if key in config}, classes)


def _normalization(folder: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    path = folder / "preprocessor_config.json"
    held = _json(path) if path.is_file() else {}
    return tuple(held.get("image_mean", MEAN)), tuple(held.get("image_std", STD))


def _json(path: Path) -> dict[str, Any]:
    try:
        values = documents.read_json(path)
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}.") from None
    if not isinstance(values, dict):
        raise ModelError(f"{path} holds a {type(values).__name__}, expected a mapping.")
    return values
