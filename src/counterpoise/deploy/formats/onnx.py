"""ONNX, run by onnxruntime: one file with all weights."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from counterpoise.deploy import any_size
from counterpoise.deploy.base import Calibration, Format, Pixels, Request, Runtime, register
from counterpoise.deploy.tracing import lacking, quiet, trace
from counterpoise.errors import ConfigError, ExportError

if TYPE_CHECKING:
    from counterpoise.models.network import VisionModel

OPSET = 20
LARGEST_WEIGHT = 64
"""7 bits: AVX2 adds two products in 16 bits, where 2 x 255 x 127 is cut off and 2 x 255 x 64 is not."""
INPUT, OUTPUT = "pixels", "logits"
LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
AT_ONCE = 16
"""Calibration images."""
_METHODS = {"minmax": "MinMax", "percentile": "Percentile", "entropy": "Entropy"}
_SCOPES = "pkg.torch.onnx.name_scopes"


_translated: WeakKeyDictionary[nn.Module, tuple[Any, bytes]] = WeakKeyDictionary()


def load(path: str, threads: int | None) -> Runtime:
    """The logits of pixels, by onnxruntime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 4  # errors are raised
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda pixels: session.run(None, {"pixels": pixels})[0]


@register
class Onnx(Format):
    """One .onnx file."""

    name = "onnx"
    packages = ("onnx", "onnxscript", "onnxruntime")
    files = ("model.onnx",)
    methods = ("minmax", "percentile", "entropy")
    largest_weight = LARGEST_WEIGHT
    opsets = range(13, 24)
    any_size = True
    any_channels = True
    load: ClassVar[Callable[[str, int | None], Runtime]] = staticmethod(load)

    def convert(self, network: nn.Module, request: Request, metadata: Mapping[str, str], out: Path) -> dict[str, Any]:
        import onnx

        model = translate(network, request)
        _describe(model, metadata)
        onnx.checker.check_model(model, full_check=True)
        (out / self.files[0]).write_bytes(model.SerializeToString())
        return {"opset": opset_of(model), "operators": len(model.graph.node)}

    def quantize(
        self, network: nn.Module, request: Request, metadata: Mapping[str, str], out: Path, calibration: Calibration
    ) -> dict[str, Any]:
        import onnx
        from onnxruntime import quantization

        model = translate(network, request)
        name_all(model)
        in_float = [*_before_layers(model), *any_size.names(model), *kept_nodes(model, calibration.keep)]
        reader = _Reader(calibration, request.batch)
        with tempfile.TemporaryDirectory() as held, quiet():
            plain, whole = Path(held, "float32.onnx"), Path(held, "int8.onnx")
            onnx.save(model, plain)
            quantization.quantize_static(
                plain,
                whole,
                reader,
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                reduce_range=True,  # LARGEST_WEIGHT
                # what lies between layers rounds too, and would around a layer that is kept in float
                op_types_to_quantize=LAYERS if calibration.keep else None,
                calibrate_method=quantization.CalibrationMethod[_METHODS[calibration.method]],
                nodes_to_exclude=list(dict.fromkeys(in_float)),
                # one batch of activations in memory at a time, whatever the method
                extra_options={"CalibStridedMinMax": 1},
            )
            model = onnx.load(whole)
        _describe(model, metadata)
        onnx.checker.check_model(model)
        (out / self.files[0]).write_bytes(model.SerializeToString())
        return {"opset": opset_of(model), **_shares(model)}

    def layers(self, network: nn.Module, folder: Path, pixels: Pixels) -> Sequence[tuple[str, float]]:
        import onnx
        import onnxruntime

        model = onnx.load(folder / self.files[0])
        tensors = outputs_of_modules(model.graph.node)
        seen = activations(network, list(tensors), torch.from_numpy(pixels))
        wanted = {module: name for module, name in tensors.items() if module in seen}
        known = {value.name for value in model.graph.output}
        model.graph.output.extend(
            onnx.ValueInfoProto(name=name) for name in dict.fromkeys(wanted.values()) if name not in known
        )
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # or tensors are gone
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        names = list(dict.fromkeys(wanted.values()))
        found = dict(zip(names, session.run(names, {INPUT: pixels}), strict=True))
        return [
            (module, distance(found[name], seen[module]))
            for module, name in wanted.items()
            if found[name].shape == tuple(seen[module].shape)
        ]


def translate(network: nn.Module, request: Request) -> Any:
    """A network as an ONNX model, batch normalization folded. Raises ExportError for what ONNX lacks.

    It computes in float32, or in float16 where that is asked for.

    The last one of a network is kept until its state changes: a search for layers asks again and again.
    """
    import onnx

    state = (
        request.size,
        request.batch,
        request.opset,
        request.any_size,
        request.precision == "float16",
        *((id(value), value._version) for value in (*network.parameters(), *network.buffers())),
    )
    cached = _translated.get(network)
    if cached is None or cached[0] != state:
        cached = state, _translate(network, request).SerializeToString()
        _translated[network] = cached
    return onnx.load_model_from_string(cached[1])


def _translate(network: nn.Module, request: Request) -> Any:
    from torch.onnx import OnnxExporterError

    example = request.example
    free = {0: torch.export.Dim.DYNAMIC} if request.batch is None else None
    if request.any_size:
        student = cast("VisionModel", network.student)
        network = any_size.Core(student)
        example, free = any_size.example(student, request.batch)
    with quiet(), torch.no_grad():
        program = trace(network, example, free)
        try:
            exported = torch.onnx.export(
                program,
                (example,),
                dynamo=True,
                opset_version=request.opset or OPSET,
                input_names=[INPUT],
                output_names=[OUTPUT],
                external_data=False,
                verbose=False,
            )
        except (OnnxExporterError, RuntimeError) as error:
            raise lacking("ONNX", error, program) from error
        assert exported is not None
        model = exported.model_proto
    if opset_of(model) != (request.opset or OPSET):
        raise ExportError(
            f"The network needs operators of opset {opset_of(model)}, and cannot be put in those of {request.opset}: "
            f"--opset {opset_of(model)} or later."
        )
    if request.precision == "float16":
        model = _halved(model)
    if request.any_size:
        return any_size.around(model, student, request.batch)
    for value in (*model.graph.input, *model.graph.output):
        if request.batch is None:
            value.type.tensor_type.shape.dim[0].dim_param = "batch"
    return model


def opset_of(model: Any) -> int:
    """Version of a model's operators."""
    return next(int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx"))


def distance(found: np.ndarray[Any, Any], expected: Tensor) -> float:
    """Largest difference of activations, relative to the largest expected one."""
    truth = expected.float().numpy()
    scale = max(float(np.abs(truth).max(initial=0.0)), 1e-6)
    return float(np.abs(found.astype(np.float32) - truth).max(initial=0.0)) / scale


def kept_nodes(model: Any, keep: Sequence[str]) -> list[str]:
    """Names of the nodes that come from these modules, or hold their weights."""
    found = []
    for node in model.graph.node:
        modules = [*modules_of(node), *(name.rpartition(".")[0] for name in node.input)]
        if any(module == name or module.startswith(f"{name}.") for module in modules for name in keep):
            found.append(node.name)
    return found


def name_all(model: Any) -> None:
    """Give nodes without a name one, by which they can be excluded."""
    for index, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{index}"


def _before_layers(model: Any) -> list[str]:
    """Names of the nodes before the first layer: the normalization, exact where it is not rounded twice."""
    return [node.name for node in takewhile(lambda node: node.op_type not in LAYERS, model.graph.node)]


def _shares(model: Any) -> dict[str, Any]:
    """How many of the layers compute in 8 bits."""
    producers = {name: node for node in model.graph.node for name in node.output}
    layers = [node for node in model.graph.node if node.op_type in LAYERS]
    inner = [node for node in layers if getattr(producers.get(node.input[1]), "op_type", "") == "DequantizeLinear"]
    return {"layers_in_8_bits": f"{len(inner)} of {len(layers)}"}


class _Reader:
    """Calibration images as onnxruntime asks for them, a batch each."""

    def __init__(self, calibration: Calibration, batch: int | None) -> None:
        size = batch or (min(AT_ONCE, len(calibration.pixels)) if isinstance(calibration.pixels, Tensor) else 1)
        self.batches = list(calibration.batches(size))
        if not self.batches:
            raise ConfigError(f"{len(calibration.pixels)} calibration images make no batch of {size}.")
        self.set_range(0, len(self.batches))

    def __len__(self) -> int:
        return len(self.batches)

    def set_range(self, start_index: int, end_index: int) -> None:
        self.left = iter(self.batches[start_index:end_index])

    def get_next(self) -> dict[str, Any] | None:
        batch = next(self.left, None)
        return None if batch is None else {INPUT: batch.numpy()}


def _halved(model: Any) -> Any:
    """Weights and arithmetic in float16; pixels and logits as they were."""
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    halved = OnnxModel(convert_float_to_float16(model, keep_io_types=True, disable_shape_infer=True))
    halved.topological_sort()  # the casts that it puts in stand at the end
    return halved.model


def _describe(model: Any, metadata: Mapping[str, str]) -> None:
    model.producer_name = "counterpoise"
    for key, value in metadata.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    for node in model.graph.node:  # paths of this machine's Python files and the like
        scopes = [prop for prop in node.metadata_props if prop.key == _SCOPES]
        del node.metadata_props[:]
        node.metadata_props.extend(scopes)


def modules_of(node: Any) -> list[str]:
    """The modules that a node of a graph comes from, from the outermost to the innermost."""
    for prop in node.metadata_props:
        if prop.key == _SCOPES:
            scopes: list[str] = [part.strip().strip("'\"") for part in prop.value.strip("[]").split(",")]
            return [name for name in scopes[:-1] if name]
    return []


def outputs_of_modules(nodes: Sequence[Any]) -> dict[str, str]:
    """By module, in order of its last node, the name of the tensor that it gives."""
    last: dict[str, str] = {}
    for node in nodes:
        for name in modules_of(node):
            last.pop(name, None)
            last[name] = node.output[0]
    return last


def activations(network: nn.Module, names: Sequence[str], pixels: Tensor) -> dict[str, Tensor]:
    """What modules that are called once answer, where that is a tensor."""
    seen: dict[str, list[Any]] = {}
    modules = dict(network.named_modules())

    def keep(name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        seen.setdefault(name, []).append(output.detach().clone() if isinstance(output, Tensor) else None)

    with contextlib.ExitStack() as hooks, torch.no_grad():
        for name in names:
            if name in modules:
                hooks.enter_context(modules[name].register_forward_hook(partial(keep, name)))
        network(pixels)
    return {name: answers[0] for name, answers in seen.items() if len(answers) == 1 and answers[0] is not None}
