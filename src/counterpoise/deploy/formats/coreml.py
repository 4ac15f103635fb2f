"""Core ML: an .mlpackage for iOS and macOS, made anywhere, run on Apple's machines only."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from counterpoise.deploy.base import Format, Request, Runtime, register
from counterpoise.deploy.tracing import lacking, quiet, trace
from counterpoise.errors import ExportError

PACKAGE = "model.mlpackage"


def load(path: str, threads: int | None) -> Runtime:
    """The logits of pixels, by Core ML on macOS, which chooses threads itself."""
    import coremltools
    import numpy as np
    from PIL import Image

    model = coremltools.models.MLModel(path, compute_units=coremltools.ComputeUnit.CPU_ONLY)

    def run(pixels: np.ndarray) -> np.ndarray:
        pictures = [Image.fromarray(each.transpose(1, 2, 0)) for each in pixels]
        return np.concatenate([model.predict({"pixels": picture})["logits"] for picture in pictures])

    return run


@register
class CoreML(Format):
    """ML programs that take one RGB image, as Vision and a camera give it."""

    name = "coreml"
    packages = ("coremltools",)
    files = (PACKAGE,)
    precisions = ("float32", "float16")
    dynamic_batch = False
    load: ClassVar[Callable[[str, int | None], Runtime]] = staticmethod(load)

    def unavailable(self) -> str:
        return "" if sys.platform == "darwin" else "Core ML runs on macOS only: counterpoise verify does it there."

    def convert(self, network: nn.Module, request: Request, metadata: Mapping[str, str], out: Path) -> dict[str, Any]:
        if request.batch != 1:
            raise ExportError(f"coreml takes one image at once, not {request.batch or 'any number'}: --batch 1.")
        with quiet():
            import coremltools

            program = trace(_Image(network), request.example.float())
            decomposed = program.run_decompositions(
                torch._decomp.get_decompositions([torch.ops.aten.addcmul])  # coremltools has none of it
            )
            exact = request.precision == "float32"
            precision = coremltools.precision.FLOAT32 if exact else coremltools.precision.FLOAT16
            layout = coremltools.colorlayout.RGB
            try:
                model = coremltools.convert(
                    decomposed,
                    inputs=[coremltools.ImageType("pixels", shape=(1, 3, *request.size), color_layout=layout)],
                    outputs=[coremltools.TensorType("logits", dtype=np.float32)],
                    convert_to="mlprogram",
                    compute_precision=precision,
                    minimum_deployment_target=coremltools.target.iOS16,
                )
            except (RuntimeError, ValueError) as error:  # what coremltools raises for an operator that it lacks
                named = ExportError(re.sub(r"fx node (\w+)", r"translating node %\1", str(error)))
                raise lacking("coreml", named, decomposed) from error
            model.user_defined_metadata.update(metadata)
            model.save(str(out / PACKAGE))
            (out / PACKAGE / "executorch_debug_handle_mapping.json").unlink(missing_ok=True)  # of no use to Core ML
        return {"input": "one RGB image", "needs": "iOS 16 or macOS 13"}


class _Image(nn.Module):
    """A network that takes pixels as Core ML holds them: floats in [0, 255]."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.network(pixels / 255)
        return logits
