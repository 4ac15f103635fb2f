"""A network whose answers to several views of each picture are averaged: mirror images, corners, sizes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from counterpoise.errors import ConfigError, ModelError
from counterpoise.models.network import VisionModel, are_probabilities, logits_of

CROP = 7 / 8
"""Edge of the crops of a picture whose answers are averaged, as part of its own."""
SCALES = (1.0, 3 / 4, 5 / 4)
"""How large scenes are seen, beside their own size, where answers are averaged over sizes."""
OF_PICTURES = {
    2: "it and its mirror image",
    4: "it mirrored, upside down, and both",
    10: "it and its four corners, and their mirror images",
}
OF_SCENES = {
    2: "it and its mirror image",
    4: "it mirrored, upside down, and both",
    6: "it and its mirror image at 3/4, 1 and 5/4 of its size",
    12: "it mirrored, upside down, and both at 3/4, 1 and 5/4 of its size",
}


class Shown(NamedTuple):
    """A view, and how its answer lies."""

    pixels: Tensor
    flips: tuple[int, ...]


class SeveralViews(nn.Module):
    """A network whose answers to several views of each picture are averaged, as probabilities.

    Of pictures, 10: it whole and its four corners (Krizhevsky, Sutskever, Hinton 2012 took five crops and their mirror
    images), of 7/8 of its edges, brought to its size. Answers to scenes are brought back to where they are seen, and
    to the size of the answer to the scene as it is, before their probabilities are averaged.

    Args:
        net: the network.
        views: how many, of OF_PICTURES or OF_SCENES.
        sigmoid: whether each logit is a question of its own.
        probabilities: whether it answers with probabilities, of which it then gives the mean as they are.
    """

    def __init__(self, net: nn.Module, views: int, sigmoid: bool = False, probabilities: bool = False) -> None:
        super().__init__()
        self.net = net
        self.views = views
        self.sigmoid = sigmoid
        self.probabilities = probabilities
        self._looked = probabilities

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits [N, C, ...] of pixels [N, channels, H, W]."""
        answers = self._answers(pixels)
        first = next(answers)
        if not self._looked:
            _require_logits(first)
            self._looked = True
        known = OF_SCENES if first.ndim == 4 else OF_PICTURES
        if self.views not in known:
            raise ModelError(f"{self.views} views are none of answers {list(first.shape)}: {_choices(known)}.")
        size = first.shape[2:]
        rest = (answer if answer.shape[2:] == size else _resized(answer, size) for answer in answers)
        if self.probabilities:
            return sum(rest, start=first) / self.views
        if first.ndim == 2:
            return _together([first, *rest], self.sigmoid)
        return _one_by_one(first, rest, self.sigmoid)

    def _answers(self, pixels: Tensor) -> Iterator[Tensor]:
        """Answers to all views in float32, as they lie in the picture; that to the picture as it is, first."""
        for shown in self._shown(pixels):
            answer = logits_of(self.net(shown.pixels.flip(shown.flips) if shown.flips else shown.pixels), "the network")
            yield (answer.flip(shown.flips) if shown.flips and answer.ndim == 4 else answer).float()

    def _shown(self, pixels: Tensor) -> Iterator[Shown]:
        both = ((), (3,)) if self.views in (2, 6, 10) else ((), (3,), (2,), (2, 3))
        for flips in both:
            yield Shown(pixels, flips)
        if self.views == 10:
            yield from (Shown(corner, flips) for corner in _corners(pixels) for flips in both)
        for scale in SCALES[1:] if self.views in (6, 12) else ():
            height, width = (max(1, round(scale * edge)) for edge in pixels.shape[2:])
            scaled = F.interpolate(pixels, size=(height, width), mode="bilinear", antialias=True)
            yield from (Shown(scaled, flips) for flips in both)


def _one_by_one(first: Tensor, rest: Iterator[Tensor], sigmoid: bool) -> Tensor:
    """Logits [N, C, h, w] whose softmax, or sigmoid, is the mean of those of all, which are never held together."""
    if sigmoid:
        yes, no = F.logsigmoid(first), F.logsigmoid(-first)
        for answer in rest:
            yes, no = torch.logaddexp(yes, F.logsigmoid(answer)), torch.logaddexp(no, F.logsigmoid(-answer))
        return yes - no
    total, count = first.log_softmax(1), 1
    for answer in rest:
        total, count = torch.logaddexp(total, answer.log_softmax(1)), count + 1
    return total - torch.log(torch.tensor(float(count), device=total.device))


def _together(answers: list[Tensor], sigmoid: bool) -> Tensor:
    if sigmoid:
        found = torch.stack([a.sigmoid() for a in answers]).mean(0).logit(torch.finfo(torch.float32).tiny)
        return torch.where(found.isfinite(), found, mean_logit(torch.stack(answers)))
    log_p = torch.stack([answer.log_softmax(1) for answer in answers])
    return torch.logsumexp(log_p, 0) - torch.log(torch.tensor(float(len(answers)), device=log_p.device))


def mean_logit(answers: Tensor, weights: Tensor | None = None) -> Tensor:
    """The logit of the mean of sigmoids [K, ...], finite however sure they are.

    weights: [K], with a sum of 1.
    """
    shares = answers.new_zeros(len(answers)) if weights is None else weights.log()
    shares = shares.view(-1, *[1] * (answers.ndim - 1))
    return torch.logsumexp(shares + F.logsigmoid(answers), 0) - torch.logsumexp(shares + F.logsigmoid(-answers), 0)


def averaged(model: VisionModel, views: int, sigmoid: bool, whole: bool) -> VisionModel:
    """The network with its answers averaged over several views of each picture; as it is where that is one.

    Args:
        sigmoid: whether each logit is a question of its own.
        whole: whether an answer is of a whole picture, else of each of its places.

    Raises:
        ConfigError: there are no such views.
    """
    if views == 1:
        return model
    require(views, whole)
    net = SeveralViews(model.net, views, sigmoid, model.outputs == "probabilities")
    wrapped = VisionModel(
        **{**model.settings(), "net": net, "promise": None, "scene_promise": None}
    )  # that is of one view
    wrapped.arguments = {**model.arguments, "views": views}
    wrapped.notes = model.notes
    wrapped.by_position, wrapped.trained_for = model.by_position, model.trained_for
    return wrapped


def require(views: int, whole: bool) -> None:
    """Raises ConfigError where so many views are none of a picture, or of a scene."""
    known = OF_PICTURES if whole else OF_SCENES
    if views not in (1, *known):
        raise ConfigError(f"views: {views} of a {'picture' if whole else 'scene'} are none: {_choices(known)}.")


def told(views: int, whole: bool) -> str:
    """Over what answers are averaged, in words."""
    of = (OF_PICTURES if whole else OF_SCENES)[views]
    places = "" if whole else " at every place"
    return f"means of the probabilities{places} over {views} views of each {'picture' if whole else 'scene'}: {of}"


def _choices(known: Mapping[int, str]) -> str:
    return "; ".join(f"{views} are {of}" for views, of in known.items())


def _require_logits(answer: Tensor) -> None:
    if are_probabilities(answer):
        raise ModelError(
            "The network answers probabilities, from 0 on with a sum of 1, and the mean over views would take the "
            "softmax of them: of a teacher say teacher.outputs: probabilities; of a student leave the softmax out of "
            "its network, or the views."
        )


def _resized(answer: Tensor, size: torch.Size) -> Tensor:
    return F.interpolate(answer, size=tuple(size), mode="bilinear")


def _corners(pixels: Tensor) -> list[Tensor]:
    height, width = pixels.shape[2:]
    rows, columns = (max(1, round(CROP * edge)) for edge in (height, width))
    return [
        F.interpolate(pixels[:, :, top : top + rows, left : left + columns], size=(height, width), mode="bilinear")
        for top in (0, height - rows)
        for left in (0, width - columns)
    ]
