"""A network of pictures and words as a classifier of pictures: its sentences are encoded once, and stay."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from counterpoise.errors import ModelError
from counterpoise.models.prompts.reading import Prompts
from counterpoise.models.several_views import SeveralViews

AT_ONCE = 256
"""Sentences that are encoded together."""


class Prompted(nn.Module):
    r"""Logits of pictures by what is said of each class.

    .. math:: z_c = (s \cos(f(x), w_c) + b) / T

    f is the encoder of pictures, w_c the mean of the unit vectors of the sentences of class c (of a class without a
    prompt the cosine is a fixed number), s and b the model's own
    scale and bias, T a temperature that was fitted or 1. Computed in float32 from f on, whatever f is computed in:
    cosines of 8 bits times a scale of 100 would be whole numbers.

    Args:
        encoder: normalized images [N, 3, H, W] -> [N, D].
        head: float32 [C, D], of unit length: see `encode`.
        fixed: float32 [C], the cosine of a class without a prompt; else nan.
        scale, bias: the model's own.
        who: all that made the head and is not among the encoder's weights, as teachers are told apart by it.

    Attributes:
        temperature: T.
    """

    head: Tensor
    fixed: Tensor

    def __init__(
        self, encoder: nn.Module, head: Tensor, fixed: Tensor, scale: float, bias: float, who: dict[str, str]
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.scale, self.bias, self.temperature = scale, bias, 1.0
        self.who = who
        # Not among the weights: another machine encodes the same words to other last bits.
        self.register_buffer("head", head, persistent=False)
        self.register_buffer("fixed", fixed, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        found = self.encoder(images)
        with torch.autocast(found.device.type, enabled=False):
            cosines = F.normalize(found.float(), dim=-1) @ self.head.T
            cosines = torch.where(self.fixed.isnan(), cosines, self.fixed)
            logits: Tensor = (cosines * self.scale + self.bias) / self.temperature
        return logits

    def identity(self) -> dict[str, str]:
        """What its answers depend on beside the encoder's weights."""
        return {**self.who, "calibration": f"temperature {self.temperature:g}"}


def by_prompts(model: nn.Module) -> Prompted | None:
    """The network within a `VisionModel` that answers by prompts, also over views; None of one that does not."""
    net = getattr(model, "net", None)
    while net is not None and not isinstance(net, Prompted):
        net = getattr(net, "_orig_mod", None) or (net.net if isinstance(net, SeveralViews) else None)
    return net


def encode(
    prompts: Prompts,
    tokenize: Callable[[Sequence[str]], tuple[list[list[int]], dict[str, Tensor]]],
    embed: Callable[[dict[str, Tensor]], Tensor],
    name: str,
) -> tuple[Tensor, str]:
    """The head [C, D] of prompts, and a hash of what the tokenizer made of them.

    Args:
        tokenize: sentences -> the numbers of their tokens, and what `embed` takes: the same, padded.
        embed: -> [n, D], of any length.
        name: of the network, for messages.

    Raises:
        ModelError: the tokenizer reads two classes alike, or the words of a class mean nothing to the network.
    """
    flat, rows, read = prompts.flat, list[Tensor](), list[list[int]]()
    with torch.inference_mode():
        for first in range(0, len(flat), AT_ONCE):
            numbers, given = tokenize(flat[first : first + AT_ONCE])
            read += numbers
            rows.append(F.normalize(embed(given).float(), dim=-1))
        several = torch.split(torch.cat(rows), prompts.counts)
        head = F.normalize(torch.stack([one.sum(0) / max(1, len(one)) for one in several]), dim=-1)
    _require_told_apart(prompts, read, name)
    if not bool(head.isfinite().all()):
        raise ModelError(f"{name} encodes words to numbers that are not finite: its weights are damaged.")
    return head.clone(), hashlib.sha256(json.dumps(read).encode()).hexdigest()


def fixed(prompts: Prompts) -> Tensor:
    """The cosines of classes without a prompt, float32 [C]; else nan."""
    nan = float("nan")
    return torch.tensor([nan if several else prompts.cosine or 0.0 for several in prompts.sentences])


def hashed(prompts: Prompts) -> str:
    """Prompts in a few words, and by a hash of their text."""
    bare = [] if prompts.cosine is None else [prompts.cosine]
    digest = hashlib.sha256(json.dumps([prompts.classes, prompts.sentences, *bare]).encode()).hexdigest()
    return f"{len(prompts.flat)} sentences for {len(prompts.classes)} classes (sha256 {digest[:12]})"


def hash_of(parts: Sequence[Any]) -> str:
    """A hash of plain values and of mappings of tensors."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, dict) and all(isinstance(value, Tensor) for value in part.values()):
            for key, value in sorted(part.items()):
                digest.update(key.encode())
                digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        else:
            digest.update(json.dumps(part, sort_keys=True, default=str).encode())
    return digest.hexdigest()


def _require_told_apart(prompts: Prompts, read: Sequence[Sequence[int]], name: str) -> None:
    """Raises ModelError where a tokenizer makes the same of sentences of two classes, such as of unknown letters."""
    owners = [index for index, count in enumerate(prompts.counts) for _ in range(count)]
    seen: dict[tuple[int, ...], int] = {}
    for number, (row, owner) in enumerate(zip(read, owners, strict=True)):
        other = seen.setdefault(tuple(row), number)
        if owners[other] != owner:
            one, two = prompts.classes[owners[other]], prompts.classes[owner]
            raise ModelError(
                f"The tokenizer of {name} reads the same in {prompts.flat[other]!r} ('{one}') and in "
                f"{prompts.flat[number]!r} ('{two}'): nothing could tell them apart. Say it in other words."
            )
