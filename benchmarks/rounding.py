"""What eight bits cost in the runtimes that execute them, and where on the student's ranked classes it is felt.

    python benchmarks/rounding.py runs/a runs/b --data data/cifar100 --out benchmarks/results/rounding.csv
    python benchmarks/rounding.py runs/camvid --data data/camvid --split test --to onnx openvino executorch litert

Each student is exported and compared with itself in float on all validation images (--split: others), the loss with its
interval (95%, bootstrap over images in pairs). The gauge is that of `counterpoise gauge`, with the float student as the
teacher: forward and reverse KL a position, and the share of both that lies beyond its fifth class.

Float is to differ by 1e-3 at most, with 99.9% of the answers the same, and 8 bits to cost 0.5 points at most: where
one does not, it exits 1.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from counterpoise import tasks
from counterpoise.data.sources.base import Splits
from counterpoise.deploy import agreement, base, folder, pictures, sensitivity
from counterpoise.deploy.job import ExportJob, calibrated, make, prepare
from counterpoise.deploy.options import Export
from counterpoise.engine import inputs
from counterpoise.objectives.gauge import Gauge
from harness import report

LARGEST_DIFFERENCE, SAME, LOSS = 1e-3, 99.9, 0.5


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("students", nargs="+", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--split", help="of the data, such as test")
    parser.add_argument("--to", nargs="+", default=["onnx", "openvino"])
    parser.add_argument("--methods", nargs="+", help="default: all of the runtime")
    parser.add_argument("--within", type=float, help="also search layers to keep in float, from the first method")
    parser.add_argument("--images", type=int, default=10**6)
    parser.add_argument("--batch", type=int, help="pictures at once, where the format leaves a choice; default: any")
    parser.add_argument("--no-float", action="store_true", help="8 bits alone")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def once(runtime: base.Runtime) -> base.Runtime:
    """A runtime that is asked once for the same pixels."""
    answers: dict[bytes, Any] = {}

    def ask(pixels: base.Pixels) -> base.Logits:
        key = pixels.tobytes()
        if key not in answers:
            answers[key] = runtime(pixels)
        return answers[key]

    return ask


def gauge(job: ExportJob, runtime: base.Runtime, student: agreement.Remembered) -> dict[str, Any]:
    """The gauge of an export beside its student in float."""
    task = tasks.get(job.student.task)
    found = Gauge(job.student.num_classes)
    images = pictures.spread(job.data.val, job.images)  # type: ignore[union-attr]
    for _, pixels, *_ in pictures.pairs(images, job.student, job.section, job.request):
        rounded = torch.from_numpy(agreement.answer(runtime, pixels.numpy(), job.request.batch)).float()
        found.update(*task.alike(rounded, student(pixels))[:2])
    values = found.compute()
    beyond = [row for row in values["bands"] if int(row["ranks"].split("-")[0]) > 5]
    return {
        "forward_kl": values["forward_kl"],
        "reverse_kl": values["reverse_kl"],
        "missed": values["missed"],
        "excess": values["excess"],
        "forward_share_beyond_5": sum(row["forward_share"] for row in beyond),
        "reverse_share_beyond_5": sum(row["reverse_share"] for row in beyond),
        "float_mass_beyond_5": sum(row["teacher_mass"] for row in beyond) / 100,
    }


def cases(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    for student in arguments.students:
        data = None
        if arguments.split is not None:
            held, section = inputs.evaluated(student, arguments.data, arguments.split, None)
            data = pictures.data_of(student, arguments.data, None)[0]
            assert data is not None
            data, place = Splits(data.train, held), section
        remembered: agreement.Remembered | None = None
        for to in arguments.to:
            chosen = base.find(to)
            plans: list[tuple[str, str, float | None]] = [] if arguments.no_float else [("float32", "", None)]
            methods = arguments.methods or chosen.methods
            plans += [("int8", method, None) for method in methods if method in chosen.methods]
            if arguments.within is not None:
                plans.append(("int8", methods[0], arguments.within))
            for precision, method, within in plans:
                job = prepare(
                    student,
                    chosen,
                    Export(
                        to=to,
                        precision=precision,
                        batch=arguments.batch,
                        data=arguments.data,
                        images=arguments.images,
                    ),
                )
                if data is not None:
                    job = job._replace(data=data, section=place)
                remembered = remembered or agreement.Remembered(job.network)
                yield case(student, job, method, within, remembered)


def case(
    student: Path, job: ExportJob, method: str, within: float | None, remembered: agreement.Remembered
) -> dict[str, Any]:
    calibration = None
    if job.request.precision == "int8":
        calibration = calibrated(job, {"method": method})
    if calibration is not None and within is not None:
        calibration = sensitivity.choose(job, calibration, within)[0]
    with tempfile.TemporaryDirectory() as held:
        make(job, Path(held), calibration)
        runtime = once(job.format.open(Path(held)))
        images = pictures.spread(job.data.val, job.images)  # type: ignore[union-attr]
        found = agreement.compare(
            remembered,
            runtime,
            pictures.pairs(images, job.student, job.section, job.request.size),
            tasks.get(job.student.task),
            job.student.num_classes,
            job.request.batch,
        )
        size = sum(file.bytes for file in folder.measured(Path(held), job.format.files).values())
        low, high = found.interval or (float("nan"), float("nan"))
        row = {
            "student": student.name,
            "architecture": job.student.name,
            "runtime": job.format.name,
            "precision": job.request.precision,
            "method": method,
            "calibration_images": 0 if calibration is None else len(calibration.pixels),
            "within": "" if within is None else within,
            "kept_in_float": 0 if calibration is None else len(calibration.keep),
            "bytes": size,
            "images": found.images,
            "positions": found.positions,
            "largest_difference": found.largest_difference,
            "same": round(found.same, 3),
            "metric": found.metric,
            "float": round(found.student or 0, 3),
            "export": round(found.export or 0, 3),
            "loss": round(found.loss or 0, 3),
            "loss_low": round(low, 3),
            "loss_high": round(high, 3),
            **gauge(job, runtime, remembered),
            "runtime_versions": " ".join(f"{name} {value}" for name, value in job.format.versions().items()),
        }
    print(json.dumps(row), file=sys.stderr, flush=True)
    return row


def targets(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """What docs/deploy.md promises of each row."""
    for row in rows:
        name = " ".join(str(row[key]) for key in ("architecture", "runtime", "precision", "method")).strip()
        if row["within"] != "":
            name += f" within {row['within']}"
        if row["precision"] == "int8":
            yield {"name": f"{name}: loss", "value": row["loss"], "at_most": LOSS}
        else:
            yield {
                "name": f"{name}: largest difference",
                "value": row["largest_difference"],
                "at_most": LARGEST_DIFFERENCE,
            }
            yield {"name": f"{name}: same", "value": row["same"], "at_least": SAME}


def main() -> int:
    """Run it."""
    arguments = parsed()
    for to in arguments.to:
        base.find(to)  # a runtime that is missing is said before anything is measured
    rows = list(cases(arguments))
    return report("rounding", rows, list(targets(rows)), arguments.json, arguments.out, command(arguments))


def command(arguments: argparse.Namespace) -> str:
    """What was run, without this machine's paths."""
    words = ["python benchmarks/rounding.py", *("RUN" for _ in arguments.students)]
    for name, value in vars(arguments).items():
        if name in {"students", "json"} or value in (None, False) or (name, value) == ("images", 10**6):
            continue
        words.append(f"--{name.replace('_', '-')}")
        if name == "data":
            words.append("DATA")
        elif name == "out":
            words.append(f"benchmarks/results/{value.name}")
        elif value is not True:
            words += map(str, value) if isinstance(value, list) else [str(value)]
    return " ".join(words)


if __name__ == "__main__":
    raise SystemExit(main())
