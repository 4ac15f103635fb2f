"""What a fit may be asked for: the flags of `counterpoise fit` and the keyword arguments of `counterpoise.fit`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from counterpoise.config import Section
from counterpoise.config.options import NO_FLAG, Place
from counterpoise.studies.fanout import Fanout
from counterpoise.studies.halving import Rungs


class FitOptions(Section):
    """Budget, candidates, and how they are measured and chosen."""

    budget: str = Field(
        description='such as "latency<=15ms, size<=4MB"; of latency, size, memory, multiply_adds and parameters'
    )
    runtime: str = Field(description="onnx, openvino, executorch or another format of exports")
    students: Sequence[str] | None = Field(
        default=None, description="networks to try, by name or pattern, such as 'timm/mobilenetv3_small_*'"
    )
    sizes: Sequence[int] | None = Field(default=None, description="input sizes in pixels; default: each network's own")
    precisions: Sequence[str] | None = Field(default=None, description="float32, float16, int8; default: float32")
    candidates: Place | None = Field(
        default=None, description="YAML file of students (with arguments to vary), sizes, precisions"
    )
    out: Place | None = Field(
        default=None, description="folder of measurements, runs and frontier; default: the run file's"
    )
    threads: int = Field(default=1, description="of the runtime")
    rounds: int = Field(default=9, description="turns of each candidate, 6 or more")
    seconds: float = Field(default=0.2, description="of calls in each turn")
    keep: float = Field(
        default=0.5, gt=0, lt=1, description="share of the candidates that goes on from each rung to the next"
    )
    rungs: Rungs | None = Field(
        default=None,
        description="epochs of each rung; default: halves of halves of train.epochs, for as many as there are "
        "candidates",
    )
    val_images: int | None = Field(default=None, description="training images held out to choose by; default: a tenth")
    within: float = Field(
        default=0.5, description="points that the final export in 8 bits may lose before layers are kept in float"
    )
    measured: Sequence[Place] | None = Field(
        default=None,
        description="go on from what a phone said of these: results.txt of the bundle, and later that of the final one",
    )
    fanout: Annotated[Fanout | None, NO_FLAG] = Field(
        default=None, description="for how long, and how many runs at once"
    )
