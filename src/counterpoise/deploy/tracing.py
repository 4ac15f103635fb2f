"""Networks as graphs of operators, which is where every format starts, and what a format cannot hold of them."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from counterpoise.errors import ExportError, first_line


def trace(network: nn.Module, example: Tensor, batch: Mapping[int, Any] | None = None) -> torch.export.ExportedProgram:
    """A network as a graph of operators. Raises ExportError where its Python cannot be followed."""
    try:
        return torch.export.export(network, (example,), dynamic_shapes=None if batch is None else (batch,))
    except Exception as error:  # torch.export raises a dozen kinds for what it cannot follow
        hint = "." if batch is None else ". Where it is the number of pictures that it asks for, give --batch 1."
        raise ExportError(f"The network's Python cannot be turned into a graph: {first_line(error)}{hint}") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what converters print, log and warn of their own insides; what goes wrong in them is raised."""
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    nothing = io.StringIO()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(nothing), contextlib.redirect_stderr(nothing):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def lacking(format_name: str, error: Exception, program: torch.export.ExportedProgram) -> ExportError:
    """What a format lacks, with the operator and the layer that needs it, from a converter's error."""
    text = ""
    cause: BaseException | None = error
    while cause is not None:
        text += f"\n{cause}\n"
        cause = cause.__cause__ or cause.__context__
    named = re.search(r"translating node %(\w+)", text)
    for graph in (program.graph, program.run_decompositions().graph):
        for node in graph.nodes:
            operator = re.escape(str(node.target))
            if node.op == "call_function" and (
                node.name == named[1] if named else re.search(rf"(?<![\w.]){operator}(?![\w.])", text)
            ):
                return ExportError(
                    f"{format_name} lacks the operator {node.target}, which layer {layer_of(node)} needs."
                )
    return ExportError(f"{format_name} cannot hold this network: {first_line(error)}.")


def layer_of(node: torch.fx.Node) -> str:
    """The innermost module that a node of an exported program comes from."""
    stack = node.meta.get("nn_module_stack") or {}
    names = [path for path, _ in stack.values() if path]
    return f"'{names[-1]}'" if names else "outside all layers"
