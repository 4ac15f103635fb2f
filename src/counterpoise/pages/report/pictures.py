"""Pictures small enough to lie in a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from counterpoise.data.images import to_picture, visible

THUMBNAIL = 96
"""Longest edge in pixels of a picture among many."""
SCENE = 480
"""Longest edge of a scene, which is looked at closely."""
QUALITY = 72


def photo(image: Tensor, longest: int = THUMBNAIL) -> dict[str, Any]:
    """A picture, uint8 [C, H, W], as {"src", "width", "height"}: WebP, reduced where it is larger than `longest`."""
    picture = to_picture(visible(image))
    picture.thumbnail((longest, longest), Image.Resampling.BOX)
    # What is tiny is shown enlarged, where every artifact would be seen.
    return _embedded(picture, {"lossless": True} if max(picture.size) <= 16 else {"quality": QUALITY})


def flat(pixels: NDArray[np.uint8], longest: int = SCENE) -> dict[str, Any]:
    """Flat colors, uint8 [H, W, 4], as `photo`, but without loss."""
    picture = Image.fromarray(pixels)
    scale = longest / max(picture.size)
    if scale < 1:
        size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
        picture = picture.resize(size, Image.Resampling.NEAREST)
    return _embedded(picture, {"lossless": True})


def _embedded(picture: Image.Image, options: Mapping[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    picture.save(file, format="WEBP", method=4, **options)
    code = base64.b64encode(file.getvalue()).decode()
    return {"src": f"data:image/webp;base64,{code}", "width": picture.width, "height": picture.height}
