"""Exports that take any height and width: a network's inner part as a graph, what it needs around it as nodes.

torch.export follows networks whose edges are multiples of their stride, not padding by edges that it does not know. So
what models/padding.py does before and after the inner part, and the normalization, are written here in ONNX.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from counterpoise.models.network import VisionModel
from counterpoise.models.padding import Padded

PREFIX = "any_size."
"""Names of the nodes around the inner part begin with it: they stay in float32 in every precision."""


class Core(nn.Module):
    """The inner part of a student: normalized images whose edges are multiples of its stride in, logits out.

    Layers have the names that they have in `Deployed`.
    """

    def __init__(self, student: VisionModel) -> None:
        super().__init__()
        self.student = student
        self.eval()

    def forward(self, pixels: Tensor) -> Tensor:
        """float32 [N, channels, H, W] -> float32 [N, C, h, w]."""
        return self.student.inner(pixels)


def stride_of(student: VisionModel) -> int:
    """Edges of what the inner part takes are multiples of it."""
    return student.net.stride if isinstance(student.net, Padded) else 1


def example(student: VisionModel, batch: int | None) -> tuple[Tensor, dict[int, Any]]:
    """Images for the inner part, and which of their dimensions are free, as torch.export takes them."""
    stride = stride_of(student)
    rows, columns = torch.export.Dim("rows"), torch.export.Dim("columns")
    edges = {2: rows, 3: columns} if stride == 1 else {2: stride * rows, 3: stride * columns}
    base = max(1, 32 // stride)
    images = torch.zeros(batch or 2, student.channels, 3 * base * stride, 4 * base * stride)
    return images, edges if batch is not None else {0: torch.export.Dim("batch"), **edges}


def around(model: Any, student: VisionModel, batch: int | None) -> Any:
    """The ONNX model of an inner part, with normalization and padding before it and the cut after it.

    Pixels uint8 [N, channels, H, W] -> logits float32 [N, C, h, w], as the student answers.
    """
    from onnx import TensorProto, helper

    graph = model.graph
    given, answered = graph.input[0].name, graph.output[0].name
    nodes = _Nodes()
    _replace(graph.node, {given: f"{PREFIX}padded", answered: f"{PREFIX}logits"})
    before = list(nodes.padded(given, student))
    after = list(nodes.cut(f"{PREFIX}logits", answered, stride_of(student)))
    whole = [*before, *graph.node, *after]
    del graph.node[:]
    graph.node.extend(whole)
    graph.initializer.extend(nodes.constants)
    del graph.value_info[:]
    count: int | str = "batch" if batch is None else batch
    classes = student.num_classes
    shape = [count, student.channels, "height", "width"]
    graph.input[0].CopyFrom(helper.make_tensor_value_info(given, TensorProto.UINT8, shape))
    graph.output[0].CopyFrom(
        helper.make_tensor_value_info(
            answered, TensorProto.FLOAT, [count, classes, "rows_of_logits", "columns_of_logits"]
        )
    )
    return model


def names(model: Any) -> list[str]:
    """Of the nodes around the inner part of a model; none where its size is fixed."""
    return [node.name for node in model.graph.node if node.name.startswith(PREFIX)]


def _replace(nodes: Any, names: dict[str, str]) -> None:
    for node in nodes:
        for side in (node.input, node.output):
            for index, name in enumerate(side):
                side[index] = names.get(name, name)


class _Nodes:
    """Nodes of ONNX in operators that all opsets from 13 on have, and the constants that they take."""

    def __init__(self) -> None:
        self.constants: list[Any] = []
        self._pending: list[Any] = []

    def padded(self, pixels: str, student: VisionModel) -> Iterator[Any]:
        """`VisionModel.normalize`, then zeros at the bottom and the right, up to multiples of the stride."""
        from onnx import TensorProto

        scale = (student._scale / 255).detach().cpu().float().numpy()
        shift = student._shift.detach().cpu().float().numpy()
        values = self._node("Cast", [pixels], to=TensorProto.FLOAT)
        values = self._node("Mul", [values, self._constant(scale)])
        stride = stride_of(student)
        self._node("Add", [values, self._constant(shift)], f"{PREFIX}{'padded' if stride == 1 else 'normal'}")
        if stride > 1:
            for dim, edge in ((2, "height"), (3, "width")):
                self._node("Gather", [self._node("Shape", [pixels]), self._constant([dim])], f"{PREFIX}{edge}")
                below = self._node("Sub", [self._constant([0]), f"{PREFIX}{edge}"])
                self._node("Mod", [below, self._constant([stride])], f"{PREFIX}{edge}_missing")
            missing = [f"{PREFIX}height_missing", f"{PREFIX}width_missing"]
            pads = self._node("Concat", [self._constant([0] * 6), *missing], axis=0)
            self._node("Pad", [f"{PREFIX}normal", pads], f"{PREFIX}padded")
        return self._taken()

    def cut(self, logits: str, out: str, stride: int) -> Iterator[Any]:
        """`padding._cut` along rows and columns."""
        if stride == 1:
            self._node("Identity", [logits], out)
            return self._taken()
        for dim, edge in ((2, "height"), (3, "width")):
            length = f"{PREFIX}{edge}"
            whole = self._node("Add", [length, f"{PREFIX}{edge}_missing"])
            cells = self._node(
                "Mul", [self._node("Gather", [self._node("Shape", [logits]), self._constant([dim])]), length]
            )
            one = self._constant([1])
            above = self._node("Sub", [self._node("Add", [cells, whole]), one])
            kept = self._node("Div", [above, whole])  # rounded up
            held = self._node("Slice", [logits, self._constant([0]), kept, self._constant([dim])])
            places = self._node("Range", [self._constant(0), self._node("Squeeze", [kept]), self._constant(1)])
            # Of integers as long as it goes: 1 - covered / kept of padding.py is exactly 0 where nothing is resampled.
            total = self._node("Mul", [whole, kept])
            rest = self._node("Div", [self._float(self._node("Sub", [total, cells])), self._float(total)])
            back = self._node("Mul", [self._node("Add", [self._float(places), self._constant(np.float32(0.5))]), rest])
            if dim == 2:
                back = self._node("Reshape", [back, self._constant([-1, 1])])
            before = self._node("Max", [self._node("Sub", [places, one]), self._constant([0])])
            ahead = self._node("Sub", [self._node("Gather", [held, before], axis=dim), held])
            logits = self._node("Add", [held, self._node("Mul", [ahead, back])], out if dim == 3 else None)
        return self._taken()

    def _float(self, value: str) -> str:
        from onnx import TensorProto

        return self._node("Cast", [value], to=TensorProto.FLOAT)

    def _constant(self, value: Any) -> str:
        """int64 where it is not float32 already."""
        from onnx import numpy_helper

        array = np.asarray(value)
        array = array if array.dtype == np.float32 else array.astype(np.int64)
        name = f"{PREFIX}constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def _node(self, kind: str, given: Sequence[str], out: str | None = None, **attributes: Any) -> str:
        from onnx import helper

        name = f"{PREFIX}{kind}_{len(self._pending)}_{len(self.constants)}"
        out = out or f"{name}_value"
        self._pending.append(helper.make_node(kind, list(given), [out], name=name, **attributes))
        return out

    def _taken(self) -> Iterator[Any]:
        pending, self._pending = self._pending, []
        return iter(pending)
