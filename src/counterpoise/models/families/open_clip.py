"""open_clip/NAME:TAG, open_clip/FOLDER and open_clip/OWNER/NAME of the hub: CLIP of OpenCLIP, with prompts."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from counterpoise.errors import MissingExtraError, ModelError
from counterpoise.models.families.base import Built, Request, register
from counterpoise.models.prompts import network
from counterpoise.models.prompts.reading import Prompts
from counterpoise.system import torchvision_guard
from counterpoise.system.files import expanded

KINDS = ("CLIP", "CustomTextCLIP")
"""Classes that compare one vector of a picture with one of words; captioning ones do more."""
LONGER = 4
"""How many times what the network reads a sentence is tokenized, to see whether it was cut off."""


class Encoder(nn.Module):
    """Pictures to the space that they share with words."""

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual = visual

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.visual(images)
        return found


def names() -> list[str]:
    """The published ones as NAME:TAG; none where open_clip is not installed."""
    try:
        return [":".join(pair) for pair in _library().list_pretrained()]
    except MissingExtraError:
        return []


def prompted(name: str, prompts: Prompts, device: torch.device) -> Built:
    """A classifier of pictures by words.

    Raises:
        ModelError: it is not there, lacks weights, is of another kind, or cannot read a sentence whole.
    """
    library, where = _library(), f"open_clip/{name}"
    place, tag = _place(name)
    with _quiet():
        try:
            whole = library.create_model(place, pretrained=tag, require_pretrained=True, weights_only=True)
            tokenizer = library.get_tokenizer(place)
        except Exception as error:  # whatever its libraries raise for files that are missing or do not fit
            reason = " ".join(str(error).split())
            raise ModelError(
                f"{where} cannot be read ({type(error).__name__}: {reason:.300}).\n  Give open_clip/NAME:TAG, such as "
                "open_clip/ViT-B-32:laion2b_s34b_b79k, a folder with open_clip_config.json and weights, or OWNER/NAME "
                "of the hub; from its cache, or where it can be fetched."
            ) from None
    kind = type(whole).__name__
    if kind not in KINDS:
        raise ModelError(f"{where} is a {kind}, expected {' or '.join(KINDS)}.")
    whole = whole.float().eval().requires_grad_(False).to(device)
    head, tokens = network.encode(
        prompts,
        partial(_tokens, tokenizer, where),
        lambda given: whole.encode_text(given["text"].to(device)),
        where,
    )
    whole = whole.cpu()
    scale = float(whole.logit_scale.exp())
    bias = 0.0 if whole.logit_bias is None else float(whole.logit_bias)
    text = {key: value for key, value in whole.state_dict().items() if not key.startswith("visual.")}
    words = network.hash_of([tokens, _gelus(whole), text])
    who = {"architecture": f"open_clip {kind}", "prompts": network.hashed(prompts), "words": words}
    shown = library.get_model_preprocess_cfg(whole)
    size = shown["size"]
    edges = set(size) if isinstance(size, tuple | list) else {size}
    if len(edges) > 1:
        raise ModelError(f"{where} takes pictures of {size} pixels, expected squares.")
    return Built(
        network.Prompted(Encoder(whole.visual), head.cpu(), network.fixed(prompts), scale, bias, who),
        len(prompts.classes),
        {"activations": _gelus(whole.visual)},
        mean=tuple(shown["mean"]),
        std=tuple(shown["std"]),
        input_size=int(edges.pop()),
    )


@register("open_clip", summary="CLIP of OpenCLIP, with prompts (extra open_clip)", names=names, prompted=prompted)
def build(name: str, request: Request) -> Built:
    """It answers by words alone. Raises ModelError."""
    raise ModelError(f"open_clip/{name} answers by words: it is a teacher with teacher.prompts (docs/teachers.md).")


def _library() -> Any:
    torchvision_guard.ready()
    try:
        import open_clip
    except ImportError:
        raise MissingExtraError("A model of the family open_clip", "open_clip") from None
    return open_clip


def _place(name: str) -> tuple[str, str | None]:
    """What open_clip calls it, and the tag of its weights."""
    if Path(name).expanduser().is_dir():
        return f"local-dir:{expanded(Path(name))}", None
    if "/" in name:
        return f"hf-hub:{name.removeprefix('hf-hub:')}", None
    architecture, colon, tag = name.partition(":")
    if not colon:
        raise ModelError(
            f"open_clip/{name} says no weights: expected open_clip/NAME:TAG, such as open_clip/ViT-B-32:openai, or a "
            "folder; `counterpoise list models` has them."
        )
    return architecture, tag


def _tokens(tokenizer: Any, where: str, sentences: Sequence[str]) -> tuple[list[list[int]], dict[str, Tensor]]:
    """Sentences as numbers, padded as the network takes them. Raises ModelError for one that is cut off."""
    text = tokenizer(list(sentences))
    longest = text.shape[1]
    whole = tokenizer(list(sentences), context_length=LONGER * longest)
    cut = (whole[:, longest:] != whole[:, -1:]).any(1)
    for sentence, is_cut in zip(sentences, cut.tolist(), strict=True):
        if is_cut:
            raise ModelError(f"{where} reads {longest} tokens of a sentence, and {sentence!r:.200} has more.")
    return text.tolist(), {"text": text}


def _gelus(module: nn.Module) -> list[str]:
    """Kinds of activation, which weights do not tell: those of OpenAI were trained with another one."""
    return sorted({type(one).__name__ for one in module.modules() if "GELU" in type(one).__name__})


@contextmanager
def _quiet() -> Iterator[None]:
    """Within, what open_clip logs is left out."""
    logger = logging.getLogger()
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
