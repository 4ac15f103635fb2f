"""ExecuTorch with XNNPACK: one .pte for Android, iOS and small Linux boards."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from counterpoise.deploy.base import Calibration, Format, Request, Runtime, register
from counterpoise.deploy.tracing import lacking, layer_of, quiet, trace
from counterpoise.errors import ExportError
from counterpoise.system.files import replacing

LARGEST = 32
"""Pictures at once where any number may come: memory is planned for that many."""
_NOTHING = ("getitem", "sym_size")  # nodes that compute nothing
_MERGED = ("quantized_decomposed",)  # steps to 8 bits and back, which XNNPACK merges into the operators around them


def load(path: str, threads: int | None) -> Runtime:
    """The logits of pixels, by ExecuTorch's Python runtime, which takes torch tensors; threads are the process's."""
    import numpy as np
    import torch
    from executorch.extension.pybindings import portable_lib
    from executorch.runtime import Runtime

    if threads is not None:
        portable_lib._unsafe_reset_threadpool(threads)
    program = Runtime.get().load_program(path)
    method = program.load_method("forward")
    largest = program.metadata("forward").input_tensor_meta(0).sizes()[0]

    def run(pixels: np.ndarray, program: Any = program) -> np.ndarray:  # a method lives as long as its program
        parts = [torch.tensor(pixels[start : start + largest]) for start in range(0, len(pixels), largest)]
        return np.concatenate([method.execute([part])[0].numpy() for part in parts])

    return run


@register
class ExecuTorch(Format):
    """Programs that XNNPACK computes; operators that it does not take run in ExecuTorch's portable kernels."""

    name = "executorch"
    packages = ("torchao", "torch", "executorch")
    files = ("model.pte",)
    precisions = ("float32", "int8")
    methods = ("minmax", "mse")
    load: ClassVar[Callable[[str, int | None], Runtime]] = staticmethod(load)

    def open(self, folder: Path, threads: int | None = None) -> Runtime:
        """As all formats. The runtime itself ends the process where a file is something else."""
        path = folder / self.files[0]
        with path.open("rb") as file:
            start = file.read(8)
        if not (start[4:6] == b"ET" and start[6:].isdigit() and len(start) == 8):
            raise ExportError(f"{path} cannot be opened by {self.name}: it is no ExecuTorch program.")
        return super().open(folder, threads)

    def convert(self, network: nn.Module, request: Request, metadata: Mapping[str, str], out: Path) -> dict[str, Any]:
        with quiet():
            return self._write(_program(network, request), request, metadata, out)

    def quantize(
        self, network: nn.Module, request: Request, metadata: Mapping[str, str], out: Path, calibration: Calibration
    ) -> dict[str, Any]:
        with quiet():
            from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import XNNPACKQuantizer
            from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

            size = request.batch or min(LARGEST, len(calibration.pixels))
            if len(calibration.pixels) < size:
                given = len(calibration.pixels)
                raise ExportError(f"A batch of {size} is calibrated on at least {size} images, got {given}.")
            quantizer = XNNPACKQuantizer().set_global(_configuration(calibration.method))
            quantizer.set_filter_function(_all_but(calibration.keep))
            prepared = prepare_pt2e(_program(network, request).module(), quantizer)
            with torch.inference_mode():
                for pixels in calibration.batches(size):
                    prepared(pixels)
            return self._write(_program(convert_pt2e(prepared), request), request, metadata, out)

    def _write(
        self, program: torch.export.ExportedProgram, request: Request, metadata: Mapping[str, str], out: Path
    ) -> dict[str, Any]:
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.devtools.backend_debug import get_delegation_info
        from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower

        try:
            lowered = to_edge_transform_and_lower(
                program,
                partitioner=[XnnpackPartitioner()],
                compile_config=EdgeCompileConfig(_check_ir_validity=False),  # which kernels there are is asked below
                constant_methods={"metadata": json.dumps(dict(metadata))},
            )
            executable = lowered.to_executorch()
        except (AssertionError, RuntimeError) as error:
            raise lacking("executorch", error, program) from error
        graph = lowered.exported_program().graph_module
        shares = _shares(get_delegation_info(graph).delegation_by_operator)
        _refuse_unknown(executable.executorch_program, graph)
        with replacing(out / self.files[0]) as path, path.open("wb") as file:
            executable.write_to_file(file)
        self._try(request, out)
        return {**shares, "largest_batch": request.batch or LARGEST}

    def _try(self, request: Request, out: Path) -> None:
        """Raises ExportError where the runtime cannot run its own program."""
        height, width = request.size
        try:
            self.open(out)(request.example.numpy())
        except RuntimeError as error:  # what went wrong in it is on stderr
            raise ExportError(
                f"executorch cannot run what it makes of this network at {height} x {width} in {request.precision} "
                f"({error}). Pictures of another size may do, such as one that the network's stride divides."
            ) from error


def _program(network: nn.Module, request: Request) -> torch.export.ExportedProgram:
    shapes, example = None, request.example
    if request.batch is None:
        # The largest batch: convolutions choose their implementation by it, and from a smaller one the exporter would
        # conclude that no more than 15 pictures ever come.
        example = example[:1].repeat(LARGEST, 1, 1, 1)
        shapes = {0: torch.export.Dim("batch", min=1, max=LARGEST)}
    with torch.no_grad():
        return trace(network, example, shapes)


def _shares(found: Mapping[str, Any]) -> dict[str, Any]:
    """How many operators XNNPACK took, and which are left to the portable kernels."""
    taken = sum(counts.delegated for name, counts in found.items() if not name.startswith((*_NOTHING, *_MERGED)))
    left = {
        name: counts.non_delegated
        for name, counts in found.items()
        if counts.non_delegated and not name.startswith(_NOTHING)
    }
    count = taken + sum(left.values())
    return {"operators": count, "xnnpack": taken, "xnnpack_share": taken / max(1, count), "portable": left}


def _configuration(method: str) -> Any:
    """Signed 8 bits: weights by channel, symmetric; activations by tensor, from their extremes or the least error."""
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import get_symmetric_quantization_config
    from torchao.quantization.pt2e import HistogramObserver, MinMaxObserver

    observer = {"minmax": MinMaxObserver, "mse": HistogramObserver}[method]
    usual = get_symmetric_quantization_config(is_per_channel=True)
    activation = dataclasses.replace(usual.input_activation, observer_or_fake_quant_ctr=observer.with_args(eps=2**-12))
    return dataclasses.replace(usual, input_activation=activation, output_activation=activation)


def _all_but(keep: tuple[str, ...]) -> Callable[[torch.fx.Node], bool]:
    """Whether a node of an exported program belongs to none of these modules."""
    return lambda node: not any(path in keep for path, _ in node.meta.get("nn_module_stack", {}).values())


def _refuse_unknown(program: Any, graph: torch.fx.GraphModule) -> None:
    """Raises ExportError for operators that the runtime has no kernel for, with the layers that need them."""
    from executorch.runtime import Runtime

    known = Runtime.get().operator_registry.operator_names
    for plan in program.execution_plan:
        for operator in plan.operators:
            name = f"{operator.name}.{operator.overload}"
            if name not in known:
                short = operator.name.partition("::")[2].strip("_")
                layers = sorted({layer_of(node) for node in graph.graph.nodes if short in node.name})
                raise ExportError(f"executorch has no kernel for {name}, needed by {', '.join(layers)}.")
