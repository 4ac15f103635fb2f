"""What LiteRT's own environment does: convert, quantize, answer. A script; it sees nothing of this project.

python litert_worker.py convert PROGRAM.pt2 METADATA.json OUT.tflite
python litert_worker.py quantize IN.tflite PIXELS.npy PATTERNS METADATA.json OUT.tflite    patterns: a JSON list
python litert_worker.py serve MODEL.tflite THREADS      pixels in, logits out
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np


def load(path: str, threads: int | None) -> Any:
    """The logits of pixels, by LiteRT's interpreter with its XNNPACK on the CPU."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(path, num_threads=threads)
    interpreter.allocate_tensors()
    taken, given = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def run(pixels: Any) -> Any:
        interpreter.set_tensor(taken, pixels)
        interpreter.invoke()
        return interpreter.get_tensor(given)

    return run


def convert(program: str, metadata: str, out: str) -> None:
    """A saved program of torch.export as a .tflite file."""
    import litert_torch
    import torch

    saved = torch.export.load(program)
    (example,), _ = saved.example_inputs
    module = saved.module(check_guards=False)
    litert_torch.convert(module, (example,)).export(out)
    _describe(out, metadata, out)


def quantize(model: str, pixels: str, patterns: str, metadata: str, out: str) -> None:
    """A .tflite file in 8 bits, weights by channel; logits and operators of these names stay in float."""
    from ai_edge_quantizer import algorithm_manager, calibrator, qtyping, quantizer, recipe, recipe_manager
    from ai_edge_quantizer.utils import qsv_utils

    quantization = quantizer.Quantizer(model)
    quantization.load_quantization_recipe(recipe.static_wi8_ai8())
    names, skip = qtyping.TFLOperationName, algorithm_manager.AlgorithmName.NO_QUANTIZE
    quantization.update_quantization_recipe(regex=".*", operation_name=names.OUTPUT, algorithm_key=skip)
    for pattern in json.loads(patterns):
        quantization.update_quantization_recipe(regex=pattern, operation_name=names.ALL_SUPPORTED, algorithm_key=skip)
    batches = np.load(pixels, allow_pickle=False)
    manager = recipe_manager.RecipeManager()
    manager.load_quantization_recipe(quantization.get_quantization_recipe())
    # Its own way is a moving average, which after a few batches is little more than the first one's range.
    ranges = calibrator.Calibrator(model, num_threads=1, qsv_update_func=qsv_utils.min_max_update)
    ranges.calibrate({"serving_default": [{"args_0": batch} for batch in batches]}, manager)
    quantization.quantize(ranges.get_model_qsvs()).export_model(out, overwrite=True)
    _describe(out, metadata, out)


def serve(model: str, threads: str) -> None:
    """Answer pixels from standard input on standard output until there are no more."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the runtime prints is no answer
    run = load(model, int(threads) or None)
    while (pixels := receive(sys.stdin.buffer)) is not None:
        send(answers, run(pixels))


def send(stream: Any, array: Any) -> None:
    """Write an array to a pipe: the count of its bytes in 8 of them, then as .npy."""
    content = io.BytesIO()
    np.save(content, np.ascontiguousarray(array), allow_pickle=False)
    stream.write(len(content.getbuffer()).to_bytes(8, "little"))
    stream.write(content.getbuffer())
    stream.flush()


def receive(stream: Any) -> Any:
    """Read an array from a pipe; None where it has ended."""
    count = stream.read(8)
    return np.load(io.BytesIO(stream.read(int.from_bytes(count, "little"))), allow_pickle=False) if count else None


def versions() -> None:
    """Print the packages that make and run exports, those of them that are here."""
    found = {}
    for package in ("litert-torch", "ai-edge-litert", "ai-edge-quantizer", "torch"):
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    print(json.dumps(found))


def _describe(model: str, metadata: str, out: str) -> None:
    """Put texts into the file, each a buffer named by its key."""
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    content = flatbuffer_utils.read_model(model)
    content.metadata = content.metadata or []
    for key, text in json.loads(Path(metadata).read_text(encoding="utf-8")).items():
        buffer, entry = schema.BufferT(), schema.MetadataT()
        buffer.data = np.frombuffer(text.encode(), np.uint8)
        entry.name, entry.buffer = key, len(content.buffers)
        content.buffers.append(buffer)
        content.metadata.append(entry)
    flatbuffer_utils.write_model(content, out)


if __name__ == "__main__":
    verbs: dict[str, Callable[..., None]] = {verb.__name__: verb for verb in (convert, quantize, serve, versions)}
    verbs[sys.argv[1]](*sys.argv[2:])
