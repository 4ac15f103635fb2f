"""What may be asked of a report: keywords in Python, flags on the command line."""

from __future__ import annotations

from pydantic import Field

from counterpoise.config import Section
from counterpoise.config.options import Device, Epoch, Place
from counterpoise.engine.options import Model


class Report(Section):
    """What the page tells."""

    out: Place | None = Field(
        default=None, description="the file; default: report.html in the folder, where one is given, else in this one"
    )
    predictions: bool = Field(
        default=True,
        description="ask student and teacher about the evaluation images; --no-predictions tells what the folders hold",
    )
    images: int | None = Field(default=None, description="ask about so many of them; default: all")
    device: Device = "auto"
    model: Model = None
    overwrite: bool = Field(default=False, description="replace the file")
    epoch: Epoch = None
