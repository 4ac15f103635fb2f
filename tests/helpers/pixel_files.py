"""Files of pixels as tests of several modules make them, and what a window of values becomes."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from counterpoise import config
from counterpoise.data import sources

WINDOW = {"intensity": {"window": [-160, 240]}, "channels": 1}


def tiff(values: np.ndarray, **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, values, photometric="minisblack", **options)
    return file.getvalue()


def npy(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def windowed(values: np.ndarray) -> np.ndarray:
    """The 8 bits of values under `WINDOW`."""
    return np.floor(np.clip((values + 160.0) / 400, 0, 1) * 255 + 0.5)


def load_volumes(root: Path, **data: Any) -> sources.Splits:
    """Volumes under `WINDOW`, three tenths held out."""
    return sources.load(config.Data.model_validate({"path": str(root), "val_fraction": 0.3, **WINDOW, **data}))
