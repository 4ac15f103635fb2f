"""Lets torchvision be imported where its compiled operators cannot load.

A torchvision built for CUDA beside a CPU torch fails at import with "operator torchvision::nms does not exist": it
registers shape functions for operators that its shared library, which could not be loaded, should have defined. Once
their schemas exist, the pure-Python parts (models, transforms.v2) work. Call `ready()` before importing torchvision, or
anything that does (timm, segmentation_models_pytorch).
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

import torch

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_SUFFIXES = {Path(suffix).suffix for suffix in importlib.machinery.EXTENSION_SUFFIXES}
_OPERATORS = ("nms", "qnms")  # the only two for which torchvision registers a fake without asking whether they exist


@cache
def ready() -> None:
    """Define the schemas of `torchvision::nms` and `torchvision::qnms` where torchvision's library cannot load.

    Does nothing where it loads, or where torchvision is not installed. Cheap to call again.
    """
    spec = importlib.util.find_spec("torchvision")
    if spec is None or not _library_fails([Path(folder) for folder in spec.submodule_search_locations or ()]):
        return
    for operator in _OPERATORS:
        if not hasattr(torch.ops.torchvision, operator):
            torch.library.define(f"torchvision::{operator}", _SCHEMA)


def functional() -> Any:
    """`torchvision.transforms.v2.functional`, which takes a second or two to import the first time."""
    ready()
    from torchvision.transforms.v2 import functional

    return functional


def _library_fails(folders: list[Path]) -> bool:
    """Load the operators as torchvision itself is about to (loading a library a second time has no effect).

    Whatever it is called: `_C.so`, from 0.29 on `_C_stable.so`. Where none is found, torchvision may know better, and
    schemas that its library then defines a second time would end the process.
    """
    found = [file for folder in folders for file in sorted(folder.glob("_C*")) if file.suffix in _SUFFIXES]
    return bool(found) and not any(map(_loads, found))


def _loads(library: Path) -> bool:
    try:
        torch.ops.load_library(str(library))  # type: ignore[no-untyped-call]
    except (ImportError, OSError):
        return False
    return True
