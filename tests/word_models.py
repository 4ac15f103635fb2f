"""CLIP and SigLIP of a few thousand random weights, with a tokenizer of a few words, as transformers saves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from counterpoise.system import torchvision_guard

EDGE, PATCH = 16, 8
LONGEST = 64
WORDS = (
    "a photo of the cat dog polar bear close up picture in which there is from far away small circle square stripes . -"
)
NARROW: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}


def save(kind: str, folder: Path, seed: int = 0) -> Path:
    """A folder with a network of this kind: clip, siglip or siglip2."""
    torchvision_guard.ready()
    import transformers

    torch.manual_seed(seed)
    tokenizer = _letters(transformers) if kind == "siglip2" else _words(transformers)
    text = {
        **NARROW,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": LONGEST,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {**NARROW, "image_size": EDGE, "patch_size": PATCH}
    if kind == "clip":
        config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
        model: Any = transformers.CLIPModel(config)
        size = {"shortest_edge": EDGE}
        processor: Any = transformers.CLIPImageProcessor(size=size, crop_size={"height": EDGE, "width": EDGE})
    elif kind == "siglip":
        config = transformers.SiglipConfig(text_config={**text, "projection_size": 16}, vision_config=vision)
        model = transformers.SiglipModel(config)
        processor = transformers.SiglipImageProcessor(size={"height": EDGE, "width": EDGE})
    else:
        vision = {**NARROW, "num_patches": (EDGE // PATCH) ** 2, "patch_size": PATCH}
        config = transformers.Siglip2Config(text_config={**text, "projection_size": 16}, vision_config=vision)
        model = transformers.Siglip2Model(config)
        processor = transformers.Siglip2ImageProcessor(patch_size=PATCH, max_num_patches=(EDGE // PATCH) ** 2)
    with torch.no_grad():
        for parameter in model.parameters():  # as they come, its answers hardly differ
            parameter.add_(0.3 * torch.randn_like(parameter))
        model.logit_scale.fill_(3.0)
    for part in (model, tokenizer, processor):
        part.save_pretrained(folder)
    return folder


def _letters(transformers: Any) -> Any:
    """SigLIP 2 takes no other kind than pieces of words, here of one letter."""
    if not hasattr(transformers, "Siglip2Tokenizer"):
        pytest.skip(f"transformers {transformers.__version__} reads this tokenizer from published files alone")
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    letters = [*special, "\u2581", ".", "-", *map(chr, range(ord("a"), ord("z") + 1))]
    return transformers.Siglip2Tokenizer({letter: index for index, letter in enumerate(letters)}, [])


def _words(transformers: Any) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    special = ["[pad]", "[unk]", "[bos]", "[eos]"]
    vocabulary = {word: index for index, word in enumerate([*special, *dict.fromkeys(WORDS.split())])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[unk]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[bos] $A [eos]", special_tokens=[(name, vocabulary[name]) for name in special[2:]]
    )
    names = dict(zip(("pad_token", "unk_token", "bos_token", "eos_token"), special, strict=True))
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=LONGEST,
        model_input_names=["input_ids", "attention_mask"],  # transformers 4 gives types of tokens, too
        **names,
    )
