"""What networks cost as exports: formats, float and 8 bits, beside each other on this CPU.

Weights are of chance, for the cost does not depend on them, except where a trained network in 8 bits keeps layers in
float; here none does. All are measured in turn, each in a fresh process of its own runtime that takes one picture on
one thread. `cpu_ms` is the processor's own time in a call: where `median_ms` is far above it, the machine was busy
with something else, and rows compare with one another only.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from pathlib import Path
from typing import Any, cast

import torch

import harness
from counterpoise import config
from counterpoise.deploy import base
from counterpoise.deploy.base import Calibration, Request
from counterpoise.deploy.job import ExportJob, make
from counterpoise.deploy.measuring import counting, measure, phones, subjects, timing
from counterpoise.deploy.measuring.subjects import Subject
from counterpoise.deploy.network import Deployed
from counterpoise.engine.student import Student
from counterpoise.errors import CounterpoiseError
from counterpoise.models import catalog
from counterpoise.studies.fitting.costing import as_if_trained

# Classes, height and width.
NETWORKS: dict[str, tuple[int, tuple[int, int]]] = {
    "timm/resnet18": (1000, (224, 224)),
    "timm/mobilenetv3_small_100": (1000, (224, 224)),
    "cifar/resnet8x4": (100, (32, 32)),
    "smp/pspnet:resnet18": (11, (352, 480)),
}
FORMATS = ("onnx", "openvino", "executorch", "litert")
PRECISIONS = ("float32", "int8")
CALIBRATION_IMAGES = 16


def exported(name: str, to: str, precision: str, folder: Path) -> Subject:
    """A network with weights of chance, exported."""
    classes, size = NETWORKS[name]
    torch.manual_seed(0)
    network = catalog.build(name, num_classes=classes)
    as_if_trained(network)
    deployed, form = Deployed(network), base.find(to)
    form.check()
    batch = None if form.dynamic_batch else 1
    pixels = torch.randint(0, 256, (CALIBRATION_IMAGES, 3, *size), dtype=torch.uint8)
    request = Request(precision, size, batch)
    job = ExportJob(cast(Student, network), deployed, form, request, None, config.Data(), 1)
    if not folder.exists():
        new = folder.with_name(f".{folder.name}")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        make(job, new, Calibration(pixels, form.methods[0]) if precision == "int8" else None)
        new.rename(folder)
    return subjects.export(
        f"{name} {to} {precision}",
        form,
        folder,
        precision=precision,
        size=size,
        batch=batch,
        parameters=counting.parameters(network),
        multiply_adds=counting.multiply_adds(deployed, size),
    )


def case(name: str, subject: Subject, found: timing.Case) -> dict[str, Any]:
    """A line of the table."""
    return {
        "network": name,
        "size": "x".join(map(str, subject.size)),
        "format": subject.runtime,
        "precision": subject.precision,
        "takes": subject.batch or "any number",
        "bytes": subject.bytes,
        "parameters": subject.parameters,
        "multiply_adds": subject.multiply_adds,
        "median_ms": found.median_ms,
        "low_ms": found.low_ms,
        "high_ms": found.high_ms,
        "p95_ms": found.p95_ms,
        "cpu_ms": found.processor_ms,
        "peak_mb": found.peak_mb,
        "network_mb": found.network_mb,
        "threads": found.threads,
        "rounds": len(found.round_ms),
        "runtime": " ".join(f"{package} {version}" for package, version in subject.versions.items()),
    }


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(
        "--work", type=Path, default=Path("runs/deploy"), help="where exports are kept for another call"
    )
    parser.add_argument("--skip", nargs="*", default=[], help="such as cifar/resnet8x4:onnx:int8, to leave out")
    ours, sys.argv[1:] = parser.parse_known_args()
    options = harness.arguments(f"{__doc__}\n--work FOLDER keeps the exports for another call")
    networks = ["cifar/resnet8x4"] if options.quick else list(NETWORKS)
    settings = timing.Settings(rounds=6 if options.quick else 9, seconds=0.05 if options.quick else 0.4)
    found: list[tuple[str, Subject]] = []
    for name in networks:
        for to in FORMATS:
            for precision in PRECISIONS:
                if f"{name}:{to}:{precision}".startswith(tuple(ours.skip)):
                    continue
                start = time.perf_counter()
                folder = ours.work / phones.plain(f"{name}-{to}-{precision}")
                try:
                    found.append((name, exported(name, to, precision, folder)))
                except CounterpoiseError as error:
                    print(f"left out: {name} {to} {precision}: {error}", file=sys.stderr)
                print(f"{name} {to} {precision}: {time.perf_counter() - start:.0f} s", file=sys.stderr)
    load = measure.busy()
    timed = timing.time_all([subject for _, subject in found], settings, lambda text: print(text, file=sys.stderr))
    cases = [case(name, subject, own[0]) for (name, subject), own in zip(found, timed, strict=True)]
    for row in cases:
        row |= {"load_before": load, "load_after": measure.busy()}
    return harness.report("deploy", cases, [], options.json, options.out)


if __name__ == "__main__":
    sys.exit(main())
