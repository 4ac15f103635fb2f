"""How pictures are read where their files leave it open, and from values of more than 8 bits to the 8 that travel.

Below decoding.py; the run.py beside an export holds the text of this file, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

LARGEST_VALUE = 1e300  # of floats: beyond it, differences have no room


class Intensity(NamedTuple):
    """Which values of a picture become black and white; what lies between is in proportion.

    Attributes:
        kind: "window" and "white", the values themselves; "percentiles", of each channel of a picture; "zscore",
            standard deviations from the mean of each channel of a picture.
        low, high: of that, black and white.
        of: "picture", or "volume": percentiles and the mean are those of all slices of its volume together.
    """

    kind: str
    low: float
    high: float
    of: str = "picture"

    def values(self) -> dict[str, Any]:
        """As the run file has it."""
        value = self.high if self.kind in ("zscore", "white") else [self.low, self.high]
        return {self.kind: value} if self.of == "picture" else {self.kind: value, "of": self.of}


def said(values: dict[str, Any]) -> Intensity:
    """The one of the four that values give, as `Intensity.values` has them."""
    ((kind, value),) = ((key, value) for key, value in values.items() if key != "of")
    low, high = value if isinstance(value, (list, tuple)) else (-value if kind == "zscore" else 0.0, value)
    return Intensity(kind, float(low), float(high), values.get("of", "picture"))


Ends = tuple[float, float]
"""The values that become black and white."""


class Reading(NamedTuple):
    """How pictures are read where their files leave it open.

    Attributes:
        alpha: "white" composites transparency over white; "ignore" leaves its band out, for files in which it is data.
        white_level: the value that is white in gray files of 16 bits; None: 65535.
        max_megapixels: larger pictures are refused.
        channels: how many a picture becomes: 3 are RGB, 1 gray; of any other number files must have that many, which
            are taken as they are.
        intensity: how values become 8 bits, of any depth; None: as `white_level` says.
    """

    alpha: str = "white"
    white_level: int | None = None
    max_megapixels: float = 179.0
    channels: int = 3
    intensity: Intensity | None = None

    @property
    def arrays(self) -> bool:
        """Whether .npy files are pictures."""
        return self.channels != 3 or self.intensity is not None


class Unreadable(Exception):  # noqa: N818 - named by what it says about the file
    """A picture that cannot be read; the text says why."""


def bounded(height: int, width: int, reading: Reading) -> None:
    """Raises Unreadable for more pixels than are allowed; one of more than three channels counts as several."""
    megapixels = height * width * max(1, reading.channels / 3) / 1e6
    if megapixels > reading.max_megapixels:
        raise Unreadable(
            f"it has {megapixels:,.0f} megapixels, more pixels than max_megapixels {reading.max_megapixels:g} allows"
        )


def counted(values: Any, reading: Reading) -> Any:
    """The array [H, W, channels], which has as many as are read. Raises Unreadable where not."""
    if values.ndim != 3 or values.shape[2] != reading.channels or 0 in values.shape:
        given = f"{values.shape[2]} channels" if values.ndim == 3 else f"the shape {list(values.shape)}"
        raise Unreadable(f"it has {given}, and data.channels is {reading.channels}")
    return values


def eight_bits(values: Any, reading: Reading, between: Sequence[Ends] | None = None) -> Any:
    """Channels [H, W, C] in 8 bits: as `intensity` says; else of 16 as shares of the white level, floats of 1.

    between: of each channel, where they are those of a volume.
    """
    if reading.intensity is not None:
        return brought(values, reading.intensity, between)
    if values.dtype == np.uint8:
        return values
    white = reading.white_level or 65535
    if values.dtype.kind == "f":
        low, high, white = values.min(), values.max(), 65535
        if not (low >= 0 and high <= 1):
            raise Unreadable(
                f"its values {low:g} to {high:g} are not within 0 to 1, as floats are read: say with data.intensity "
                "how they become 8 bits"
            )
        values = np.rint(values.astype(np.float64) * 65535)
    elif values.dtype.kind != "u" or values.dtype.itemsize != 2:
        raise Unreadable(
            f"its values are {values.dtype}; uint8, uint16 and floats within 0 to 1 are read, others where "
            "data.intensity says how they become 8 bits"
        )
    return scaled(values, white)


def scaled(values: Any, white: int) -> Any:
    """Values from 0 on as shares of `white`, in 8 bits; what lies above is white."""
    return ((np.minimum(values.astype(np.uint32), white) * 255 + white // 2) // white).astype(np.uint8)


def brought(values: Any, intensity: Intensity, between: Sequence[Ends] | None = None) -> Any:
    """Channels [H, W, C] of any depth in 8 bits, each by itself. Raises Unreadable where values are no numbers, and
    where black and white are those of a volume and nobody says which these are."""
    if intensity.of != "picture" and between is None:
        raise Unreadable(
            f"it is one picture, and data.intensity is {intensity.kind} of whole volumes, which one slice does not "
            "tell: give the volume (NIfTI, a stack, a folder of DICOM)"
        )
    if values.dtype.kind not in "uif":
        raise Unreadable(f"its values are {values.dtype}, which are no numbers that become gray")
    found = np.empty(values.shape, np.uint8)
    band = max(1, 2**20 // max(1, values.shape[1]))  # rows at a time, where values take eight bytes each
    for channel in range(values.shape[2]):
        plane = values[..., channel]
        if plane.dtype.kind in "ui" and plane.dtype.itemsize <= 2:
            least = -(1 << 8 * plane.dtype.itemsize - 1) if plane.dtype.kind == "i" else 0
            places, total = plane.astype(np.int32) - least, 1 << 8 * plane.dtype.itemsize
            levels = np.arange(total, dtype=np.float64) + least
            edges = (intensity.low, intensity.high) if between is None else between[channel]
            if intensity.kind not in ("window", "white") and between is None:
                edges = ends_of_counts(levels, np.bincount(places.ravel(), minlength=total), intensity)
            found[..., channel] = shares(levels, edges, intensity)[places]
        else:
            rows = [slice(top, top + band) for top in range(0, len(plane), band)]
            if not all((np.abs(plane[part].astype(np.float64)) <= LARGEST_VALUE).all() for part in rows):
                raise Unreadable("it holds values that are no finite numbers (NaN, infinity, or beyond 1e300)")
            edges = ends(plane, intensity) if between is None else between[channel]
            for part in rows:
                found[part, :, channel] = shares(plane[part].astype(np.float64), edges, intensity)
    return found


def ends_of_counts(levels: Any, counts: Any, intensity: Intensity) -> Ends:
    """The values that are black and white, of a picture that has each of these levels so many times: exact sums."""
    kind, low, high, _ = intensity
    there = counts > 0
    levels, counts = levels[there], counts[there]
    total = int(counts.sum())
    if kind == "percentiles":
        upto, found = np.cumsum(counts), []
        for share in (low, high):
            place = share / 100 * (total - 1)
            below = levels[np.searchsorted(upto, int(place), side="right")]
            above = levels[np.searchsorted(upto, min(int(place) + 1, total - 1), side="right")]
            found.append(float(below + (above - below) * (place - int(place))))
        return found[0], found[1]
    numbers = [(int(level), int(count)) for level, count in zip(levels, counts, strict=True)]
    first, second = (sum(level**power * count for level, count in numbers) for power in (1, 2))
    mean, spread = first / total, (max(0, second * total - first * first) ** 0.5) / total
    return mean + low * spread, mean + high * spread


def ends(plane: Any, intensity: Intensity) -> Ends:
    """The values of a channel, finite numbers [H, W], that are black and white."""
    kind, low, high, _ = intensity
    if kind in ("window", "white"):
        return low, high
    plane = plane.astype(np.float64)
    if kind == "percentiles":
        black, white = np.percentile(plane, (low, high))
        return float(black), float(white)
    scale = float(np.abs(plane).max()) or 1.0  # so that no square is too large
    mean, spread = float((plane / scale).mean()) * scale, float((plane / scale).std()) * scale
    return mean + low * spread, mean + high * spread


def shares(values: Any, between: tuple[float, float], intensity: Intensity) -> Any:
    """Values, float64, in 8 bits, of which `between` are black and white.

    Where these are one value, what lies above it is white and the rest black; a channel of one value by zscore is gray.
    """
    black, white = between
    if not white > black:
        return np.full(values.shape, 128, np.uint8) if intensity.kind == "zscore" else (values > white) * np.uint8(255)
    return np.floor((np.clip(values, black, white) - black) * 255 / (white - black) + 0.5).astype(np.uint8)
