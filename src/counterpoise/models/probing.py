"""A linear classifier on features, and nearest neighbors beside it: how well the classes lie apart in them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from counterpoise.errors import ModelError
from counterpoise.models.network import VisionModel

PENALTIES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
"""Of which one is chosen, from strong to weak: each fit starts from the one before."""
NEIGHBORS = (1, 5, 20)
STEPS = 100
BLOCK = 1024  # images whose neighbors are looked for at once


@dataclass(frozen=True)
class Linear:
    """A classifier: logits = features @ weight.T + bias; weight [C, D] and bias [C] in float32."""

    weight: Tensor
    bias: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """Logits [N, C] of features [N, D]."""
        return F.linear(features, self.weight, self.bias)


def head_of(model: VisionModel, images: Tensor) -> nn.Linear:
    """The one linear layer whose output is what the network answers; its input is the feature.

    Args:
        images: some, as the network takes them.

    Raises ModelError where its answer is not that of such a layer.
    """
    said: list[tuple[nn.Linear, Tensor]] = []
    hooks = [
        module.register_forward_hook(lambda layer, _, output: said.append((layer, output)))
        for module in model.net.modules()
        if isinstance(module, nn.Linear)
    ]
    model.eval()
    try:
        with torch.no_grad():
            logits = model(images)
    finally:
        for hook in hooks:
            hook.remove()
    for layer, output in reversed(said):
        if output.shape == logits.shape and torch.equal(output, logits):
            return layer
    raise ModelError(
        f"{model.name}: what it answers is not the output of one linear layer, so no classifier can take its place."
    )


@contextmanager
def features_of(layer: nn.Linear) -> Iterator[list[Tensor]]:
    """Within, the features that the layer is given, [N, D] in float32, as they come."""
    caught: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0].detach().float()))
    try:
        yield caught
    finally:
        hook.remove()


def fit(features: Tensor, labels: Tensor, classes: int, penalties: Sequence[float]) -> Iterator[tuple[float, Linear]]:
    r"""Multinomial logistic regression, for one penalty after the other.

    .. math::
        L = mean cross-entropy + \lambda / 2 * |W|^2

    on features with mean 0 and deviation 1, which is worked into the weights; the bias is free. By L-BFGS, torch's own.

    Args:
        features: float32 [N, D].
        labels: int64 [N].

    Yields:
        Each penalty (lambda) with its classifier.
    """
    mean, deviation = features.mean(0), features.std(0, correction=0).clamp_min(1e-6)
    inputs = (features - mean) / deviation
    weight = torch.zeros(classes, features.shape[1], device=features.device, requires_grad=True)
    bias = torch.zeros(classes, device=features.device, requires_grad=True)
    for penalty in penalties:
        optimizer = torch.optim.LBFGS([weight, bias], max_iter=STEPS, line_search_fn="strong_wolfe")

        def closure(penalty: float = penalty, optimizer: torch.optim.Optimizer = optimizer) -> Tensor:
            optimizer.zero_grad()
            loss = F.cross_entropy(F.linear(inputs, weight, bias), labels) + penalty / 2 * weight.square().sum()
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        with torch.enable_grad():
            optimizer.step(closure)  # type: ignore[no-untyped-call]
        scaled = (weight / deviation).detach()
        yield penalty, Linear(scaled, (bias - scaled @ mean).detach())


def choose(
    train: tuple[Tensor, Tensor], held_out: tuple[Tensor, Tensor], classes: int
) -> tuple[float, dict[float, float]]:
    """The penalty whose classifier, fitted on `train`, is most often right on `held_out`, and how often each is, in %.

    Of several the strongest.
    """
    found = {
        penalty: percent(classifier(held_out[0]).argmax(1), held_out[1])
        for penalty, classifier in fit(*train, classes, PENALTIES)
    }
    return max(found, key=lambda penalty: found[penalty]), found


def neighbors(train: tuple[Tensor, Tensor], other: Tensor, classes: int, counts: Iterable[int]) -> dict[int, Tensor]:
    """For each count k, the class that most of the k nearest images of `train` have, [M] for features [M, D].

    Nearest by the angle between features; each votes with exp(cosine / 0.07), as in Wu et al., arXiv 1805.01978.
    """
    features, labels = F.normalize(train[0], dim=1), train[1]
    counts = [count for count in counts if count <= len(labels)] or [len(labels)]
    said: dict[int, list[Tensor]] = {count: [] for count in counts}
    for block in torch.split(F.normalize(other, dim=1), BLOCK):
        cosine, nearest = (block @ features.T).topk(max(counts))
        votes = (cosine / 0.07).exp()
        for count in counts:
            sums = votes.new_zeros(len(block), classes).scatter_add_(1, labels[nearest[:, :count]], votes[:, :count])
            said[count].append(sums.argmax(1))
    return {count: torch.cat(parts) for count, parts in said.items()}


def percent(answers: Tensor, labels: Tensor) -> float:
    """How many answers are the labels, in percent."""
    return 100.0 * float((answers == labels).double().mean())
