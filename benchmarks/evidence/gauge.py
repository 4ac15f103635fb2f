"""What each method changes in the student: the balance gauge on the test images, a row a method, means over seeds.

    python benchmarks/evidence/gauge.py runs/evidence/resnet8 --out benchmarks/results/evidence_gauge.csv

Reads the students of a comparison on CIFAR-100 (data/cifar100) whose teacher is cifar/wrn_16_2; `--teacher PAIR MODEL
CHECKPOINT`, once a pair, names others. Beside the gauge at temperature 1: top-1 where the teacher is right and where it
is wrong, and how often the student repeats the teacher's mistake there.
"""

from __future__ import annotations

import argparse
import shlex
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from counterpoise import config
from counterpoise.data import sources
from counterpoise.data.sources.arrays import ArraySet
from counterpoise.engine.allocation import keep_freed_memory
from counterpoise.engine.recording import CPU_BATCH
from counterpoise.engine.student import load_student
from counterpoise.models import catalog
from counterpoise.models.network import VisionModel
from counterpoise.objectives.gauge import Gauge

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import harness

TEACHER = ("all", "cifar/wrn_16_2", "data/teachers/cifar100-wrn_16_2.safetensors")


@torch.inference_mode()
def answers(model: VisionModel, images: Tensor) -> Tensor:
    """Logits [N, C] of uint8 images [N, 3, H, W]."""
    model.eval().net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return torch.cat([model(part).float() for part in torch.split(images, CPU_BATCH)])


def row(student: Tensor, teacher: Tensor, labels: Tensor) -> dict[str, float]:
    """One student's numbers."""
    gauge = Gauge(student.shape[1])
    gauge.update(student, teacher, labels)
    found = gauge.compute()
    said, told = student.argmax(1), teacher.argmax(1)
    wrong = told != labels
    tail = next(band for band in found["bands"] if band["ranks"] == "21-100")
    return {
        "top1": 100 * float((said == labels).float().mean()),
        **{name: found[name] for name in ("forward_kl", "reverse_kl", "missed", "excess")},
        "tail_mass": tail["student_mass"],
        "teacher_tail_mass": tail["teacher_mass"],
        "agreement": found["agreement"]["top1"],
        "top1_teacher_right": 100 * float((said == labels)[~wrong].float().mean()),
        "top1_teacher_wrong": 100 * float((said == labels)[wrong].float().mean()),
        "repeats_mistake": 100 * float((said == told)[wrong].float().mean()),
        "calibration_error": found["calibration"]["student"]["calibration_error"],
    }


def found(pair: Path) -> Iterator[tuple[str, list[Path]]]:
    """Methods of a pair that have students, with their runs."""
    if not pair.is_dir():
        raise SystemExit(f"No runs in {pair}: which pairs there are, the folder above it says.")
    for method in sorted(pair.iterdir()):
        students = sorted(run for run in method.glob("seed-*") if (run / "student" / "student.json").exists())
        if students:
            yield method.name, students


def main() -> int:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("comparison", type=Path)
    parser.add_argument("--teacher", action="append", nargs=3, metavar=("PAIR", "MODEL", "CHECKPOINT"))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    keep_freed_memory()
    test = sources.load(config.Data(path=Path("data/cifar100"), source="cifar")).val
    assert isinstance(test, ArraySet)
    cases: list[dict[str, Any]] = []
    teachers = options.teacher or [TEACHER]
    for pair, model, checkpoint in teachers:
        built = catalog.build(model, num_classes=100, checkpoint=Path(checkpoint))
        told = answers(built, test.images)
        for method, students in found(options.comparison / "runs" / pair):
            rows = [row(answers(load_student(folder), test.images), told, test.labels) for folder in students]
            case: dict[str, Any] = {"case": method if len(teachers) == 1 else f"{pair}: {method}", "seeds": len(rows)}
            for name in rows[0]:
                values = [one[name] for one in rows]
                case[name] = statistics.fmean(values)
                if name == "top1" and len(values) > 1:
                    case["top1_std"] = statistics.stdev(values)
            cases.append(case)
    command = f"python benchmarks/evidence/gauge.py {shlex.join(sys.argv[1:])}"
    return harness.report("gauge", cases, [], as_json=False, out=options.out, command=command)


if __name__ == "__main__":
    sys.exit(main())
