"""How pictures are shown in evaluation and prediction, against how training shows them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from counterpoise import config, tasks
from counterpoise.data.sources.arrays import ArraySet
from counterpoise.data.sources.base import UNLABELED, Splits
from counterpoise.engine.assemble import assemble, evaluation_loader
from counterpoise.engine.parts import Parts
from counterpoise.engine.processes import join
from counterpoise.errors import ConfigError
from counterpoise.models import catalog
from counterpoise.models.network import VisionModel
from counterpoise.system import torchvision_guard
from counterpoise.tasks.classification import ClassificationReport, TopScore

Run = Callable[..., tuple[int, str, str]]


def squares(height: int, width: int, edge: int = 16) -> ArraySet:
    """Black pictures with a white square in the middle."""
    images = torch.zeros(8, 3, height, width, dtype=torch.uint8)
    top, left = (height - edge) // 2, (width - edge) // 2
    images[..., top : top + edge, left : left + edge] = 255
    return ArraySet(images, torch.arange(8) % 2, ["a", "b"])


def parts_of(images: ArraySet, **data: Any) -> tuple[Parts, config.Run]:
    """A run on these images with a student and a teacher of timm: input 160, crop_pct 0.95."""
    run = config.resolve(
        {
            "data": {"workers": 0, **data},
            "student": {"model": "timm/test_resnet"},
            "teacher": {},
            "train": {"batch_size": 4, "device": "cpu", "precision": "fp32"},
        }
    )
    teacher = catalog.build("timm/test_resnet", num_classes=2, classes=("a", "b"))
    with join("cpu") as processes:
        parts = assemble(run, processes, teacher=teacher, data=Splits(images, images))
        assert parts.teacher is not None
        parts.val.teacher_too = evaluation_loader(images, parts.teacher.model, run, processes)  # type: ignore[attr-defined]
    return parts, run


def extent(model: VisionModel, images: Tensor) -> tuple[int, int]:
    """Height and width of what is white in the first picture as the network itself gets it."""
    seen = model.normalize(images[:1])[0, 0]
    white = seen > (seen.max() + seen.min()) / 2
    return int(white.any(1).sum()), int(white.any(0).sum())


@pytest.mark.parametrize(("height", "width"), [(32, 32), (24, 48), (48, 24)])
@pytest.mark.parametrize("fit", ["crop", "squash", "pad"])
def test_small_images_are_as_large_in_evaluation_as_in_training(height: int, width: int, fit: str) -> None:
    parts, _ = parts_of(squares(height, width), fit=fit, views={"crop": "none", "flip": False})
    assert parts.teacher is not None
    shown = next(parts.train.epoch(0)).images
    for model, loader in ((parts.student, parts.val), (parts.teacher.model, parts.val.teacher_too)):  # type: ignore[attr-defined]
        trained, evaluated = extent(model, shown), extent(model, next(iter(loader)).images)
        assert max(abs(one - other) for one, other in zip(trained, evaluated, strict=True)) <= 1
        assert (model.crop_share, model.whole) == (1.0, True)
    square = height == width
    assert parts.student.fit == (fit if square or fit == "pad" else "squash")


def test_images_that_training_zooms_into_keep_the_crop_of_published_weights() -> None:
    parts, _ = parts_of(squares(80, 80), views={"crop": "resized"})
    assert (parts.student.crop_share, parts.student.whole, parts.student.fit) == (0.95, False, "crop")


def test_whole_pictures_at_a_size_of_their_own_are_evaluated_at_that_scale() -> None:
    parts, _ = parts_of(squares(100, 130, 40), size=160, views={"crop": "pad", "padding": 0, "flip": False})
    shown = next(parts.train.epoch(0)).images
    assert extent(parts.student, shown) == extent(parts.student, next(iter(parts.val)).images) == (64, 64)


def test_a_network_of_any_size_predicts_at_the_size_that_it_was_trained_at() -> None:
    run = config.resolve(
        {
            "data": {"size": 16, "workers": 0},
            "student": {"model": "digits/cnn_4_8"},
            "objective": {"cross_entropy": {"weight": 1}},
            "train": {"device": "cpu", "precision": "fp32"},
        }
    )
    images = squares(32, 48)
    with join("cpu") as processes:
        parts = assemble(run, processes, data=Splits(images, images))
    student = parts.student.eval()
    (answer,) = tasks.get("classification").predict(student, [images.read(0).permute(1, 2, 0).numpy()])
    with torch.inference_mode():
        logits = student(next(iter(parts.val)).images[:1])
    assert answer["probability"] == pytest.approx(float(logits.softmax(1).max()), abs=1e-6)


def ends(root: Path) -> Path:
    """Pictures of 128 x 32 whose classes differ at the left end alone."""
    rng = np.random.default_rng(0)
    for half, count in (("train", 24), ("val", 6)):
        for name, color in (("blue", (30, 30, 220)), ("red", (220, 30, 30))):
            (root / half / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.normal(200, 20, (32, 128, 3)).clip(0, 255).astype(np.uint8)
                pixels[8:24, 4:20] = color
                Image.fromarray(pixels).save(root / half / name / f"{number:02d}.png")
    return root


@pytest.mark.parametrize("fit", ["crop", "squash", "pad"])
def test_what_lies_at_the_end_of_a_wide_picture_is_seen_where_all_of_it_is_shown(
    tmp_path: Path, run: Run, fit: str
) -> None:
    root = ends(tmp_path / "ends")
    options = ("--student.model", "cifar/resnet8", "--data.workers", "0", "--train.epochs", "8")
    options += ("--train.batch_size", "16", "--train.precision", "fp32", "--train.device", "cpu")
    code, _, err = run("train", "--data", root, "--data.fit", fit, "--out", "mine", *options)
    assert code == 0, err
    told = "leaves out 75% of their area (the most extreme is 128 x 32): --data.fit squash or --data.fit pad"
    assert (told in err) == (fit == "crop")
    described = json.loads((tmp_path / "mine/student/student.json").read_text())
    assert described["input"]["fit"] == fit
    own = described["metrics"]["last"]["top1"]
    assert own == 100 if fit != "crop" else own <= 75
    code, out, _ = run("evaluate", "mine", "--json")
    assert json.loads(out)["top1"] == own
    files = sorted((root / "val").glob("*/*.png"))
    code, out, _ = run("predict", *files, "--student", "mine", "--json")
    right = [answer["class"] == file.parent.name for answer, file in zip(json.loads(out), files, strict=True)]
    assert 100 * sum(right) / len(right) == own


def test_scenes_are_shown_whole_so_fit_is_refused() -> None:
    run = config.resolve({"task": "segmentation", "data": {"source": "digit_scenes", "fit": "pad"}})
    with pytest.raises(ConfigError, match="scenes are shown whole, got pad"):
        tasks.get(run.task).ready(catalog.build("cifar/resnet8", num_classes=2), run)


def test_scenes_are_decoded_in_full_so_scaled_decoding_is_refused() -> None:
    run = config.resolve({"task": "segmentation", "data": {"source": "digit_scenes", "views": {"decode": "scaled"}}})
    with pytest.raises(ConfigError, match=r"data\.views\.decode: scaled is for photos without masks"):
        tasks.get(run.task).ready(catalog.build("cifar/resnet8", num_classes=2), run)


@pytest.mark.parametrize("name", ["overlays", "base", "clasification"])
def test_what_is_no_task_is_refused_with_those_that_are(name: str) -> None:
    with pytest.raises(
        ConfigError,
        match=f"Task '{name}' is unknown.*classification, multilabel, multilabel_segmentation, segmentation",
    ):
        tasks.get(name)


def test_the_report_is_that_of_torchmetrics_with_classes_that_nobody_has_or_answers() -> None:
    torchvision_guard.ready()  # torchmetrics imports torchvision
    from torchmetrics.functional import classification as other

    draw = torch.Generator().manual_seed(0)
    logits, target = torch.randn(200, 7, generator=draw), torch.randint(5, (200,), generator=draw)
    logits[:, 6] = -20.0  # class 5 is answered and never there, class 6 neither
    target[:3] = UNLABELED
    report = ClassificationReport([f"class {number}" for number in range(7)])
    for part in (slice(0, 2), slice(2, 90), slice(90, 200)):  # the first has no label
        report.update(logits[part], target[part])
    values, known, truth = report.values(), logits[3:].softmax(1), target[3:]
    assert values["images"] == 197
    assert values["macro_f1"] == pytest.approx(100 * other.multiclass_f1_score(known, truth, 7).item())
    assert values["calibration_error"] == pytest.approx(
        other.multiclass_calibration_error(known, truth, 7, n_bins=15).item(), abs=1e-6
    )
    for name in ("precision", "recall", "f1_score"):
        expected = getattr(other, f"multiclass_{name}")(known, truth, 7, average="none")
        found = [row[name.removesuffix("_score")] for row in values["per_class"]]
        assert found == pytest.approx((100 * expected).tolist())
    assert [row["images"] for row in values["per_class"]] == truth.bincount(minlength=7).tolist()
    recalls = [row["recall"] for row in values["per_class"] if row["images"]]
    assert values["balanced_accuracy"] == pytest.approx(sum(recalls) / len(recalls))


@pytest.mark.parametrize("step", [0.0, 2.0])
def test_of_equal_logits_every_figure_takes_the_first(step: float) -> None:
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(400, 10, generator=draw).mul(step).round()
    target = torch.randint(10, (400,), generator=draw) if step else torch.zeros(400, dtype=torch.int64)
    report = ClassificationReport([str(number) for number in range(10)])
    report.update(logits, target)
    values, score = report.values(), TopScore(10)
    right = 100 * (logits.argmax(1) == target).double().mean().item()
    assert values["top1"] == pytest.approx(right)
    assert sum(row["recall"] * row["images"] for row in values["per_class"]) / len(logits) == pytest.approx(right)
    among_five = (logits.argsort(descending=True, stable=True)[:, :5] == target[:, None]).any(1)
    assert values["top5"] == pytest.approx(100 * among_five.double().mean().item())
    assert score.of_each(logits, target)[:, 0].sum() == pytest.approx(right * len(logits) / 100)


def test_a_picture_with_equal_logits_is_of_the_first_class_and_names_the_others_in_order() -> None:
    model = catalog.build("digits/cnn_4_8", num_classes=7, classes=tuple("abcdefg"))
    for weight in model.parameters():
        torch.nn.init.zeros_(weight)
    (answer,) = tasks.get("classification").predict(model.eval(), [np.zeros((8, 8, 3), np.uint8)])
    assert [one["class"] for one in answer["top"]] == list("abcde")
