r"""Logits as records of few bytes, and back. A record is one sample in one view; every position keeps its own scale.

What 8 and 4 bits keep: the few largest logits of a position stand in the record by themselves, exact to the eye of any
loss; all others are even steps over their own range, finer above the median than below it. Forward KL weighs an error
by the teacher's probability, so it feels the head; reverse KL weighs it by the student's, so it feels whatever the
student still believes: the tail, in absolute terms. Taking out the head makes the tail's steps finer, and its lower
half, which spans more and weighs less, can spare some of them for the upper. One scale for all is off by half as much
again on the middle ranks; square-root steps, which favor the head, make the tail's coarser; steps at the quantiles of a
normal distribution lose both ends (benchmarks/fidelity.py has them side by side).
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from math import prod

import numpy as np
import torch
from torch import Tensor

from counterpoise.errors import StoreError, unknown

PRECISIONS = ("float32", "float16", "int8", "int4")
FORMAT = 2
"""Of stores, the newest: in format 1 int8 and int4 have one scale and a head of 4 logits, all else is the same."""
HEADS = {1: 4, 2: 8}
"""Logits of a position that int8 and int4 keep by themselves, by format, where there are at least SMALL classes."""
SMALL = 32
_LOWER = {8: 91, 4: 6}  # steps below the median, of 255 and 15; chosen so that both halves are off by about the same

Field = tuple[str, str, list[int]]  # as numpy takes it: name, dtype, shape

_TORCH = {
    "<f4": torch.float32,
    "<f2": torch.float16,
    "|u1": torch.uint8,
    "<i2": torch.int16,
    "<i4": torch.int32,
}


class Codec(ABC):
    """From logits to records and back.

    Args:
        shape: of a sample's logits: [C] or [C, h, w].
        fields: the parts of a record, as numpy takes them.

    Attributes:
        format: the first format of stores that has these records.
        dtype: of a record.
        row_bytes: size of a record.
    """

    format = 1

    def __init__(self, shape: Sequence[int], fields: list[Field]) -> None:
        self.shape = tuple(shape)
        self.fields = fields
        self.dtype = np.dtype([(name, kind, tuple(inner)) for name, kind, inner in fields])
        self.row_bytes = self.dtype.itemsize
        self._extents: dict[str, tuple[int, int, torch.dtype, list[int]]] = {}
        start = 0
        for name, kind, inner in fields:
            stop = start + np.dtype(kind).itemsize * prod(inner)
            self._extents[name] = (start, stop, _TORCH[kind], inner)
            start = stop

    def encode(self, logits: Tensor) -> Tensor:
        """Records of logits: [N, *shape], any floating dtype and device, to uint8 [N, row_bytes] on the CPU.

        A record depends on its own logits alone.

        Raises:
            StoreError: another shape, logits that are not finite, or too large for this precision.
        """
        if tuple(logits.shape[1:]) != self.shape:
            raise StoreError(
                f"The store holds logits of shape {list(self.shape)}, the teacher gave {list(logits.shape[1:])}."
            )
        logits = logits.detach().to("cpu", torch.float32)
        if not logits.isfinite().all():
            raise StoreError("The teacher gave logits that are not finite; a store of them would be of no use.")
        return self._encode(logits)

    @abstractmethod
    def decode(self, records: Tensor) -> Tensor:
        """Logits of records: uint8 [N, row_bytes] to float32 [N, *shape], on the same device."""

    @abstractmethod
    def _encode(self, logits: Tensor) -> Tensor: ...

    def _pack(self, values: Mapping[str, Tensor]) -> Tensor:
        """Records from tensors [N, ...] of their fields."""
        columns = []
        for name, (_, _, dtype, _) in self._extents.items():
            stored = values[name].to(dtype)
            if dtype.is_floating_point and not stored.isfinite().all():
                raise StoreError(
                    f"Logits reach {float(values[name].abs().max()):.4g}, too large for this precision: "
                    "record in float32."
                )
            columns.append(stored.contiguous().flatten(1).view(torch.uint8))
        return torch.cat(columns, dim=1)

    def _field(self, records: Tensor, name: str) -> Tensor:
        """One field of records, [N, ...] in its dtype."""
        start, stop, dtype, inner = self._extents[name]
        part = records[:, start:stop]
        if dtype != torch.uint8:
            # A copy even where torch would call it contiguous: a single record may lie at any address.
            whole = stop - start == self.row_bytes and records.is_contiguous()
            part = (part if whole else part.clone(memory_format=torch.contiguous_format)).view(dtype)
        return part.reshape(-1, *inner)


class Floating(Codec):
    """Logits as they are, float32 or float16: a plain array.

    float16 is not shifted, though softmax would not notice: so logits of a half-precision teacher come back in the
    same bits, and objectives of raw logits are served. Its steps are 2**-11 of a logit; it ends at 65504.
    """

    def __init__(self, shape: Sequence[int], kind: str) -> None:
        super().__init__(shape, [("logits", kind, list(shape))])

    def _encode(self, logits: Tensor) -> Tensor:
        return self._pack({"logits": logits})

    def decode(self, records: Tensor) -> Tensor:
        return self._field(records, "logits").to(torch.float32)


class _Headed(Codec):
    """Codecs that keep the `head` largest logits of each position by themselves, if any.

    The largest in float32, and how far others are below it in float16, which is fine where they are close; behind them
    in the same field as many values of the codec's own as `further` says.
    """

    def __init__(self, shape: Sequence[int], head: int, fields: list[Field], further: int = 0) -> None:
        classes, *inner = shape
        index = "|u1" if classes <= 2**8 else "<i2" if classes <= 2**15 else "<i4"
        self.head = head
        own: list[Field] = [("top", "<f4", [1, *inner])] if head else []
        own += [("below", "<f2", [head - 1 + further, *inner])] if head + further > 1 else []
        own += [("where", index, [head, *inner])] if head else []
        super().__init__(shape, [*own, *fields])

    def _split(self, largest: Tensor, where: Tensor) -> dict[str, Tensor]:
        """The fields of a head: values [N, head + further, ...] and places [N, head, ...], descending."""
        values = {"top": largest[:, :1], "below": largest[:, :1] - largest[:, 1:], "where": where}
        return {name: value for name, value in values.items() if name in self._extents}

    def _join(self, records: Tensor, logits: Tensor) -> Tensor:
        """Put the head of records in its places, in place."""
        if self.head:
            top = self._field(records, "top")
            below = self._field(records, "below")[:, : self.head - 1] if self.head > 1 else top[:, :0]
            values = torch.cat([top, top - below], dim=1)
            logits.scatter_(1, self._field(records, "where").long(), values)
        return logits


class _Coded(_Headed):
    """Codecs of 8 or 4 bits a logit: a head, and codes of all classes.

    Two codes of 4 bits share a byte: that of class c has its low bits, that of class c + ceil(C / 2) its high ones.
    """

    def __init__(self, shape: Sequence[int], bits: int, head: int, fields: list[Field], further: int = 0) -> None:
        classes, *inner = shape
        self.bits, self.levels = bits, 2**bits - 1
        stored = classes if bits == 8 else -(-classes // 2)
        super().__init__(shape, head, [*fields, ("codes", "|u1", [stored, *inner])], further)

    def _pack_codes(self, steps: Tensor) -> Tensor:
        """uint8 [N, stored, ...] from positions among the steps, of any float, [N, C, ...]."""
        codes = steps.round().clamp(0, self.levels).to(torch.uint8)
        if self.bits == 8:
            return codes
        half = -(-codes.shape[1] // 2)
        high = torch.zeros_like(codes[:, :half])
        high[:, : codes.shape[1] - half] = codes[:, half:]
        return codes[:, :half] | high << 4

    def _codes(self, records: Tensor) -> Tensor:
        """uint8 [N, C, ...]."""
        codes = self._field(records, "codes")
        if self.bits == 8:
            return codes
        return torch.cat([codes & 15, codes >> 4], dim=1)[:, : self.shape[0]]


class Uniform(_Coded):
    """The head by itself, if any, the rest as low + code * scale, both for each position.

    Low and scale of dense logits are float16: codes are chosen for the rounded ones, so that nothing is lost by it.
    """

    def __init__(self, shape: Sequence[int], bits: int, head: int = 0) -> None:
        _, *inner = shape
        side = "<f2" if inner else "<f4"
        super().__init__(shape, bits, head, [("low", side, [1, *inner]), ("scale", side, [1, *inner])])
        self._side = _TORCH[side]

    def _encode(self, logits: Tensor) -> Tensor:
        largest, where = logits.topk(self.head + 1, dim=1)
        low = logits.amin(1, keepdim=True).to(self._side)
        scale = ((largest[:, self.head :] - low.float()).clamp(min=0) / self.levels).to(self._side)
        steps = (logits - low.float()) / _nonzero(scale.float())
        head = self._split(largest[:, : self.head], where[:, : self.head])
        return self._pack({**head, "low": low, "scale": scale, "codes": self._pack_codes(steps)})

    def decode(self, records: Tensor) -> Tensor:
        low, scale = (self._field(records, name).to(torch.float32) for name in ("low", "scale"))
        return self._join(records, torch.addcmul(low, self._codes(records).to(torch.float32), scale))


class Halves(_Coded):
    """The head by itself, the rest in even steps from the smallest to the median, and from there to the largest.

    Code `lower` is the median. The three ends are in the head's field `below`, behind the head: the largest of the
    rest, the median of all (of an even number the lower one), the smallest. Codes are chosen for the rounded ends.
    """

    format = 2

    def __init__(self, shape: Sequence[int], bits: int, head: int) -> None:
        super().__init__(shape, bits, head, [], further=3)
        self.lower = _LOWER[bits]

    def _encode(self, logits: Tensor) -> Tensor:
        largest, where = logits.topk(self.head + 1, dim=1)
        half = (logits.shape[1] - 1) // 2  # found by numpy in a fifth of the time that torch.median takes
        median = torch.from_numpy(np.partition(logits.numpy(), half, axis=1)[:, half : half + 1])
        head = self._split(torch.cat([largest, median, logits.amin(1, keepdim=True)], dim=1), where[:, : self.head])
        low, middle, over, under = self._ends(head["top"], head["below"].to(torch.float16))
        steps = torch.where(
            logits < middle, (logits - low) / _nonzero(under), self.lower + (logits - middle) / _nonzero(over)
        )
        return self._pack({**head, "codes": self._pack_codes(steps)})

    def decode(self, records: Tensor) -> Tensor:
        low, _, over, under = self._ends(self._field(records, "top"), self._field(records, "below"))
        codes = self._codes(records)
        below = codes.clamp(max=self.lower)
        logits = torch.addcmul(low, below.to(torch.float32), under)
        return self._join(records, logits.addcmul_((codes - below).to(torch.float32), over))

    def _ends(self, top: Tensor, below: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Smallest and median, and the steps above and below the median: float32 [N, 1, ...] each."""
        high, middle, low = (top - below[:, -3:].to(torch.float32)).tensor_split(3, dim=1)
        return low, middle, (high - middle) / (self.levels - self.lower), (middle - low) / self.lower


class TopK(_Headed):
    """The K largest logits, and the probability of all others together at temperature 1, spread evenly over them.

    What other caches keep, for comparison: the order and the shape of the tail are lost.
    """

    def __init__(self, shape: Sequence[int], k: int) -> None:
        classes, *inner = shape
        if not 1 <= k < classes:
            raise StoreError(f"Precision top{k} does not fit {classes} classes: it keeps 1 to {classes - 1} of them.")
        super().__init__(shape, k, [("rest", "<f4", [1, *inner])])

    def _encode(self, logits: Tensor) -> Tensor:
        largest, where = logits.topk(self.head, dim=1)
        others = logits.scatter(1, where, -torch.inf)
        rest = others.logsumexp(1, keepdim=True) - float(np.log(self.shape[0] - self.head))
        return self._pack({**self._split(largest, where), "rest": rest})

    def decode(self, records: Tensor) -> Tensor:
        rest = self._field(records, "rest")
        return self._join(records, rest.expand(-1, *self.shape).clone())


def _nonzero(scale: Tensor) -> Tensor:
    """To be divided by: infinity where all that is divided is zero."""
    return torch.where(scale > 0, scale, torch.inf)


def find(precision: str, shape: Sequence[int], format: int = FORMAT) -> Codec:
    """The codec of a precision for logits of a shape, [C] or [C, h, w], in stores of a format.

    Raises:
        StoreError: no such precision, or shape.
    """
    if len(shape) not in (1, 3) or min(shape) < 1:
        raise StoreError(f"Logits of a sample must have shape [C] or [C, h, w], got {list(shape)}.")
    if match := re.fullmatch(r"top([1-9]\d{0,5})", precision):
        return TopK(shape, int(match[1]))
    if precision not in PRECISIONS:
        raise StoreError(unknown("Precision", precision, [*PRECISIONS, "top10", "top50"]))
    if precision.startswith("float"):
        return Floating(shape, "<f4" if precision == "float32" else "<f2")
    bits = int(precision.removeprefix("int"))
    if shape[0] < SMALL:
        return Uniform(shape, bits)
    return Uniform(shape, bits, HEADS[1]) if format == 1 else Halves(shape, bits, HEADS[format])
