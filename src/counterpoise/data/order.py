"""The order in which an epoch shows the images of a set, place by place: a function of (seed, epoch) alone.

Any place can be asked for at once, so that processes take their shares of one order, and a run goes on within an epoch,
without what came before.
"""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from counterpoise import config
from counterpoise.data import balance, mixing, random
from counterpoise.errors import ConfigError, DataError
from counterpoise.system import machine

if TYPE_CHECKING:
    from counterpoise.data.sources.base import ImageSet

WINDOW_IMAGES, WINDOW_BLOCKS = 16384, 16
"""What a window holds at least where nobody says how many blocks: so many images, and so many blocks."""
BLOCK_SIZE = 64
"""Images in a block of a set whose images do not lie in blocks."""
LEAST_LIMIT = 0.25e9
"""Bytes that a window may take in any case: a memory limit of 0 is for pictures."""
BALANCE = "data.balance"
BYTES_AN_IMAGE = 64
"""That drawing the order of a window takes, while it is drawn."""

_HELD_IMAGES = 2**21  # whose order is kept, where several windows are asked for again and again


class Order(ABC):
    """The order of every epoch of one seed.

    Attributes:
        count: images in the set.
    """

    def __init__(self, seed: int, count: int) -> None:
        self.seed = seed
        self.count = count

    @abstractmethod
    def at(self, epoch: int, start: int, stop: int) -> Tensor:
        """The images at places start, ..., stop - 1 of an epoch, int64 [stop - start]; after the last comes the first.

        0 <= start <= stop <= start + count, start < count.
        """

    @abstractmethod
    def partners(self, epoch: int, indices: Tensor) -> Tensor:
        """The images that follow these (int64 [n]) in an epoch, int64 [n]: whom they are mixed with."""

    @abstractmethod
    def places(self, epoch: int, indices: Tensor, near: int) -> Tensor:
        """The places of images (int64 [n]) in an epoch, int64 [n].

        Of those that are not mixed with the image at place `near`, the first place of what they are mixed within.
        """

    @property
    def specification(self) -> dict[str, Any]:
        """What determines the order beside seed and count, as JSON holds it."""
        return {}

    def shown(self) -> str:
        """The order in a few words; empty where any image may come anywhere."""
        return ""


class FullOrder(Order):
    """Every image may come anywhere. It takes 8 bytes an image, and to begin an epoch grows with the set."""

    def __init__(self, seed: int, count: int) -> None:
        super().__init__(seed, count)
        self._drawn: tuple[int, Tensor] | None = None
        self._partners: tuple[int, Tensor] | None = None
        self._places: tuple[int, Tensor] | None = None

    def at(self, epoch: int, start: int, stop: int) -> Tensor:
        order = self._order(epoch)
        if stop <= self.count:
            return order[start:stop]
        return torch.cat([order[start:], order[: stop - self.count]])

    def partners(self, epoch: int, indices: Tensor) -> Tensor:
        if self._partners is None or self._partners[0] != epoch:
            self._partners = epoch, mixing.partners(self._order(epoch))
        return self._partners[1][indices]

    def places(self, epoch: int, indices: Tensor, near: int) -> Tensor:
        if self._places is None or self._places[0] != epoch:
            places = torch.empty(self.count, dtype=torch.int64)
            places[self._order(epoch)] = torch.arange(self.count)
            self._places = epoch, places
        return self._places[1][indices]

    def _order(self, epoch: int) -> Tensor:
        if self._drawn is None or self._drawn[0] != epoch:
            self._drawn = epoch, random.permutation(self.seed, epoch, self.count)
        return self._drawn[1]

    def __getstate__(self) -> dict[str, Any]:
        """As it is sent to a worker process, which draws for itself."""
        return {**vars(self), "_drawn": None, "_partners": None, "_places": None}


class BalancedOrder(FullOrder):
    """Any image may come anywhere, those of rare classes several times: see `data.balance`.

    Args:
        labels: int64 [N], one class an image.
        power: from 0, classes as they are, to 1, all equally often.
    """

    def __init__(self, seed: int, labels: Tensor, power: float) -> None:
        super().__init__(seed, len(labels))
        self.power = power
        self.shares = balance.shares(labels, power)

    def partners(self, epoch: int, indices: Tensor) -> Tensor:
        raise ConfigError(f"{BALANCE} shows some images several times an epoch, and so none has one partner.")

    def places(self, epoch: int, indices: Tensor, near: int) -> Tensor:
        """The next place of each image from `near` on, else its first; `count` where the epoch does not show it."""
        ordered = self._order(epoch)
        found = torch.full((self.count,), self.count)
        for places in (torch.arange(near), torch.arange(near, self.count)):
            back = places.flip(0)  # of equal images the first one is set last
            found[ordered[back].numpy()] = back
        return found[indices]

    def _order(self, epoch: int) -> Tensor:
        if self._drawn is None or self._drawn[0] != epoch:
            self._drawn = epoch, balance.order(self.shares, self.seed, epoch)
        return self._drawn[1]

    @property
    def specification(self) -> dict[str, Any]:
        sizes = " ".join(map(str, [*self.shares.sizes.tolist(), *self.shares.members.tolist()]))
        return {"order": {"balance": self.power, "classes": hashlib.sha256(sizes.encode()).hexdigest()}}

    def shown(self) -> str:
        first = int(self.shares.unlabeled)
        sizes, places = self.shares.sizes[first:], self.shares.places[first:]
        return (
            f"balanced: classes of {_range(sizes)} images take {_range(places)} places of an epoch, an image up to "
            f"{self.shares.most_often:,}"
        )


class Window(NamedTuple):
    """A stretch of an epoch in which the images of some blocks are mixed.

    Attributes:
        first: its first place.
        blocks: int64 [k], its blocks by number, rising.
    """

    first: int
    blocks: Tensor


class _Epoch(NamedTuple):
    """The blocks of an epoch.

    Attributes:
        number: of the epoch.
        blocks: int64 [K], blocks in their order.
        places: int64 [K], the place of each block in it.
        begins: int64 [G + 1], where windows begin, in images, and the end.
    """

    number: int
    blocks: Tensor
    places: Tensor
    begins: Tensor


class BlockOrder(Order):
    """Blocks come in random order, and the images of a window of blocks in random order.

    So what lies together is read together, once an epoch, and the memory that it takes grows with the blocks and with
    what a window holds. Windows are of nearly as many blocks each. In a single window the order is that of `FullOrder`.

    Args:
        sizes: int64 [K], images in each block, 1 or more.
        window: blocks in a window, at most.
    """

    def __init__(self, seed: int, sizes: Tensor, window: int) -> None:
        super().__init__(seed, int(sizes.sum()))
        self.sizes, self.window = sizes, window
        self._starts = sizes.cumsum(0).sub_(sizes)
        count = -(-len(sizes) // window)
        self._bounds = torch.arange(count + 1) * len(sizes) // count  # of windows, in blocks
        self._held: dict[tuple[int, int], Tensor] = {}
        self._drawn: _Epoch | None = None

    def at(self, epoch: int, start: int, stop: int) -> Tensor:
        if stop > self.count:
            return torch.cat([self.at(epoch, start, self.count), self.at(epoch, 0, stop - self.count)])
        begins = self._epoch(epoch).begins
        number = self._window(begins, start)
        pieces = [torch.empty(0, dtype=torch.int64)]
        while start < stop:
            order, first = self._order(epoch, number), int(begins[number])
            pieces.append(order[start - first : stop - first])
            start, number = first + len(order), number + 1
        return torch.cat(pieces)

    def partners(self, epoch: int, indices: Tensor) -> Tensor:
        drawn, numbers = self._epoch(epoch), self._windows_of(epoch, indices)
        found = torch.empty_like(indices)
        for number in sorted(set(numbers.tolist())):
            order, rows = self._order(epoch, number), numbers == number
            after = int(drawn.begins[number + 1]) % self.count
            rising, where = order.sort()
            following = torch.cat([order[1:], self.at(epoch, after, after + 1)])
            found[rows] = following[where[torch.searchsorted(rising, indices[rows])]]
        return found

    def places(self, epoch: int, indices: Tensor, near: int) -> Tensor:
        begins, numbers = self._epoch(epoch).begins, self._windows_of(epoch, indices)
        found, number = begins[numbers], self._window(begins, near)
        if (rows := numbers == number).any():
            rising, where = self._order(epoch, number).sort()
            found[rows] += where[torch.searchsorted(rising, indices[rows])]
        return found

    def windows(self, epoch: int, place: int = 0) -> Iterator[Window]:
        """The windows of an epoch from that on which holds `place`: what is read next."""
        begins = self._epoch(epoch).begins
        for number in range(self._window(begins, place), len(begins) - 1):
            yield Window(int(begins[number]), self._members(epoch, number))

    @property
    def largest(self) -> int:
        """Images that a window holds at most."""
        count = math.ceil(len(self.sizes) / (len(self._bounds) - 1))
        return int(self.sizes.sort(descending=True).values[:count].sum())

    @property
    def specification(self) -> dict[str, Any]:
        digest = hashlib.sha256(" ".join(map(str, self.sizes.tolist())).encode()).hexdigest()
        return {"order": {"blocks": digest, "windows": len(self._bounds) - 1}}

    def shown(self) -> str:
        windows = len(self._bounds) - 1
        return (
            f"by blocks: {len(self.sizes):,} of {_range(self.sizes)} images, mixed within {windows:,} "
            f"window{'s' * (windows > 1)} of up to {math.ceil(len(self.sizes) / windows):,}"
        )

    def _epoch(self, epoch: int) -> _Epoch:
        if self._drawn is None or self._drawn.number != epoch:
            blocks = random.shuffled(self.seed, epoch, torch.arange(len(self.sizes)), random.BLOCKS)
            ends = self.sizes[blocks].cumsum(0)
            places = torch.empty_like(blocks)
            places[blocks] = torch.arange(len(blocks))
            begins = torch.cat([torch.zeros(1, dtype=torch.int64), ends[self._bounds[1:] - 1]])
            self._drawn = _Epoch(epoch, blocks, places, begins)
        return self._drawn

    def _windows_of(self, epoch: int, indices: Tensor) -> Tensor:
        """The number of the window that each image is in."""
        places = self._epoch(epoch).places[torch.searchsorted(self._starts, indices, right=True) - 1]
        return torch.searchsorted(self._bounds, places, right=True) - 1

    @staticmethod
    def _window(begins: Tensor, place: int) -> int:
        return int(torch.searchsorted(begins, place, right=True)) - 1

    def _members(self, epoch: int, number: int) -> Tensor:
        """The blocks of a window, rising."""
        first, stop = self._bounds[number : number + 2].tolist()
        return self._epoch(epoch).blocks[first:stop].sort().values

    def _order(self, epoch: int, number: int) -> Tensor:
        """The images of a window in their order."""
        key = epoch, number
        if key not in self._held:
            members = self._members(epoch, number)
            sizes = self.sizes[members]
            before = sizes.cumsum(0).sub_(sizes)
            images = torch.repeat_interleave(self._starts[members].sub_(before), sizes)
            images += torch.arange(len(images))
            ordered = random.shuffled(self.seed, epoch, images, random.ORDER)
            while self._held and (len(self._held) + 1) * len(ordered) > _HELD_IMAGES:
                del self._held[next(iter(self._held))]
            self._held[key] = ordered
        return self._held[key]

    def __getstate__(self) -> dict[str, Any]:
        """As it is sent to a worker process, which draws for itself."""
        return {**vars(self), "_held": {}, "_drawn": None}


def plan_order(images: ImageSet, data: config.Data, seed: int) -> Order:
    """The order that a run file asks for.

    Raises:
        ConfigError: a window is larger than the set, or than the memory that may be taken; classes cannot be balanced.
    """
    if data.balance and len(images):
        _check_balance(images)
        return BalancedOrder(seed, images.labels, data.balance)
    if data.shuffle == "full" or not len(images):  # an empty set is refused by who asks for its steps
        return FullOrder(seed, len(images))
    sizes = _sizes(images, data.block_size)
    order = BlockOrder(seed, sizes, _blocks_of_window(sizes, data.shuffle_window))
    limit, whose = max(data.memory_limit_gb * 1e9, LEAST_LIMIT), "data.memory_limit_gb"
    if (there := machine.memory()) < limit:
        limit, whose = there, "the memory of this machine or container"
    if order.largest * BYTES_AN_IMAGE > limit:
        raise ConfigError(
            f"{order.window:,} blocks (data.shuffle_window) hold up to {order.largest:,} images, and to draw their "
            f"order takes {order.largest * BYTES_AN_IMAGE / 1e9:.3g} GB, more than {limit / 1e9:.3g} "
            f"({whose}): take fewer blocks, or smaller ones (data.block_size)."
        )
    return order


def _check_balance(images: ImageSet) -> None:
    """Raises ConfigError where images have not one class each."""
    if images.masked:
        raise ConfigError(
            f"{BALANCE} goes by the class of an image, and scenes have one for every pixel: take class_weight: "
            "frequency of the objective."
        )
    if images.multilabel:
        raise ConfigError(
            f"{BALANCE} goes by the class of an image, and these may have several: take pos_weight: frequency of "
            "binary_cross_entropy."
        )
    if images.unlabeled == len(images):
        raise ConfigError(f"{BALANCE} goes by the classes of images, and none of the {len(images):,} has a label.")


def identity(images: ImageSet, data: config.Data) -> str | None:
    """A hash of what the order of a run depends on and neither its run file nor the images say; None where it is all.

    That is where one shard ends and the next begins.
    """
    if data.shuffle == "full" or data.block_size is not None:
        return None
    blocks = "" if images.blocks is None else " ".join(map(str, images.blocks.tolist()))
    return hashlib.sha256(blocks.encode()).hexdigest()


def _sizes(images: ImageSet, size: int | None) -> Tensor:
    """The sizes of the blocks of a set: its own, or `size` pictures each."""
    if size is None and images.blocks is not None:
        sizes = images.blocks.to(torch.int64)
        if int(sizes.min()) < 0 or int(sizes.sum()) != len(images):
            raise DataError(f"The blocks of a set of {len(images):,} images hold {int(sizes.sum()):,}.")
        return sizes[sizes > 0]
    size = (size or BLOCK_SIZE) * images.times
    full, rest = divmod(len(images), size)
    return torch.cat([torch.full((full,), size), torch.tensor([rest] * bool(rest), dtype=torch.int64)])


def _blocks_of_window(sizes: Tensor, wanted: int | None) -> int:
    if wanted is None:
        return min(len(sizes), max(WINDOW_BLOCKS, math.ceil(WINDOW_IMAGES * len(sizes) / int(sizes.sum()))))
    if wanted > len(sizes):
        raise ConfigError(
            f"data.shuffle_window is {wanted:,} and the set has {len(sizes):,} blocks: data.shuffle: full mixes all of "
            f"it, or take {len(sizes):,} at most, or smaller blocks (data.block_size)."
        )
    return wanted


def _range(values: Tensor) -> str:
    low, high = int(values.min()), int(values.max())
    return f"{high:,}" if low == high else f"{low:,} to {high:,}"
