"""Networks of pictures as Hugging Face transformers has them, with a classifier or without one: ViT, DINOv2, ResNet."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from counterpoise.errors import ModelError, unknown
from counterpoise.models import hf_folder
from counterpoise.models.checkpoint import Weights
from counterpoise.models.families.base import Built, Part, Request, cannot_build

KIND = "model_type"
"""The argument that says which kind a network is of, so that it is built again without its folder."""
USUAL_EDGE = 224


class Kind(NamedTuple):
    """A kind of networks.

    Attributes:
        config: its name in transformers.
        net: the class of the network, with a classifier unless `headed`.
        headed: whether transformers has it without a classifier alone, which is then added to its pooled feature.
        sized: whether it has one position for each patch, and so takes pictures of one size.
    """

    config: str
    net: str
    headed: bool = False
    sized: bool = False


KINDS: dict[str, Kind] = {
    "beit": Kind("beit", "BeitForImageClassification"),
    "clip_vision_model": Kind("clip_vision_model", "CLIPVisionModel", headed=True, sized=True),
    "convnext": Kind("convnext", "ConvNextForImageClassification"),
    "convnextv2": Kind("convnextv2", "ConvNextV2ForImageClassification"),
    "deit": Kind("deit", "DeiTForImageClassification", sized=True),
    "deit_distilled": Kind("deit", "DeiTForImageClassificationWithTeacher", sized=True),
    "dinov2": Kind("dinov2", "Dinov2ForImageClassification"),
    "dinov2_with_registers": Kind("dinov2_with_registers", "Dinov2WithRegistersForImageClassification"),
    "dinov3_convnext": Kind("dinov3_convnext", "DINOv3ConvNextModel", headed=True),
    "dinov3_vit": Kind("dinov3_vit", "DINOv3ViTModel", headed=True),
    "ijepa": Kind("ijepa", "IJepaForImageClassification", sized=True),
    "regnet": Kind("regnet", "RegNetForImageClassification"),
    "resnet": Kind("resnet", "ResNetForImageClassification"),
    "siglip_vision_model": Kind("siglip_vision_model", "SiglipVisionModel", headed=True, sized=True),
    "swin": Kind("swin", "SwinForImageClassification"),
    "swinv2": Kind("swinv2", "Swinv2ForImageClassification"),
    "vit": Kind("vit", "ViTForImageClassification", sized=True),
    "vit_msn": Kind("vit_msn", "ViTMSNForImageClassification", sized=True),
}
TAKEN_AS = {"vit_mae": "vit", "clip": "clip_vision_model", "siglip": "siglip_vision_model"}
"""Networks of which a part is taken: the encoder of MAE without its decoder, of CLIP and SigLIP that of pictures."""
OF_NO_USE = {
    *("architectures", "attn_implementation", "auto_map", "chunk_size_feed_forward", "dtype", "id2label"),
    *("is_encoder_decoder", "label2id", "num_labels", "out_features", "out_indices", "output_attentions"),
    *("output_hidden_states", "problem_type", "quantization_config", "return_dict", "stage_names", "torch_dtype"),
    *("transformers_version", "use_cache", KIND),
}
"""Of a description, what is no matter of the network's shape, or follows from the rest."""


class Headed(nn.Module):
    """A network without a classifier, and one on its pooled feature."""

    def __init__(self, backbone: nn.Module, width: int, classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.classifier = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [N, C] of [N, 3, H, W]."""
        logits: Tensor = self.classifier(self.backbone(pixel_values=images).pooler_output)
        return logits


def kind_of(config: Mapping[str, Any]) -> str | None:
    """The kind that config.json describes; None where it is none of these."""
    kind = str(config.get(KIND))
    if kind == "deit" and "DeiTForImageClassificationWithTeacher" in (config.get("architectures") or ()):
        return "deit_distilled"
    kind = TAKEN_AS.get(kind, kind)
    return kind if kind in KINDS else None


def described(library: Any, config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that build the network of a description; code that it names is none of them."""
    kind = kind_of(config)
    assert kind is not None
    inner = config.get("vision_config") if config.get(KIND) in ("clip", "siglip") else config
    given = inner if isinstance(inner, Mapping) else {}
    known = _arguments_of(library, kind)
    return {KIND: kind, **{key: given[key] for key in sorted(known) if key in given}}


def publish(library: Any, name: str, folder: Path, config: Mapping[str, Any], request: Request) -> Weights:
    """The weights of a folder, with what belongs to them."""
    found, shown = hf_folder.weights(folder, name), hf_folder.shown(folder)
    arguments = described(library, config)
    notes = (
        ()
        if shown.said
        else (
            f"{folder} does not say how pixels are normalized ({hf_folder.PROCESSOR}): taken as for ImageNet; mean "
            "and std of the run file say it otherwise.",
        )
    )
    held = [value for key, value in found.state.items() if _is_head(key) and key.endswith("weight")]
    return Weights(
        found.origin,
        found.state,
        arguments=arguments,
        classes=hf_folder.names(config) if held else None,
        mean=shown.mean,
        std=shown.std,
        input_size=request.input_size or _edge(arguments, shown.edge),
        crop_share=shown.crop_share,
        notes=notes,
    )


def build(
    library: Any, name: str, arguments: Mapping[str, Any], request: Request, count: int, shown: hf_folder.Shown
) -> Built:
    """A network of these arguments, all that are not given as usual for its kind."""
    kind, config = _config(library, name, arguments, request, count)
    net = _network(library, name, kind, config, count)
    known = _arguments_of(library, str(arguments[KIND]))
    values = config.to_dict()
    return Built(
        net,
        count,
        {KIND: arguments[KIND], **{key: _plain(values[key]) for key in sorted(known) if key in values}},
        mean=shown.mean,
        std=shown.std,
        input_size=request.input_size or _edge(values, shown.edge),
        crop_share=shown.crop_share,
        stages=_stages(net),
    )


def convert(
    library: Any, name: str, arguments: Mapping[str, Any], request: Request, state: Mapping[str, Tensor]
) -> Part | None:
    """A state in the names of the installed transformers, its positions resampled to the size that is wanted.

    One without a classifier leaves it out. None where it is not of this network.
    """
    heads = [value for key, value in state.items() if _is_head(key) and key.endswith("weight") and value.ndim == 2]
    count = len(heads[0]) if heads else 1
    kind, config = _config(library, name, arguments, request, count)
    given = dict(state)
    if kind.sized and getattr(config, "image_size", None):
        given = {key: _resampled(key, value, config) for key, value in given.items()}
    try:
        with _quiet(library):
            net, report = getattr(library, kind.net).from_pretrained(
                None, config=config, state_dict=given, output_loading_info=True, trust_remote_code=False
            )
    except Exception:  # tensors of other shapes, whose kinds differ between versions
        return None
    if report.get("mismatched_keys"):
        return None
    read = hf_folder.read(net, report)
    return Part({f"backbone.{key}": value for key, value in read.state.items()}, read.left) if kind.headed else read


def _config(library: Any, name: str, arguments: Mapping[str, Any], request: Request, count: int) -> tuple[Kind, Any]:
    """The kind of a network and its description. Raises ModelError for an argument that it has not."""
    word = str(arguments[KIND])
    if word not in KINDS:
        raise ModelError(f"hf/{name}: {unknown('Kind of network', word, KINDS)}")
    kind, known = KINDS[word], _arguments_of(library, word)
    for key in arguments:
        if key != KIND and key not in known:
            raise ModelError(f"hf/{name}: {unknown('Argument', key, known)}")
    values = {key: value for key, value in arguments.items() if key != KIND}
    if kind.sized and request.input_size is not None:
        values["image_size"] = request.input_size
    try:
        return kind, library.AutoConfig.for_model(kind.config, num_labels=count, **values)
    except Exception as error:  # kinds differ between versions of transformers
        raise cannot_build(f"hf/{name}", values, error) from error


def _network(library: Any, name: str, kind: Kind, config: Any, count: int) -> nn.Module:
    try:
        net: nn.Module = getattr(library, kind.net)(config)
    except Exception as error:
        raise cannot_build(f"hf/{name}", {}, error) from error
    if not kind.headed:
        return net
    width = config.hidden_sizes[-1] if hasattr(config, "hidden_sizes") else config.hidden_size
    return Headed(net, int(width), count)


def _arguments_of(library: Any, kind: str) -> set[str]:
    """The arguments of a kind that are a matter of its shape."""
    try:
        usual = library.AutoConfig.for_model(KINDS[kind].config).to_dict()
    except (KeyError, ValueError):
        raise ModelError(
            f"transformers {library.__version__} has no networks of kind {kind}: pip install -U transformers."
        ) from None
    return {key for key in usual if key not in OF_NO_USE and not key.startswith("_")}


def _edge(values: Mapping[str, Any], shown: int | None) -> int:
    """Edge of the input: as pictures are shown, unless the network is built for one size."""
    size = values.get("image_size")
    size = size[0] if isinstance(size, list | tuple) and size else size
    own = size if isinstance(size, int) else None
    sized = KINDS[str(values[KIND])].sized if str(values.get(KIND)) in KINDS else False
    return (own if sized else shown or own) or USUAL_EDGE


def _stages(net: nn.Module) -> list[str]:
    """The parts whose outputs are features: the first list of layers; of Swin, whose layers answer several things each,
    what follows them."""
    for name, module in net.named_modules():
        if isinstance(module, nn.ModuleList) and len(module):
            inner = [f"{name}.{index}.downsample" for index, stage in enumerate(module) if hasattr(stage, "blocks")]
            if not inner:
                return [f"{name}.{index}" for index in range(len(module))]
            return [*inner[:-1], f"{name.partition('.')[0]}.layernorm"]
    return []


def _is_head(key: str) -> bool:
    return key.partition(".")[0] in ("classifier", "cls_classifier", "distillation_classifier")


def _resampled(key: str, value: Tensor, config: Any) -> Tensor:
    """Positions, [1, n, D] or [n, D] with those of no place in front, at the size of the description."""
    if not key.endswith(("embeddings.position_embeddings", "position_embedding.weight")) or "decoder" in key:
        return value
    if "text_model" in key or value.ndim not in (2, 3):
        return value
    rows = value.reshape(-1, value.shape[-1])
    old, new = math.isqrt(len(rows)), int(config.image_size) // int(config.patch_size)
    if old == new:
        return value
    front, places = rows[: len(rows) - old**2], rows[len(rows) - old**2 :]
    grid = places.float().view(1, old, old, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=(new, new), mode="bicubic", align_corners=False)
    places = grid.permute(0, 2, 3, 1).flatten(0, 2).to(value.dtype)
    return torch.cat([front, places]).view(*value.shape[:-2], -1, value.shape[-1])


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


@contextmanager
def _quiet(library: Any) -> Iterator[None]:
    """Within, transformers does not tell at length what is looked at here."""
    logging = library.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
