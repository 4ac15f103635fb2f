"""Asks a run's student, its teacher and the students beside it for their answers to the run's evaluation images."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from counterpoise import config, tasks
from counterpoise.data import sources
from counterpoise.data.epochs import InOrder
from counterpoise.data.sources.base import UNLABELED, ImageSet
from counterpoise.engine.answering import answer_for
from counterpoise.engine.evaluator import in_classes_of
from counterpoise.engine.networks import build_teacher
from counterpoise.engine.student import load_student
from counterpoise.errors import CounterpoiseError, DataError, ModelError
from counterpoise.models import catalog
from counterpoise.models.network import VisionModel
from counterpoise.objectives.composite import answers_by_sigmoid
from counterpoise.objectives.gauge import Gauge
from counterpoise.pages.report.findings.base import STUDENT, TEACHER, Gathering
from counterpoise.pages.report.findings.classification import Classification
from counterpoise.pages.report.findings.multilabel import Multilabel
from counterpoise.pages.report.findings.multilabel_segmentation import MultilabelSegmentation
from counterpoise.pages.report.findings.segmentation import Segmentation
from counterpoise.pages.report.reading import Reading
from counterpoise.system.machine import device_name

GATHERINGS: dict[str, type[Gathering]] = {
    "classification": Classification,
    "multilabel": Multilabel,
    "segmentation": Segmentation,
    "multilabel_segmentation": MultilabelSegmentation,
}
BATCH = 250
ROUNDS, SECONDS = 30, 4.0
"""Of the clock's interleaved rounds: as many, or as long."""


def gather(
    reading: Reading,
    beside: Mapping[str, Reading],
    images: int | None = None,
    device: str = "auto",
    model: catalog.Model | None = None,
) -> dict[str, Any]:
    """What the student of a run answers on the run's evaluation images.

    Args:
        reading: the run.
        beside: further runs by name, whose students are asked the same, such as the student alone.
        images: ask about so many of them, evenly spaced; None asks about all.
        device: as train.device.
        model: the students' network, where that is code of one's own: a folder alone gets to run none.

    Returns:
        {"missing": sentences} and, where the student and the data are there, what the task's gathering gives, "gauges"
        by student (see `Gauge.compute`), "reliability" by model, "latency", "images" and "promised_on": whether
        these images chose the student's promise.
    """
    from counterpoise.engine.processes import choose_device

    missing: list[str] = []
    run = reading.run
    if run is None or reading.student is None:
        return {"missing": ["Pictures, confusions and the gauge need a finished run: there is no student to ask yet."]}
    try:
        student: VisionModel = load_student(reading.folder, model=model, epoch=reading.epoch)
        found = sources.load(run.data).val
        promised_on = student.promise is not None and student.promise.data == found.fingerprint()
        found = sources.in_memory(found, run.data.memory_limit_gb * 1e9, run.data.on_corrupt)
        if found.classes:
            found = in_classes_of(student, found)
        tasks.get(student.task).check(found)
        if student.task not in GATHERINGS:
            raise ModelError(f"A page shows {', '.join(GATHERINGS)}, not answers of {student.task}.")
    except (CounterpoiseError, OSError) as error:
        return {"missing": [f"Pictures, confusions and the gauge are left out. {error}"]}
    chosen = found
    if images is not None and images < len(found):
        chosen = found.subset(torch.linspace(0, len(found) - 1, images).long())
    models = {STUDENT: student}
    classes = tuple(found.classes or student.classes or ())
    try:
        if run.teacher is not None:
            models[TEACHER] = _teacher(run, classes)
            models[TEACHER].shown_like(student)
    except (CounterpoiseError, OSError) as error:
        missing.append(f"What the teacher answers is left out. {error}")
    for name, other in beside.items():
        try:
            models[name] = _beside(other, student, model)
        except (CounterpoiseError, OSError) as error:
            missing.append(f"What '{name}' answers is left out. {error}")
    try:
        values = _asked(models, chosen, run, classes, choose_device(device))
    except (CounterpoiseError, OSError) as error:
        return {"missing": [*missing, f"Pictures, confusions and the gauge are left out. {error}"]}
    if not values["labeled"]:
        missing.append("The evaluation images have no labels: scores say how often the teacher is followed.")
    if len(chosen) < len(found):
        missing.append(f"{len(chosen):,} of {len(found):,} evaluation images were asked about, as was wished.")
    return {**values, "images": len(chosen), "promised_on": promised_on, "missing": missing}


def _teacher(run: config.Run, classes: tuple[str, ...]) -> VisionModel:
    teacher = build_teacher(run, classes).eval()
    answer_for(tasks.get(run.task), teacher, imitated=True)
    return teacher


def _beside(reading: Reading, student: VisionModel, model: catalog.Model | None) -> VisionModel:
    other = load_student(reading.folder, model=model, epoch=reading.epoch)
    if (other.task, other.classes) != (student.task, student.classes):
        raise ModelError("Its task or its classes are not those of the student.")
    return other


def _asked(
    models: Mapping[str, VisionModel],
    images: ImageSet,
    run: config.Run,
    classes: Sequence[str],
    device: torch.device,
) -> dict[str, Any]:
    student = models[STUDENT]
    task = tasks.get(student.task)
    gathering = GATHERINGS[task.name](classes, models, images)
    sigmoid = task.sigmoid or answers_by_sigmoid(run.objective)
    gauges = {name: Gauge(student.num_classes, sigmoid=sigmoid) for name in models if name != TEACHER}
    # Models that see images alike share what was decoded.
    views = {name: (model.input_size, model.crop_share, model.fit, model.scenes) for name, model in models.items()}
    loaders: dict[Any, InOrder] = {}
    for name, model in models.items():
        model.to(device).eval()
        if views[name] not in loaders:
            loaders[views[name]] = task.eval_loader(images, model, run.data, batch_size=BATCH)
    example: Tensor | None = None
    for batches in zip(*loaders.values(), strict=True):
        seen = dict(zip(loaders, batches, strict=True))
        if any(not torch.equal(batch.indices, batches[0].indices) for batch in batches):
            raise DataError("The models cannot be shown the images in the same batches.")
        with torch.inference_mode():
            logits = {
                name: task.answer(model, seen[views[name]].images.to(device)).float().cpu()
                for name, model in models.items()
            }
        batch = seen[views[STUDENT]]
        example = batch.images[:1] if example is None else example
        gathering.update(batch, logits)
        for name, gauge in gauges.items():
            # Without a teacher the gauge serves for the calibration alone.
            other = logits.get(TEACHER, logits[name])
            own, other, target = task.alike(logits[name], other, batch.target)
            gauge.update(own, other, target, ignore_index=None)
    if example is None or not gauges[STUDENT].state[0]:
        raise DataError("The data has no image that can be read.")
    labeled = bool((images.labels != UNLABELED).any())
    reliability = {name: gauge.reliability()["student"] for name, gauge in gauges.items()}
    if TEACHER in models:
        reliability[TEACHER] = gauges[STUDENT].reliability()["teacher"]
    return {
        **gathering.result(),
        "gauges": {name: gauge.compute() for name, gauge in gauges.items()} if TEACHER in models else {},
        "reliability": reliability if labeled else {},
        "networks": {
            name: {
                "name": model.name,
                "parameters": sum(parameter.numel() for parameter in model.parameters()),
                "bytes": sum(value.numel() * value.element_size() for value in model.weights().values()),
            }
            for name, model in models.items()
        },
        "latency": _latency({name: models[name] for name in models if name in (STUDENT, TEACHER)}, example, device),
    }


def _latency(models: Mapping[str, VisionModel], example: Tensor, device: torch.device) -> dict[str, Any]:
    """Milliseconds of one picture by model, medians of rounds in which the models take turns."""
    times: dict[str, list[float]] = {name: [] for name in models}
    image = example.to(device)
    started = time.perf_counter()
    with torch.inference_mode():
        for number in range(ROUNDS + 3):
            for name, model in models.items():
                begun = time.perf_counter()
                model(image)
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                if number >= 3:  # the first ones warm up
                    times[name].append(1000 * (time.perf_counter() - begun))
            if number > 3 and time.perf_counter() - started > SECONDS:
                break
    return {
        "ms": {name: statistics.median(values) for name, values in times.items()},
        "rounds": len(times[STUDENT]),
        "machine": device_name(device),
        "threads": torch.get_num_threads(),
        "runtime": f"PyTorch {torch.__version__}",
        "shape": list(example.shape),
    }
