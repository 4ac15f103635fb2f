"""What a teacher's last layer has for each class, for objectives that ask how alike classes are."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from counterpoise.errors import ConfigError, ModelError
from counterpoise.models.classmap import ClassSelection
from counterpoise.models.ensemble import Ensemble
from counterpoise.models.network import VisionModel, logits_of
from counterpoise.models.padding import Padded
from counterpoise.models.prompts.network import Prompted
from counterpoise.models.several_views import SeveralViews
from counterpoise.objectives.composite import WeightedSum
from counterpoise.outputs import in_eval_mode


def tell(objective: WeightedSum, teacher: VisionModel | None, images: Callable[[], Tensor]) -> None:
    """Tell each term that needs it what the teacher's last layer has for each class.

    Args:
        teacher: whole, as yet; None where there is a store of its logits alone.
        images: gives some, as the teacher takes them.

    Raises:
        ConfigError: there is no such layer, or no teacher beside its store.
    """
    wanting = [name for name in objective.terms if "classifier" in objective.objective(name).needs]
    if not wanting:
        return
    way_out = f"say how alike classes are: objective.{wanting[0]}.likeness."
    if teacher is None:
        raise ConfigError(
            f"objective.{wanting[0]} looks at the last layer of the teacher, and a store holds its logits alone: give "
            f"the teacher beside it (teacher.checkpoint), or {way_out}"
        )
    try:
        objective.set_classifier(rows_of(teacher, images()))
    except ModelError as error:
        raise ConfigError(f"objective.{wanting[0]}: {error} Else {way_out}") from None


@torch.no_grad()
def rows_of(teacher: VisionModel, images: Tensor) -> Tensor:
    """float32 [C, D] on the CPU: the weights of each class in the layer whose output a network answers.

    That is the last linear layer or convolution whose output, made as large as the answer, is the answer; of a teacher
    that answers by words, what these are encoded to. Rows are in the order of the classes that the teacher answers in.

    Raises:
        ModelError: there is no such layer, or there are several; or classes of the teacher are taken together.
    """
    if any(isinstance(one, Ensemble) for one in teacher.modules()):
        raise ModelError(f"{teacher.name}: several networks have no last layer in common.")
    if any(isinstance(one, ClassSelection) and one.joins for one in teacher.modules()):
        raise ModelError(
            f"{teacher.name}: several of its classes are taken as one, which no row of its last layer is for."
        )
    net = teacher._plain()
    if isinstance(net, SeveralViews):
        net = net.net
    if isinstance(net, Prompted):
        return _chosen(teacher, net.head)
    said: list[tuple[nn.Linear | nn.Conv2d, Any]] = []
    call: Callable[[Tensor], Any] = net if net._compiled_call_impl is None else net._call_impl
    device = teacher.mean.device
    with ExitStack() as hooks:
        for module in net.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                hooks.enter_context(module.register_forward_hook(lambda layer, _, output: said.append((layer, output))))
        hooks.enter_context(in_eval_mode(teacher))
        pixels = teacher.normalize(images.to(device))
        if isinstance(net, Padded):  # so that it has nothing to cut back
            height, width = (-edge % net.stride for edge in pixels.shape[-2:])
            pixels = F.pad(pixels, (0, width, 0, height))
        answer = logits_of(call(pixels), teacher.name)
    for layer, output in reversed(said):
        if isinstance(output, Tensor) and _is_answer(output, answer, teacher.outputs == "probabilities"):
            return _chosen(teacher, layer.weight)
    raise ModelError(f"{teacher.name}: what it answers is not the output of one linear layer or convolution.")


def _chosen(teacher: VisionModel, weight: Tensor) -> Tensor:
    rows = weight.detach().float().flatten(1)
    chosen: Tensor = rows if teacher.selection is None else teacher.selection(rows.T).T
    return chosen.contiguous().cpu()


def _is_answer(output: Tensor, answer: Tensor, probabilities: bool) -> bool:
    if output.ndim != answer.ndim or output.shape[:2] != answer.shape[:2]:
        return False
    if probabilities:
        output = output.softmax(1)
    if output.shape == answer.shape:
        return torch.allclose(output, answer, rtol=1e-4, atol=1e-5)
    if output.ndim != 4:
        return False
    size, near = answer.shape[2:], 1e-3 * float(answer.abs().max())
    sized = (F.interpolate(output, size=size, mode="bilinear", align_corners=corners) for corners in (False, True))
    return any(bool(((one - answer).abs() <= near).all()) for one in sized)
