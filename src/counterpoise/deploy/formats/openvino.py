"""OpenVINO's own format, by way of ONNX: a description and its weights."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from counterpoise.deploy import any_size
from counterpoise.deploy.base import Calibration, Format, Pixels, Request, Runtime, register
from counterpoise.deploy.formats import onnx
from counterpoise.deploy.tracing import quiet
from counterpoise.errors import ConfigError

LAYERS = ("Convolution", "GroupConvolution", "ConvolutionBackpropData", "GroupConvolutionBackpropData", "MatMul")


def load(path: str, threads: int | None) -> Runtime:
    """The logits of pixels, by OpenVINO on the CPU."""
    import openvino

    # Unless told otherwise, it computes in bfloat16 where the processor can.
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    model = openvino.Core().compile_model(path, "CPU", settings)
    return lambda pixels: model(pixels)[0]


@register
class OpenVino(Format):
    """model.xml and model.bin. float32 is float32: weights are halved where float16 is asked for, and only there."""

    name = "openvino"
    packages = ("onnx", "onnxscript", "nncf", "openvino")
    files = ("model.xml", "model.bin")
    methods = ("minmax", "percentile", "histogram")
    largest_weight = onnx.LARGEST_WEIGHT
    any_size = True
    load: ClassVar[Callable[[str, int | None], Runtime]] = staticmethod(load)

    def convert(self, network: nn.Module, request: Request, metadata: Mapping[str, str], out: Path) -> dict[str, Any]:
        whole = replace(request, precision="float32")  # weights are halved when they are written
        model = _read(onnx.translate(network, whole), request)
        _save(model, metadata, out / self.files[0], halved=request.precision == "float16")
        notes: dict[str, Any] = {"operators": len(model.get_ordered_ops())}
        if request.precision == "float16":
            notes["arithmetic"] = "float32; the weights are float16"
        return notes

    def quantize(
        self, network: nn.Module, request: Request, metadata: Mapping[str, str], out: Path, calibration: Calibration
    ) -> dict[str, Any]:
        import nncf
        from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix

        batches = list(calibration.batches(request.batch or 1))
        if not batches:
            raise ConfigError(f"{len(calibration.pixels)} calibration images make no batch of {request.batch}.")
        translated = onnx.translate(network, request)
        onnx.name_all(translated)
        names = onnx.kept_nodes(translated, calibration.keep)
        around = [f"^{re.escape(any_size.PREFIX)}"] if request.any_size else []
        model = _read(translated, request)
        # What is no layer rounds what it is given too, also around a kept layer.
        between = sorted({operator.get_type_name() for operator in model.get_ordered_ops()} - {*LAYERS, "Constant"})
        with quiet(), _deeper(10 * len(model.get_ordered_ops())):
            model = nncf.quantize(
                model,
                nncf.Dataset(batches, lambda pixels: pixels.numpy()),
                preset=nncf.QuantizationPreset.MIXED,
                subset_size=len(batches),
                # A layer with a bias is two operators here, the second one under the layer's name.
                ignored_scope=nncf.IgnoredScope(
                    patterns=[*around, *(f"^{re.escape(name)}(/.*)?$" for name in names)],
                    types=between if names else [],
                    validate=False,
                ),
                advanced_parameters=AdvancedQuantizationParameters(
                    overflow_fix=OverflowFix.ENABLE,  # onnx.LARGEST_WEIGHT
                    activations_range_estimator_params=_estimator(calibration.method),
                ),
            )
        _save(model, metadata, out / self.files[0], halved=False)
        fakes = sum(operator.get_type_name() == "FakeQuantize" for operator in model.get_ordered_ops())
        return {"operators": len(model.get_ordered_ops()), "fake_quantizers": fakes}

    def layers(self, network: nn.Module, folder: Path, pixels: Pixels) -> Sequence[tuple[str, float]]:
        import openvino

        core = openvino.Core()
        model = core.read_model(folder / self.files[0])
        free = model.input(0).partial_shape[2].is_dynamic
        request = Request("float32", (pixels.shape[2], pixels.shape[3]), len(pixels), any_size=free)
        tensors = onnx.outputs_of_modules(onnx.translate(network, request).graph.node)
        seen = onnx.activations(network, list(tensors), torch.from_numpy(pixels))
        model.reshape([len(pixels), 3, *request.size])
        firsts = [operator.output(0) for operator in model.get_ordered_ops() if operator.get_output_size()]
        outputs = {name: output for output in firsts for name in output.get_names()}
        wanted = {module: name for module, name in tensors.items() if module in seen and name in outputs}
        known = {name for output in model.outputs for name in output.get_names()}
        for name in dict.fromkeys(wanted.values()):
            if name not in known:
                model.add_outputs(outputs[name])
        compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        found = compiled(pixels)
        apart = ((module, found[compiled.output(name)], seen[module]) for module, name in wanted.items())
        return [(module, onnx.distance(one, other)) for module, one, other in apart if one.shape == tuple(other.shape)]


@contextlib.contextmanager
def _deeper(frames: int) -> Iterator[None]:
    """Python may call as many functions within one another in addition: nncf walks graphs by recursion."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(before + frames)
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def _read(translated: Any, request: Request) -> Any:
    """An ONNX model as one of OpenVINO's."""
    import openvino

    model = openvino.Core().read_model(translated.SerializeToString())
    model.reshape([-1 if request.batch is None else request.batch, 3, *(request.fed or (-1, -1))])
    return model


def _save(model: Any, metadata: Mapping[str, str], path: Path, *, halved: bool) -> None:
    import openvino

    for key, value in metadata.items():
        model.set_rt_info(value, ["counterpoise", key])
    openvino.save_model(model, path, compress_to_fp16=halved)


def _estimator(method: str) -> Any:
    """How nncf draws ranges of activations."""
    from nncf.quantization import range_estimator as ranges

    if method != "percentile":
        return getattr(ranges.RangeEstimatorParametersSet, method.upper())
    edge = ranges.StatisticsCollectorParameters(
        ranges.StatisticsType.QUANTILE, ranges.AggregatorType.MEAN, quantile_outlier_prob=1e-4
    )
    return ranges.RangeEstimatorParameters(min=edge, max=edge)
