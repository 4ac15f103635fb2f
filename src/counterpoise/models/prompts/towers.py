"""CLIP, SigLIP and SigLIP 2 as Hugging Face transformers has them: an encoder of pictures, and the words' head."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from counterpoise.errors import ModelError
from counterpoise.models.families.base import Built
from counterpoise.models.prompts import network
from counterpoise.models.prompts.reading import Prompts
from counterpoise.system.files import expanded

KINDS = {"clip": "CLIPModel", "siglip": "SiglipModel", "siglip2": "Siglip2Model"}
"""What config.json calls a kind, and its class. No other is built: code that a folder brings is never run."""
SHAPING = ("hidden_act", "num_attention_heads", "layer_norm_eps", "patch_size", "image_size")
"""Of a tower's config, what the shapes of its weights do not tell."""


class Input(NamedTuple):
    """How pictures come to the encoder: edge in pixels, and the share of the shorter side that is cut out."""

    edge: int
    crop_share: float
    mean: tuple[float, ...]
    std: tuple[float, ...]


class ClipEncoder(nn.Module):
    """Pictures to the space that they share with words, through CLIP's projection."""

    def __init__(self, whole: Any) -> None:
        super().__init__()
        self.vision_model, self.visual_projection = whole.vision_model, whole.visual_projection

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.visual_projection(self.vision_model(pixel_values=images).pooler_output)
        return found


class SiglipEncoder(nn.Module):
    """Pictures to the space that they share with words, through the attention that pools them."""

    def __init__(self, whole: Any) -> None:
        super().__init__()
        self.vision_model = whole.vision_model

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.vision_model(pixel_values=images).pooler_output
        return found


class NaflexEncoder(SiglipEncoder):
    """The form of SigLIP 2 that takes patches of pictures of any shape: here of square ones."""

    def __init__(self, whole: Any) -> None:
        super().__init__(whole)
        self.patch = int(whole.config.vision_config.patch_size)

    def forward(self, images: Tensor) -> Tensor:
        count, channels, height, width = images.shape
        rows, columns, patch = height // self.patch, width // self.patch, self.patch
        patches = images.view(count, channels, rows, patch, columns, patch).permute(0, 2, 4, 3, 5, 1)
        found: Tensor = self.vision_model(  # by place: versions of transformers name the mask differently
            patches.reshape(count, rows * columns, patch * patch * channels),
            torch.ones(count, rows * columns, dtype=torch.int64, device=images.device),
            torch.tensor([[rows, columns]], device=images.device).expand(count, 2),
        ).pooler_output
        return found


ENCODERS: dict[str, Callable[[Any], nn.Module]] = {
    "clip": ClipEncoder,
    "siglip": SiglipEncoder,
    "siglip2": NaflexEncoder,
}


def build(library: Any, name: str, prompts: Prompts, device: torch.device) -> Built:
    """The classifier that a folder, or a repository of the hub, and prompts make. `library` is transformers.

    Raises:
        ModelError: it is not there, is of another kind, lacks weights, or cannot read a sentence whole.
    """
    place = str(expanded(Path(name))) if Path(name).expanduser().is_dir() else name
    where = f"hf/{name}"
    load = partial(_loaded, library, place, where)
    config = load(library.AutoConfig, "description (config.json)")
    kind = config.model_type
    if kind not in KINDS:
        raise ModelError(
            f"{where} is a network of type {kind}, which takes no words: teacher.prompts is for {', '.join(KINDS)}."
        )
    shown = _input(config, load(library.AutoImageProcessor, "processor of pictures (preprocessor_config.json)"), where)
    tokenizer = load(library.AutoTokenizer, "tokenizer")
    whole, report = load(getattr(library, KINDS[kind]), "weights", output_loading_info=True)
    if broken := [*report["missing_keys"], *report.get("mismatched_keys", [])]:
        raise ModelError(f"{where} lacks {len(broken)} of its weights, such as {broken[0]}: it would answer at random.")
    whole = whole.float().eval().requires_grad_(False)
    words = whole.to(device)
    longest = int(config.text_config.max_position_embeddings)
    head, tokens = network.encode(
        prompts,
        partial(_tokens, tokenizer, kind, longest, where),
        lambda given: _vector(words.get_text_features(**{key: value.to(device) for key, value in given.items()})),
        where,
    )
    who = {
        "architecture": KINDS[kind],
        "prompts": network.hashed(prompts),
        "words": network.hash_of(
            [tokens, _shape(config.text_config), whole.text_model.state_dict(), _projection(whole)]
        ),
    }
    bias = float(whole.logit_bias) if hasattr(whole, "logit_bias") else 0.0
    scale = float(whole.logit_scale.exp())
    who["words"] = network.hash_of([who["words"], f"{scale:.6g}", f"{bias:.6g}"])
    net = network.Prompted(ENCODERS[kind](whole.cpu()), head.cpu(), network.fixed(prompts), scale, bias, who)
    return Built(
        net,
        len(prompts.classes),
        _shape(config.vision_config),
        mean=shown.mean,
        std=shown.std,
        input_size=shown.edge,
        crop_share=shown.crop_share,
    )


def _loaded(library: Any, place: str, where: str, kind: Any, what: str, **options: Any) -> Any:
    """A part of a folder, or of the hub's cache, else from the hub. Code that lies there is not run."""
    logging = library.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # it tells at length of what is looked at here
    logging.disable_progress_bar()
    try:
        try:
            return kind.from_pretrained(place, trust_remote_code=False, local_files_only=True, **options)
        except Exception:  # kinds differ between versions
            if Path(place).is_dir():
                raise
        from huggingface_hub import file_exists

        file_exists(place, "config.json")  # without a net this fails at once, and what follows tries for long
        return kind.from_pretrained(place, trust_remote_code=False, **options)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ModelError(
            f"{where}: its {what} cannot be read ({type(error).__name__}: {reason:.300}).\n"
            "  Give the folder of a CLIP or SigLIP model as transformers saves it, or a name of the hub, such as "
            "hf/openai/clip-vit-base-patch32, that is in its cache or can be fetched."
        ) from None
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _tokens(
    tokenizer: Any, kind: str, longest: int, where: str, sentences: Sequence[str]
) -> tuple[list[list[int]], dict[str, Tensor]]:
    """Sentences as numbers, and as the network takes them, padded as it was trained: SigLIP's to its whole length."""
    rows = [list(map(int, row)) for row in tokenizer(list(sentences))["input_ids"]]
    for sentence, row in zip(sentences, rows, strict=True):
        if len(row) > longest:
            raise ModelError(
                f"{where} reads {longest} tokens of a sentence, and {sentence!r:.200} has {len(row)}: say it shorter."
            )
    padding: dict[str, Any] = {"padding": True}
    if kind != "clip":
        padding = {"padding": "max_length", "max_length": longest}
    return rows, dict(tokenizer(list(sentences), return_tensors="pt", **padding))


def _input(config: Any, processor: Any, where: str) -> Input:
    """How a folder says that pictures are shown."""
    mean, std = (tuple(map(float, values)) for values in (processor.image_mean, processor.image_std))
    if abs(float(processor.rescale_factor) * 255 - 1) > 1e-6:
        raise ModelError(f"{where} rescales pixels by {processor.rescale_factor}, expected 1/255.")
    vision = config.vision_config
    if config.model_type == "siglip2":  # patches of a square
        return Input(math.isqrt(int(vision.num_patches)) * int(vision.patch_size), 1.0, mean, std)
    edge = int(vision.image_size)
    size: Mapping[str, Any] = dict(processor.size)
    shorter = size.get("shortest_edge") if getattr(processor, "do_center_crop", False) else None
    return Input(edge, min(1.0, edge / int(shorter)) if shorter else 1.0, mean, std)


def _vector(answer: Any) -> Tensor:
    """What versions of transformers return of words: a tensor, or an object that pools it."""
    found: Tensor = answer if isinstance(answer, Tensor) else answer.pooler_output
    return found


def _shape(config: Any) -> dict[str, Any]:
    return {key: getattr(config, key) for key in SHAPING if getattr(config, key, None) is not None}


def _projection(whole: Any) -> dict[str, Tensor]:
    return dict(whole.text_projection.state_dict()) if hasattr(whole, "text_projection") else {}
