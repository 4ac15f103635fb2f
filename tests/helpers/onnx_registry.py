"""For tests that export: torch reads its 500 ONNX operators once a process, not for half a second at each export."""

from __future__ import annotations

import functools
import sys

MODULE = "torch.onnx._internal.exporter._registration"


def keep(warm: bool = False) -> None:
    """Where torch's exporter is imported, by now. With `warm` they are read at once, for processes that fork."""
    registry = getattr(sys.modules.get(MODULE), "ONNXRegistry", None)
    if registry is None or hasattr(registry.from_torchlib, "cache_info"):
        return
    registry.from_torchlib = staticmethod(functools.cache(registry.from_torchlib))
    if warm:
        from counterpoise.deploy.formats import onnx

        registry.from_torchlib(opset_version=onnx.OPSET)
        find_operators = getattr(sys.modules.get("torch._export.utils"), "_materialize_cpp_cia_ops", None)
        if find_operators is not None:  # torch's own, which each export asks for
            find_operators()
