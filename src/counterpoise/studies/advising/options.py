"""What advice may be asked for: the flags of `counterpoise advise`, the keyword arguments of `counterpoise.advise`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator, Field

from counterpoise.config import Section
from counterpoise.config.options import NO_FLAG, Place
from counterpoise.studies.fanout import Fanout
from counterpoise.studies.halving import Rungs


def _positive(strengths: Sequence[float]) -> Sequence[float]:
    if not strengths or not all(0 < strength < float("inf") for strength in strengths):
        raise ValueError(f"strengths are numbers above 0, got {list(strengths)}")
    return strengths


class AdviseOptions(Section):
    """What is tried, for how long, and on how many images it is chosen."""

    out: Place | None = Field(
        default=None, description="folder of runs and tables; default: OUT-advice beside the run file's"
    )
    strengths: Annotated[Sequence[float], AfterValidator(_positive)] = Field(
        default=(1.0, 4.0),
        description="length of the teacher's gradient at the first step over that of the labels",
    )
    rungs: Rungs | None = Field(
        default=None, description="epochs of each rung; default: a 16th, an 8th and a quarter of train.epochs"
    )
    keep: float = Field(
        default=1 / 3, gt=0, lt=1, description="share of the candidates that goes on from each rung to the next"
    )
    seeds: int = Field(
        default=3, ge=2, le=100, description="fresh ones, with which the best two and yours are trained anew"
    )
    val_images: int | None = Field(default=None, description="training images held out to choose by; default: a tenth")
    fanout: Annotated[Fanout | None, NO_FLAG] = Field(
        default=None, description="for how long, and how many runs at once"
    )
