"""run.py beside an export: a picture in, the answer out, by numpy, Pillow and the runtime alone.

The functions up to `write_mask` go into run.py as they stand here, so what is tested here is what runs there.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from counterpoise.deploy import folder
from counterpoise.deploy.base import Format

_TEMPLATE = '''"""What a student says of a picture: python run.py PICTURE{more}

Needs numpy, Pillow and {runtime}.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, ImageOps

{functions}

here = Path(__file__).parent
about = json.loads((here / "{description}").read_text(encoding="utf-8"))
run = load(str(here / "{file}"), None)
picture = decode(sys.argv[1])
pixels = shown(picture, about["input"]["size"], about["input"]["crop_share"])
logits = run(np.repeat(pixels, about["input"]["batch"] or 1, 0))[0]
{answer}(logits, about["classes"], picture.size, sys.argv[2:])
'''


def decode(path: str) -> Any:
    """A picture as RGB: turned as its EXIF data says, transparency over white, 16-bit grays in 8 bits."""
    image = ImageOps.exif_transpose(Image.open(path))
    if image.mode.startswith("I;16") or image.mode == "I":
        values = (np.asarray(image).astype(np.uint32) * 255 + 32767) // 65535
        return Image.fromarray(values.astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return image.convert("RGB")


def shown(image: Any, size: Any, crop_share: Any) -> Any:
    """uint8 [1, 3, H, W]: the central crop of a picture, or all of it, at the size that the network takes."""
    (height, width), (left, top) = size, (0, 0)
    if image.size != (width, height):
        wide, high = width, height
        if crop_share is not None:
            longest = 4 * min(image.size)  # what lies farther out along a sliver cannot reach the center
            left, top = (max(0, (side - longest) // 2) for side in image.size)
            image = image.crop((left, top, left + min(image.width, longest), top + min(image.height, longest)))
            shorter, edge = min(image.size), max(height, round(height / crop_share))
            wide, high = (edge if side == shorter else int(edge * side / shorter) for side in image.size)
            left, top = round((wide - width) / 2), round((high - height) / 2)
        image = image.resize((wide, high), Image.Resampling.BILINEAR).crop((left, top, left + width, top + height))
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1)[None])


def print_top_five(logits: Any, classes: Any, size: Any, more: Any) -> None:
    """The five likeliest classes with their probabilities."""
    shares = np.exp(logits - logits.max())
    for index in np.argsort(-logits, kind="stable")[:5]:
        print(f"{shares[index] / shares.sum():8.4f}  {classes[index]}")


def write_mask(logits: Any, classes: Any, size: Any, more: Any) -> None:
    """The class of every pixel of the picture, as the values of a PNG."""
    layers = [np.asarray(Image.fromarray(layer).resize(size, Image.Resampling.BILINEAR)) for layer in logits]
    mask = np.argmax(layers, axis=0).astype(np.uint8)
    out = more[0] if more else "mask.png"
    Image.fromarray(mask).save(out)
    for index in np.unique(mask):
        print(f"{(mask == index).mean():8.4f}  {classes[index]}")


def source(chosen: Format, dense: bool) -> str:
    """The text of run.py. dense: whether logits are masks."""
    answer = write_mask if dense else print_top_five
    functions: list[Callable[..., Any]] = [type(chosen).load, decode, shown, answer]
    return _TEMPLATE.format(
        more=" [MASK.png]" if dense else "",
        runtime=chosen.packages[-1],
        functions="\n\n".join(inspect.getsource(function) for function in functions).rstrip() + "\n",
        description=folder.DESCRIPTION,
        file=chosen.files[0],
        answer=answer.__name__,
    )
