"""A trained teacher as one file of half the size: weights in float16, its recipe and scores in the metadata.

python benchmarks/evidence/keep.py runs/teacher-resnet32x4 benchmarks/evidence/teachers/resnet32x4.safetensors
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


def main() -> int:
    """Write it."""
    run, kept = (Path(argument) for argument in sys.argv[1:3])
    weights = {
        name: value.to(torch.float16) if value.is_floating_point() else value
        for name, value in load_file(run / "student" / "model.safetensors").items()
    }
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    kept.parent.mkdir(parents=True, exist_ok=True)
    recipe = (run / "run.yaml").read_text(encoding="utf-8")
    save_file(weights, kept, {"format": "pt", "recipe": recipe, "summary": json.dumps(summary)})
    print(f"{kept}: {kept.stat().st_size / 2**20:.1f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
