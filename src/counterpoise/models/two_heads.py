"""Two classifiers on one feature, one for the labels and one for the teacher, whose answers are mixed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from counterpoise.errors import ModelError
from counterpoise.models.checkpoint import UNUSUAL_COUNT, Shapes
from counterpoise.models.families.base import Built, Request

ARGUMENT = "two_heads"
"""The argument of a network that has them: student folders say it as they say others."""
SIDES = ("labels", "teacher")
Make = Callable[[Request], Built]


class TwoHeads(nn.Module):
    r"""log(\alpha softmax(A f) + (1 - \alpha) softmax(B f / \tau)) of a feature f: logits [N, C] from [N, D].

    A learns from labels, B from the teacher; \alpha (`share`) and \tau (`temperature`) are chosen afterwards. Kang,
    Lee, Kim, Hwang, "Simple semi-supervised knowledge distillation from vision-language models via dual-head
    optimization", arXiv 2505.07675 (2025).

    Attributes:
        share: alpha, a scalar buffer in [0, 1].
        temperature: tau, a scalar buffer.
    """

    share: Tensor
    temperature: Tensor

    def __init__(self, head: nn.Linear) -> None:
        super().__init__()
        self.labels = head
        self.teacher = nn.Linear(head.in_features, head.out_features, device=head.weight.device)
        for name, value in (("share", 0.5), ("temperature", 1.0)):
            self.register_buffer(name, torch.tensor(value, device=head.weight.device))

    def forward(self, feature: Tensor) -> Tensor:
        """Logits [N, C], whose softmax is the mixture."""
        return mixed(self.labels(feature), self.teacher(feature), self.share, self.temperature)


def mixed(labels: Tensor, teacher: Tensor, share: Tensor | float, temperature: Tensor | float) -> Tensor:
    """The logarithm of the mixture of the answers of both heads, logits [N, C] each."""
    mixture = share * labels.softmax(1) + (1 - share) * (teacher / temperature).softmax(1)
    return mixture.clamp_min(torch.finfo(mixture.dtype).tiny).log()


def build(make: Make, request: Request) -> Built:
    """A network with two heads in the place of its one. Raises ModelError where it has not one linear classifier."""
    arguments = {key: value for key, value in request.arguments.items() if key != ARGUMENT}
    name = _head(make, replace(request, arguments=arguments))
    built = make(replace(request, arguments=arguments))
    head = built.net.get_submodule(name)
    assert isinstance(head, nn.Linear)
    built.net.set_submodule(name, TwoHeads(head))
    return replace(built, arguments={**built.arguments, ARGUMENT: True})


def names(net: nn.Module) -> tuple[str, str] | None:
    """What the two heads of a network are called, that of the labels first; None where it has not two."""
    for name, module in net.named_modules():
        if isinstance(module, TwoHeads):
            return f"{name}.{SIDES[0]}", f"{name}.{SIDES[1]}"
    return None


def of(net: nn.Module) -> TwoHeads | None:
    """The two heads of a network; None where it has not two."""
    return next((module for module in net.modules() if isinstance(module, TwoHeads)), None)


def from_one(state: Mapping[str, Tensor], expected: Shapes) -> dict[str, Tensor]:
    """A state of the network with one head, with that in the place of both; other states as they are.

    Args:
        expected: the shapes of the network with two heads, by name.
    """
    found = dict(state)
    for name in expected:
        head, side, kind = ["", "", *name.rsplit(".", 2)][-3:]
        if side not in SIDES:
            continue
        if f"{head}.{kind}" in state:
            found[name] = state[f"{head}.{kind}"].clone()
            found.pop(f"{head}.{kind}", None)
        for buffer, value in (("share", 0.5), ("temperature", 1.0)):
            found.setdefault(f"{head}.{buffer}", torch.tensor(value))
    return found


def put(weights: dict[str, Tensor], mix: Mapping[str, float]) -> None:
    """Set the mixture, share and temperature, in the weights of a network that has two heads."""
    for name in [*weights]:
        head, _, value = name.rpartition(".")
        if value in mix and f"{head}.{SIDES[0]}.weight" in weights:
            weights[name] = torch.tensor(float(mix[value]))


def _head(make: Make, request: Request) -> str:
    """The name of the one linear layer whose outputs are the classes."""
    wanted = replace(request, num_classes=UNUSUAL_COUNT)
    with torch.random.fork_rng(devices=[]):  # finding out must not change what is drawn afterwards
        try:
            with torch.device("meta"):
                net = make(wanted).net
        except Exception:  # some networks compute with their weights while they are built
            net = make(wanted).net
    heads: list[str] = [
        name
        for name, module in net.named_modules()
        if isinstance(module, nn.Linear) and module.out_features == UNUSUAL_COUNT
    ]
    if len(heads) != 1:
        what = "no linear classifier" if not heads else f"{len(heads)} classifiers"
        raise ModelError(
            f"student.two_heads takes the place of a network's linear classifier, and this network has {what}."
        )
    return heads[0]
