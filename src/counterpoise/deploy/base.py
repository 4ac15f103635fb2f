"""What a format must be able to do, and the registry: each file of formats/ is one."""

from __future__ import annotations

import importlib.util
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from counterpoise.errors import ConfigError, ExportError, MissingExtraError, damage, first_line
from counterpoise.system.registry import Registry

PRECISIONS = ("float32", "float16", "int8")
Pixels = NDArray[np.uint8]
"""[N, channels, H, W] in [0, 255], three of them RGB, as `prepare` of data/images.py leaves them."""
Logits = NDArray[np.float32]
"""[N, C] or, of scenes, [N, C, h, w]."""


class Window(NamedTuple):
    """How a window slides over scenes: by how many pixels down and across, and how windows over a pixel count."""

    stride: tuple[int, int]
    blend: str


@dataclass(frozen=True)
class Request:
    """What an export is to be.

    Attributes:
        precision: of weights and arithmetic; int8 keeps float32 where it is told to.
        size: height and width of the pixels it takes.
        batch: how many pictures at once; None any number.
        opset: version of the operators, where the format has such; None: its usual one.
        around: color around scenes of another size than it takes; None: they are resized, whatever their shape.
        any_size: whether it takes pictures of any height and width; `size` is then that by which it is remembered.
        channels: of the pictures.
        window: where it is `size` itself that slides over scenes: by how much it moves, and how windows blend.
    """

    precision: str
    size: tuple[int, int]
    batch: int | None = None
    opset: int | None = None
    any_size: bool = False
    around: tuple[int, ...] | None = None
    channels: int = 3
    window: Window | None = None

    @property
    def fed(self) -> tuple[int, int] | None:
        """The size that pictures are brought to; None: they come at their own."""
        return None if self.any_size or self.window is not None else self.size

    @property
    def example(self) -> Tensor:
        """Gray pixels of the shape it takes, uint8 [N, channels, H, W]."""
        return torch.full((self.batch or 2, self.channels, *self.size), 128, dtype=torch.uint8)


@dataclass(frozen=True)
class Calibration:
    """From what a quantizer learns the ranges of activations.

    Attributes:
        pixels: training images as the export is fed, uint8 [N, 3, H, W]; of several sizes, N times [3, H, W].
        method: how a range is drawn from them: minmax, percentile or entropy.
        keep: names of modules (as in `named_modules` of the network that is exported) that stay in float.
    """

    pixels: Tensor | tuple[Tensor, ...]
    method: str = "minmax"
    keep: tuple[str, ...] = ()

    def batches(self, size: int) -> Iterator[Tensor]:
        """The pixels in parts of `size`, the last one filled up by some of them again; of several sizes, each repeated.

        There is no part where there are fewer than `size`.
        """
        if not isinstance(self.pixels, Tensor):
            yield from (picture[None].repeat(size, 1, 1, 1) for picture in self.pixels)
            return
        count = len(self.pixels)
        again = torch.arange(-count % size) * count // max(1, -count % size)
        order = torch.cat([torch.arange(count), again]) if count >= size else again[:0]
        yield from (self.pixels[part] for part in torch.split(order, size) if len(part))


def kind_and_line(error: Exception) -> str:
    """What a runtime says, without the lines of its own insides."""
    said = damage(error)
    return said if said != first_line(error) else f"{type(error).__name__}: {said[:300]}"


class Runtime(Protocol):
    """An export, opened by the runtime that it is for."""

    def __call__(self, pixels: Pixels) -> Logits:
        """The logits of pictures, one batch as the export takes it."""


class Format(ABC):
    """One format of exports and its runtime. Packages are imported in methods only."""

    name: ClassVar[str]
    """As in `--to`; also that of the extra that brings its packages."""
    packages: ClassVar[tuple[str, ...]]
    """What must be importable here."""
    files: ClassVar[tuple[str, ...]]
    """Names within an export folder; the first is the one to open."""
    precisions: ClassVar[tuple[str, ...]] = PRECISIONS
    methods: ClassVar[tuple[str, ...]] = ("minmax",)
    """Of calibration that its quantizer knows."""
    largest_weight: ClassVar[int] = 127
    """Magnitude of the integers that weights become in 8 bits; less where a runtime's sums have no room for more."""
    dynamic_batch: ClassVar[bool] = True
    any_size: ClassVar[bool] = False
    """Whether height and width of its pictures can be free."""
    any_channels: ClassVar[bool] = False
    """Whether its pictures can have other than three channels."""
    opsets: ClassVar[range] = range(0)
    """Versions of its operators, of which one can be chosen."""
    load: ClassVar[Callable[[str, int | None], Runtime]]
    """A function `load(path, threads)` of the format's file, as a staticmethod, that imports numpy and its runtime
    within itself and nothing else: its source goes into run.py beside an export. Without threads it chooses."""

    def check(self) -> None:
        """Raises MissingExtraError where a package is missing that opens exports."""
        for package in self.packages:
            if importlib.util.find_spec(package) is None:
                raise MissingExtraError(f"--to {self.name}", self.name)

    def check_conversion(self) -> None:
        """The same of what makes them."""
        self.check()

    @property
    def python(self) -> Path:
        """The interpreter that has its runtime: this one, unless it has an environment of its own."""
        return Path(sys.executable)

    def make_environment(self) -> None:
        """Make the environment that its packages need beside this one. Raises ConfigError where they need none."""
        raise ConfigError(f"--to {self.name} needs no environment of its own, but the extra '{self.name}'.")

    def unavailable(self) -> str:
        """Why its runtime does not run on this machine; empty where it does."""
        return ""

    @abstractmethod
    def convert(self, network: nn.Module, request: Request, metadata: Mapping[str, str], out: Path) -> dict[str, Any]:
        """Write `files` into `out` in float32 or float16.

        Args:
            network: uint8 pixels [N, 3, H, W] to float32 logits, in eval mode on the CPU, normalization inside.
            metadata: texts to be kept in the file, where it has room for them.

        Returns:
            What is worth telling, JSON-able, such as which share of the operators an accelerator took.

        Raises ExportError, with operator and layer, where the format lacks an operator.
        """

    def quantize(
        self, network: nn.Module, request: Request, metadata: Mapping[str, str], out: Path, calibration: Calibration
    ) -> dict[str, Any]:
        """The same in 8 bits by the runtime's own static quantizer, weights by channel. Raises ExportError."""
        raise ExportError(f"{self.name} has no path for 8 bits. Available: {', '.join(self.precisions)}.")

    def open(self, folder: Path, threads: int | None = None) -> Runtime:
        """Open the export in a folder, as run.py does. threads: None is the runtime's own choice.

        Raises ExportError where the runtime cannot read it.
        """
        path = folder / self.files[0]
        try:
            return type(self).load(str(path), threads)
        except Exception as error:  # each runtime has errors of its own
            raise ExportError(f"{path} cannot be opened by {self.name}: {kind_and_line(error)}") from error

    def versions(self) -> dict[str, str]:
        """The packages that make and run exports, by name."""
        return {package: version(package) for package in self.packages}

    def layers(self, network: nn.Module, folder: Path, pixels: Pixels) -> Sequence[tuple[str, float]] | None:
        """By layer in order, how far the export's activations are from the student's, relative to their largest.

        None where the runtime does not let us see them.
        """
        return None


FORMATS: Registry[Format] = Registry("Format", "counterpoise.deploy.formats", "counterpoise.formats")


def register(kind: type[Format]) -> type[Format]:
    """Make a format known by its name."""
    FORMATS.add(kind.name, kind(), kind.__module__)
    return kind


def largest_weight() -> int:
    """The least `largest_weight` of all formats: what bears it bears the others."""
    return min(known.largest_weight for known in FORMATS.entries().values())


def find(name: str) -> Format:
    """The format called `name`, whose exports can be opened here.

    Raises:
        ConfigError: there is no such format.
        MissingExtraError: its packages are missing.
    """
    found = FORMATS.get(name)
    found.check()
    return found


def converter(name: str, *, make_environment: bool = False) -> Format:
    """The format called `name`, into which students can be converted here.

    Args:
        name: as in `--to`.
        make_environment: make the environment of its own that it needs.

    Raises:
        ConfigError: there is no such format, or it needs no environment.
        MissingExtraError: its packages are missing.
    """
    found = FORMATS.get(name)
    if make_environment:
        found.make_environment()
    found.check_conversion()
    return found
