"""Windows that slide over scenes, and answers to pictures of any size in memory that does not grow with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from counterpoise.data.rasters import Raster
from counterpoise.errors import ConfigError
from counterpoise.models.network import SceneView
from counterpoise.objectives.kernels.upsampling import taps
from counterpoise.objectives.logits import may_be_out
from counterpoise.tasks.confusion import check_dense, upsample

Ask: TypeAlias = Callable[[Tensor], Tensor]
"""uint8 [N, channels, H, W] -> logits [N, C, h, w]."""

WHOLE = 2**25
"""Logits at the size of a picture that are made at once, 128 MiB; of larger ones, piece by piece."""
HELD, PIECE = 2**22, 2**20
"""Logits under the windows of one row of them, and in a piece that is given away."""
_LEAST = 1e-3  # weight of a corner, beside the middle


class Piece(NamedTuple):
    """The answer to a part of a picture.

    Attributes:
        rows, columns: where it is, in pixels of the picture.
        logits: float32 [C, h, w] at its size.
    """

    rows: slice
    columns: slice
    logits: Tensor


class InPieces(NamedTuple):
    """A scene that is answered piece by piece, once.

    Attributes:
        size: height and width of its mask.
        classes: how many logits a pixel has.
        pieces: the answers.
        truth: what is known of a part of it, by rows and columns: a batch of one target.
    """

    size: tuple[int, int]
    classes: int
    pieces: Iterator[Piece]
    truth: Callable[[slice, slice], Tensor]


def pieces(ask: Ask, picture: Raster, view: SceneView, classes: int, device: torch.device) -> Iterator[Piece]:
    """Logits for every pixel of a picture that is shown as `view` says: reduced, whole or by a window.

    Those of a small picture come at once. Of a large one they come in pieces, and are never held for more than a row of
    windows; one that is shown without a window is answered at once by the network, at its own resolution.

    Args:
        ask: what answers, where there is a window to that alone.
        classes: how many logits a pixel has.
    """
    height, width = size = picture.size
    shown = picture.reduced(view.reduction)
    if view.window is not None and classes * height * width > WHOLE:
        yield from _Sliding(ask, shown, view, size, classes, device).pieces()
        return
    images = shown.part()[None].to(device)
    logits = ask(images) if view.window is None else slide(ask, images, view.window, stride_of(view), view.blend)
    check_dense(logits)
    if classes * height * width <= WHOLE:
        yield Piece(slice(0, height), slice(0, width), upsample(logits, size)[0])
        return
    grid = _Grid((logits.shape[2], logits.shape[3]), size)
    step = max(1, PIECE // (classes * width))
    for top in range(0, height, step):
        rows, columns = slice(top, min(top + step, height)), slice(0, width)
        yield Piece(rows, columns, grid.part(logits[0].float(), (0, 0), rows, columns))


@torch.inference_mode()
def slide_pieces(
    ask: Ask, shown: Raster, view: SceneView, size: tuple[int, int], classes: int, device: torch.device
) -> Iterator[Piece]:
    """Logits for every pixel of a picture of this size, `shown` being it as reduced, by the window of `view`."""
    yield from _Sliding(ask, shown, view, size, classes, device).pieces()


def slide(
    ask: Ask,
    images: Tensor,
    window: tuple[int, int],
    stride: tuple[int, int] | None = None,
    blend: str = "mean",
) -> Tensor:
    """Logits of images seen through a window that moves over them: the mean over all windows that hold a pixel.

    The last window of a row or column ends with the image, and none is larger than it.

    Args:
        images: uint8 [N, 3, H, W].
        window: height and width in pixels.
        stride: by how much it moves, at most its own size; default: two thirds of that.
        blend: how the windows over a pixel count: see `weights`.

    Returns:
        float32 [N, C, H, W].
    """
    stride = stride or stride_of(SceneView(window=window))
    if not (0 < stride[0] <= window[0] and 0 < stride[1] <= window[1]):
        raise ConfigError(f"A window of {window} moved by {stride} leaves gaps: each stride must be 1 to its window.")
    size = images.shape[-2:]
    height, width = min(window[0], size[0]), min(window[1], size[1])
    total = torch.zeros(0)
    seen = torch.zeros(size, device=images.device)
    weight = weights((height, width), blend, images.device)
    for top in starts(size[0], height, stride[0]):
        for left in starts(size[1], width, stride[1]):
            rows, columns = slice(top, top + height), slice(left, left + width)
            logits = ask(images[..., rows, columns])
            check_dense(logits)
            if not total.numel():
                total = torch.zeros(images.shape[0], logits.shape[1], *size, device=logits.device)
            answer = upsample(logits, (height, width))
            total[..., rows, columns] += answer if weight is None else answer * weight
            seen[rows, columns] += 1 if weight is None else weight
    return total / seen


def weights(window: tuple[int, int], blend: str, device: torch.device) -> Tensor | None:
    """How much each pixel of a window counts beside those of other windows, float32 [h, w]; None: all alike.

    mean: all alike. linear: in proportion to how far it is from the nearer edge, rows times columns. gaussian:
    exp(-d^2 / (2 s^2)) of its distance d from the middle, s an eighth of the window, rows times columns, as nnU-Net and
    MONAI have it. A thousandth at least.
    """
    if blend == "mean":
        return None
    sides = []
    for edge in window:
        place = torch.arange(edge, dtype=torch.float64) + 0.5
        if blend == "linear":
            sides.append(torch.minimum(place, edge - place) / (edge / 2))
        else:
            sides.append(torch.exp(-((place - edge / 2) ** 2) / (2 * (edge / 8) ** 2)))
    return torch.outer(*sides).clamp_min(_LEAST).float().to(device)


def stride_of(view: SceneView) -> tuple[int, int]:
    """By how much the window of a view moves; two thirds of it, unless its overlap is given."""
    assert view.window is not None
    if view.overlap is None:
        return max(1, view.window[0] * 2 // 3), max(1, view.window[1] * 2 // 3)
    return max(1, round(view.window[0] * (1 - view.overlap))), max(1, round(view.window[1] * (1 - view.overlap)))


def starts(length: int, window: int, stride: int) -> list[int]:
    """Where windows along a side begin; the last one ends with it."""
    return [*range(0, length - window, stride), length - window]


class _Grid:
    """Upsampling between pixel centers as `upsample`, of any part of a grid to any part of a picture."""

    def __init__(self, small: tuple[int, int], large: tuple[int, int]) -> None:
        self.same = small == large
        self.taps = [taps(few, many, torch.float32) for few, many in zip(small, large, strict=True)]

    def needed(self, axis: int, part: slice) -> tuple[int, int]:
        """The first and the last place behind those that a part of the picture lies between."""
        first, second, _ = self.taps[axis]
        return int(first[part.start]), int(second[part.stop - 1]) + 1

    def part(self, logits: Tensor, begins: tuple[int, int], rows: slice, columns: slice) -> Tensor:
        """float32 [C, h, w]; logits: [C, ...] from the place `begins` of the grid on."""
        if self.same:
            return logits[:, rows.start - begins[0] : rows.stop - begins[0], columns.start - begins[1] :][
                ..., : columns.stop - columns.start
            ]
        out = logits == -torch.inf if may_be_out(logits) else None
        values = logits if out is None else logits.masked_fill(out, 0.0)
        for axis, part in ((0, rows), (1, columns)):
            first, second, share = (each[part].to(logits.device) for each in self.taps[axis])
            first, second = first - begins[axis], second - begins[axis]
            near, far = values.index_select(axis + 1, first), values.index_select(axis + 1, second)
            values = torch.lerp(near, far, share.view(-1, 1) if axis == 0 else share)
            if out is not None:
                second = torch.where(share > 0, second, first)
                out = out.index_select(axis + 1, first) | out.index_select(axis + 1, second)
        return values if out is None else values.masked_fill(out, -torch.inf)


class _Sliding:
    """Windows over one large picture, row by row within strips of columns, so wide that a row of them fits.

    A window that reaches into two strips is asked about in both.
    """

    def __init__(
        self, ask: Ask, shown: Raster, view: SceneView, size: tuple[int, int], classes: int, device: torch.device
    ) -> None:
        assert view.window is not None
        self.ask, self.shown, self.size, self.classes, self.device = ask, shown, size, classes, device
        self.high, self.wide = (min(edge, side) for edge, side in zip(view.window, shown.size, strict=True))
        stride = stride_of(view)
        self.tops = starts(shown.size[0], self.high, stride[0])
        self.lefts = starts(shown.size[1], self.wide, stride[1])
        self.weight = weights((self.high, self.wide), view.blend, device)
        self.grid = _Grid(shown.size, size)

    def pieces(self) -> Iterator[Piece]:
        enlarged = self.size[1] / self.shown.size[1]
        widest = max(self.wide, HELD // (self.classes * self.high)) * enlarged
        count = max(1, round(self.size[1] / widest + 0.499))
        cuts = [self.size[1] * number // count for number in range(count + 1)]
        for left, right in pairwise(cuts):
            if right > left:
                yield from self._strip(slice(left, right))

    def _strip(self, columns: slice) -> Iterator[Piece]:
        begin, end = self.grid.needed(1, columns)
        lefts = [left for left in self.lefts if left < end and left + self.wide > begin]
        # Rows of the picture lie between two of those that are shown: one more is kept of what is done.
        total = torch.zeros(self.classes, self.high + 2, end - begin, device=self.device)
        seen = torch.zeros(self.high + 2, end - begin, device=self.device)
        base = given = 0  # the first row held, and how many rows of the picture were given away
        for top, done in zip(self.tops, [*self.tops[1:], self.shown.size[0]], strict=True):
            for left in lefts:
                self._add(total, seen, (top - base, left - begin), (top, left))
            stop = int(torch.searchsorted(self.grid.taps[0][1], done))  # their second neighbors lie before `done`
            step = max(1, PIECE // (self.classes * (columns.stop - columns.start)))
            for first in range(given, stop, step):
                rows = slice(first, min(first + step, stop))
                low, high = self.grid.needed(0, rows)
                held = slice(low - base, high - base)
                yield Piece(rows, columns, self.grid.part(total[:, held] / seen[held], (low, begin), rows, columns))
            given = max(given, stop)
            if given < self.size[0]:
                kept = int(self.grid.taps[0][0][given])
                _move_up(total, seen, kept - base)
                base = kept

    def _add(self, total: Tensor, seen: Tensor, at: tuple[int, int], where: tuple[int, int]) -> None:
        """Ask about the window at `where` in the picture, and add what it says at `at`, as far as the strip reaches."""
        rows, columns = slice(where[0], where[0] + self.high), slice(where[1], where[1] + self.wide)
        logits = self.ask(self.shown.part(rows, columns)[None].to(self.device))
        check_dense(logits)
        answer = upsample(logits, (self.high, self.wide))[0]
        if self.weight is not None:
            answer = answer * self.weight
        first, last = max(at[1], 0), min(at[1] + self.wide, total.shape[2])
        inner = slice(first - at[1], last - at[1])
        there = slice(at[0], at[0] + self.high), slice(first, last)
        total[:, there[0], there[1]] += answer[..., inner]
        seen[there] += 1 if self.weight is None else self.weight[:, inner]


def _move_up(total: Tensor, seen: Tensor, rows: int) -> None:
    """Rows that are done make room for others, in place; class by class, for what lies between is a copy."""
    if rows <= 0:
        return
    for layer in (*total, seen):
        kept = layer[rows:].clone()
        layer[: len(kept)] = kept
        layer[len(kept) :] = 0
