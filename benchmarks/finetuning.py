"""Whether training with rounded layers gives back what eight bits take, and with which objective.

    python benchmarks/finetuning.py --seeds 2 --out benchmarks/results/finetuning.csv

A depthwise net is trained on 900 digits, then exported to ONNX in 8 bits as it is, with layers kept in float (--within
of `export`), and after two epochs of training with rounded layers: on labels alone, with forward KL (KD), and with
Balance, the last two against itself in float, all at the same total weight. What counts is the 8-bit file in
onnxruntime, on the other 897 digits, beside the first student in float; the gauge has that one as the teacher.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor, nn

import counterpoise
import rounding
from counterpoise.deploy import base, export
from counterpoise.deploy.finetune import finetune
from counterpoise.deploy.job import ExportJob, prepare
from counterpoise.deploy.options import Export
from counterpoise.engine.student import load_student
from harness import report

OBJECTIVES: dict[str, dict[str, Any]] = {
    "labels": {"cross_entropy": {"weight": 3.0}, "forward_kl": {"weight": 0.0}},
    "kd": {"cross_entropy": {"weight": 1.0}, "forward_kl": {"weight": 2.0}},
    "balance": {
        "cross_entropy": {"weight": 1.0},
        "balance": {"weight": 1.0, "forward_weight": 1.0, "reverse_weight": 1.0},
    },
}


class Separable(nn.Module):
    """Four depthwise separable blocks, as in MobileNet (arXiv:1704.04861), for pictures of 8 x 8."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        widths = (16, 32, 48, 64)
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU6())
        self.blocks = nn.Sequential(*(self._block(a, b) for a, b in zip((16, *widths[:-1]), widths, strict=True)))
        self.classifier = nn.Linear(widths[-1], num_classes)

    @staticmethod
    def _block(inner: int, outer: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(inner, inner, 3, padding=1, groups=inner, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU6(),
            nn.Conv2d(inner, outer, 1, bias=False),
            nn.BatchNorm2d(outer),
            nn.ReLU6(),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Logits of normalized images."""
        return self.classifier(self.blocks(self.stem(images)).mean((2, 3)))


def separable(num_classes: int) -> nn.Module:
    """What `--student.model benchmarks/finetuning.py:separable` builds."""
    return Separable(num_classes)


def train(out: Path, code: str, seed: int) -> Path:
    """A depthwise student of the digits."""
    train = {
        "clip_gradient": None,
        "epochs": 15,
        "evaluate_every": 15,
        "batch_size": 32,
        "optimizer": {"name": "adamw", "learning_rate": 0.01},
        "schedule": {"name": "one_cycle"},
        "precision": "fp32",
        "device": "cpu",
    }
    data = {"source": "digits", "options": {"train_size": 900}}
    run = {"data": data, "student": {"model": code}, "train": train, "seed": seed, "out": out}
    counterpoise.train(run, resume=out.exists())
    return out


def cases(student: Path | None, seeds: int, epochs: int, work: Path) -> Iterator[dict[str, Any]]:
    """The ways to 8 bits of a student, or of depthwise ones trained here. Goes on with runs that `work` holds."""
    code = f"{Path(__file__).resolve()}:separable" if student is None else None
    for seed in range(seeds):
        held = work / f"seed-{seed}"
        first = train(held / "first", code, seed) if code is not None else student
        assert first is not None
        job = prepare(first, base.find("onnx"), Export(to="onnx", precision="int8", model=code, images=10**6))
        original = rounding.agreement.Remembered(job.network)
        options = {
            "seed": seed,
            "train": {"clip_gradient": None, "device": "cpu", "batch_size": 32, "evaluate_every": epochs},
        }
        yield case(first, seed, "as it is", job, None, original)
        yield case(first, seed, "kept", job, 0.5, original)
        for name, objective in OBJECTIVES.items():
            out = held / name
            tune = {"objective": objective, "epochs": epochs, "options": options, "resume": out.exists()}
            finetune(first, out=out, model=code, **tune)
            tuned = load_student(out, model=code)
            ready = job._replace(student=tuned, network=export.Deployed(tuned))
            yield case(first, seed, name, ready, None, original)


def case(
    student: Path,
    seed: int,
    way: str,
    job: ExportJob,
    within: float | None,
    original: rounding.agreement.Remembered,
) -> dict[str, Any]:
    """The 8-bit file of a student, compared with the first one in float."""
    row = rounding.case(student, job, "minmax", within, original)
    return {"way": way, "seed": seed, **{key: value for key, value in row.items() if key not in ("student", "within")}}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("student", nargs="?", type=Path, help="a run on data with labels, instead of training one")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--work", type=Path, help="where runs are kept for another call; default: nowhere")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as nowhere:
        rows = list(cases(given.student, given.seeds, given.epochs, given.work or Path(nowhere)))
    if not given.json:
        print(json.dumps({row["way"]: row["loss"] for row in rows}))
    raise SystemExit(report("finetuning", rows, [], given.json, given.out))
