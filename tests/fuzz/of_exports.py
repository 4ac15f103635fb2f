"""What a runtime opens: models whose hashes agree, since who made the folder wrote those, too; and models of others."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import binaries
import mutators
from campaign import Format
from making import copied

BESIDE = ("export.json", "reference.safetensors")


def _verified(folder: Path) -> Any:
    from counterpoise import verify

    return verify(folder)["reference"]


def _hashed(file: str) -> Callable[[Path], None]:
    """Give export.json the size and the hash of what the file is now."""

    def seal(folder: Path) -> None:
        content, path = (folder / file).read_bytes(), folder / "export.json"
        described = json.loads(path.read_text())
        described["files"][file] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        path.write_text(json.dumps(described))

    return seal


def _agrees(found: Any, _: Any) -> bool:
    """What was taken answers as the student did."""
    return bool(max(found.values()) <= 1e-3)


def _measured(folder: Path) -> Any:
    from counterpoise.deploy.measuring.subjects import onnx_file

    return onnx_file(folder / "model.onnx").values()


def _export(name: str, file: str, kind: str, change: mutators.Mutator, *packages: str, quick: int = 20) -> Format:
    files = {"OpenVINO": ("model.xml", "model.bin"), "ONNX": (file, "run.py")}.get(kind, (file,))
    return Format(
        name,
        copied(kind.lower(), *files, *BESIDE),
        file,
        change,
        _verified,
        seal=_hashed(file),
        sound=_agrees,
        needs=packages,
        apart=True,
        dies=kind == "ExecuTorch",
        starts="litert_worker.py" if kind == "LiteRT" else "",
        quick=quick,
    )


EXPORTS: tuple[Format, ...] = (
    _export("model of ONNX", "model.onnx", "ONNX", binaries.of_onnx, "onnx", "onnxruntime", quick=40),
    _export("model of OpenVINO", "model.xml", "OpenVINO", binaries.of_xml, "openvino"),
    _export("weights of OpenVINO", "model.bin", "OpenVINO", mutators.of_bytes, "openvino"),
    _export("program of ExecuTorch", "model.pte", "ExecuTorch", mutators.of_bytes, "executorch"),
    _export("model of LiteRT", "model.tflite", "LiteRT", mutators.of_bytes, "ai_edge_litert", quick=6),
    Format("ONNX of others", copied("onnx", "model.onnx"), "model.onnx", binaries.of_onnx, _measured, needs=("onnx",)),
)
