"""Whether 8 bits answer the same on another processor: what an ONNX export says of pictures, beside its float export.

    python benchmarks/processors.py model.onnx float32.onnx pixels.npy
    qemu-x86_64 -cpu Haswell PYTHON benchmarks/processors.py model.onnx float32.onnx pixels.npy

Under emulation it needs numpy and onnxruntime alone (PYTHONPATH names where they are); pixels are uint8 [N, 3, H, W].
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import onnxruntime


def logits(path: str, pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Logits of pixels [N, 3, H, W], [N, classes], on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    parts = [session.run(None, {"pixels": pixels[start : start + 50]})[0] for start in range(0, len(pixels), 50)]
    return np.concatenate(parts)


def main() -> None:
    """Run it."""
    export, reference, pictures = sys.argv[1:]
    pixels = np.load(pictures)
    same = logits(export, pixels).argmax(1) == logits(reference, pixels).argmax(1)
    print(f"{len(pixels)} pictures, same answers {100 * same.mean():.2f}%")


if __name__ == "__main__":
    main()
