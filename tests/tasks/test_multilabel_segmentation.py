"""Questions about pixels, from end to end: what is learned, scored, chosen, painted, exported and refused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import counterpoise
from counterpoise import config, tasks
from counterpoise.data import sources
from counterpoise.data.sources.arrays import ArraySet
from counterpoise.data.sources.base import Splits
from counterpoise.data.sources.questions import answers_of, asked
from counterpoise.deploy import runner
from counterpoise.engine import remarks
from counterpoise.engine.trainer import Result
from counterpoise.errors import ConfigError, CounterpoiseError, DataError, ModelError
from counterpoise.tasks import painting
from counterpoise.tasks.confusion import upsample

Run = Callable[..., tuple[int, str, str]]
QUESTIONS = {"round": ["0", "6", "8", "9"], "even one": ["0", "2", "4", "6", "8"]}
DATA = {"source": "digit_scenes", "options": {"train_size": 24, "val_size": 6, "edge": 32}, "questions": QUESTIONS}


def values(out: Path, **changed: Any) -> dict[str, Any]:
    """A run file's values: two epochs of three steps, in this process."""
    common: dict[str, Any] = {
        "task": "multilabel_segmentation",
        "out": out,
        "data": {**DATA, "workers": 0},
        "student": {"model": "digits/unet_4_8"},
        "train": {"epochs": 2, "batch_size": 8, "precision": "fp32", "device": "cpu", "log_every": 1},
    }
    return config.merge(common, changed)


@pytest.fixture(scope="session")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Result:
    scores = ["case_dice", "auroc:round", "iou"]
    return counterpoise.train(values(tmp_path_factory.mktemp("taught") / "run", train={"scores": scores}))


@pytest.fixture(scope="session")
def student(taught: Result, tmp_path_factory: pytest.TempPathFactory) -> Result:
    teacher = {"checkpoint": str(taught.folder), "accept_chance": True}
    terms = ("binary_cross_entropy", "binary_balance", "dice", "lovasz_hinge", "cwd")
    objective = {name: {"weight": 1.0} for name in terms}
    return counterpoise.distill(
        values(tmp_path_factory.mktemp("student") / "run", teacher=teacher, objective=objective)
    )


@pytest.fixture(scope="session")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first scene of val."""
    path = tmp_path_factory.mktemp("picture") / "scene.png"
    Image.fromarray(sources.load(config.Data(**DATA)).val.read(0).permute(1, 2, 0).numpy()).save(path)
    return path


def test_a_run_that_names_no_terms_learns_by_sigmoids_and_others_are_shown_questions(
    taught: Result, student: Result
) -> None:
    def terms(result: Result) -> list[str]:
        lines = [json.loads(line) for line in (result.folder / "metrics.jsonl").read_text().splitlines()]
        return list(next(line["terms"] for line in lines if line["kind"] == "step"))

    assert terms(taught) == ["binary_cross_entropy"]
    balance = ["binary_balance/forward", "binary_balance/reverse"]
    assert terms(student) == ["binary_cross_entropy", *balance, "dice", "lovasz_hinge", "cwd"]
    assert counterpoise.load_student(student.folder).num_classes == len(QUESTIONS)


def test_pictures_without_masks_follow_the_teachers_word_live_and_stored(taught: Result, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    for number in range(4):
        Image.effect_noise((32, 32), 80 + number).convert("RGB").save(tmp_path / "more" / f"{number}.png")
    teacher = {"checkpoint": str(taught.folder), "accept_chance": True}
    data = {"unlabeled": tmp_path / "more", "options": {"train_size": 8}}
    objective = {"binary_cross_entropy": {}, "binary_balance": {}, "cwd": {}}
    train = {"epochs": 1, "batch_size": 1}
    run = values(tmp_path / "live", data=data, teacher=teacher, objective=objective, train=train)
    silent = config.merge(run, {"objective": {"binary_balance": {"ignore_index": 255}}})
    steps = []
    counterpoise.record(run, out=tmp_path / "store", precision="float32")
    for given in (run, {**run, "teacher": {"store": str(tmp_path / "store")}, "out": tmp_path / "stored"}):
        steps.append([line["terms"] for line in _lines(counterpoise.distill(given).folder)])
    for live, stored in zip(*steps, strict=True):
        assert stored == pytest.approx(live, rel=1e-3)
    assert sum(terms["binary_cross_entropy"] == 0 for terms in steps[0]) == 4
    assert all(terms["binary_balance/forward"] > 0 and terms["cwd"] > 0 for terms in steps[0])
    said = [list(remarks.of_photos_without_labels(config.resolve(one), taught=True)) for one in (run, silent)]
    assert said[0] == []
    assert "binary_balance these pictures teach nothing" in said[1][0]


def _lines(folder: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in found if line["kind"] == "step"]


@pytest.mark.parametrize("epoch", ["last", "best"])
def test_evaluation_finds_the_scores_of_the_run_at_the_thresholds_of_that_epoch(student: Result, epoch: Any) -> None:
    report = counterpoise.evaluate(student.folder, epoch=epoch, device="cpu")
    scores = student.last if epoch == "last" else student.best
    assert report["map"] == scores["map"]
    assert report["dice"] == pytest.approx(scores["max_dice"], abs=0.05)
    stored = json.loads((student.folder / "student" / "student.json").read_text())["thresholds"][epoch]
    assert [row["threshold"] for row in report["per_class"]] == stored
    assert "chosen on the validation images" in report["notes"][0]


def test_scores_by_case_are_told_while_training_as_evaluation_finds_them(taught: Result, tmp_path: Path) -> None:
    report = counterpoise.evaluate(taught.folder, device="cpu", scores=["auroc"])
    by_case = {row["score"]: row for row in report["by_case"]["scores"]}
    assert taught.last["case_dice"] == pytest.approx(by_case["dice"]["mean"], abs=0.05)
    assert taught.last["iou"] == pytest.approx(report["iou"], abs=0.05)
    assert taught.last["auroc:round"] == pytest.approx(report["per_class"][0]["auroc"], abs=1e-6)
    for name, message in (("case_hd95", "evaluate --scores hd95 has it"), ("dice:cup", "Question 'cup' is unknown")):
        with pytest.raises(ConfigError, match=f"train.scores: {name}: .*{message}"):
            counterpoise.train(values(tmp_path / "run", train={"scores": [name]}))


def test_painted_masks_and_probabilities_are_those_of_the_network(
    student: Result, taught: Result, picture: Path, tmp_path: Path, run: Run
) -> None:
    network = counterpoise.load_student(student.folder)
    pixels = torch.from_numpy(np.array(Image.open(picture))).permute(2, 0, 1)
    with torch.inference_mode():
        expected = upsample(network(pixels[None]), (32, 32))[0].sigmoid().numpy()
    common = ("predict", picture, "--student", student.folder, "--json")
    for kind, ending in (("png", "png"), ("tiff", "tif")):
        out = tmp_path / kind
        code, text, _ = run(*common, "--out", out, "--probabilities", kind, "--beside.teacher", taught.folder)
        (answer,) = json.loads(text)
        assert code == 0
        for name, layer, least in zip(("round", "even-one"), expected, network.thresholds or (), strict=True):
            mask = np.asarray(Image.open(out / f"scene-{name}-mask.png"))
            assert np.array_equal(mask, 255 * (layer >= least))
            soft = np.asarray(Image.open(out / f"scene-{name}-probability.{ending}"))
            assert soft.dtype == (np.uint16 if kind == "png" else np.float32)
            np.testing.assert_allclose(soft / (65535 if kind == "png" else 1), layer, atol=1e-5)
            shares = {row["class"]: row["share"] for row in answer["classes"]}
            assert shares.get(name.replace("-", " "), 0.0) == pytest.approx((mask > 0).mean())
        assert Image.open(answer["overlay"]).width > 3 * Image.open(picture).width
    code, _, error = run(*common, "--out", tmp_path / "png")
    assert (code, "is there already" in error) == (2, True)
    code, _, error = run(*common, "--probabilities", "png")
    assert (code, error) == (2, "Error: There is no folder for the probabilities: give out (--out).\n")


def test_a_softmax_has_probabilities_too(student: Result, tmp_path: Path, picture: Path) -> None:
    data = {**DATA, "questions": None}
    result = counterpoise.train(values(tmp_path / "run", task="segmentation", data=data, train={"epochs": 1}))
    (answer,) = counterpoise.predict([picture], result.folder, out=tmp_path / "out", probabilities="tiff")
    layers = [np.asarray(Image.open(path)) for path in answer["probabilities"].values()]
    np.testing.assert_allclose(np.sum(layers, 0), 1.0, atol=1e-5)
    assert np.array_equal(np.argmax(layers, 0), np.asarray(Image.open(answer["mask"])))
    with pytest.raises(ModelError, match="'questions' answers in 2 classes"):
        counterpoise.predict([picture], result.folder, out=tmp_path / "two", beside={"questions": student.folder})


def test_an_export_keeps_thresholds_and_its_runner_paints_what_predict_does(
    student: Result, picture: Path, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    made = counterpoise.export(student.folder, to="onnx", out=tmp_path / "onnx")
    assert made["agreement"]["same"] == 100.0
    assert made["agreement"]["metric"] == "map"
    assert tuple(made["thresholds"]) == counterpoise.load_student(student.folder).thresholds
    command = [sys.executable, tmp_path / "onnx" / "run.py", picture, "--out", tmp_path / "mask.png", "--probabilities"]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    (answer,) = counterpoise.predict([picture], student.folder, out=tmp_path / "out", probabilities="png")
    assert [line.split("  ")[-1] for line in told.splitlines()] == list(QUESTIONS)
    for name in ("round", "even-one"):
        own, other = (
            np.asarray(Image.open(path))
            for path in (tmp_path / f"{name}-mask.png", tmp_path / f"out/scene-{name}-mask.png")
        )
        assert np.array_equal(own, other)
        soft, same = (
            np.asarray(Image.open(path)).astype(float)
            for path in (tmp_path / f"{name}-probability.png", answer["probabilities"][name.replace("-", " ")])
        )
        assert np.abs(soft - same).max() <= 2
    about = json.loads((tmp_path / "onnx" / "export.json").read_text())
    alone = [tmp_path / "alone-round.png", tmp_path / "alone-even.png"], list[Path]()
    assert len(runner.write_yes(np.zeros((2, 8, 8), np.float32), about, Image.open(picture), alone)) == 2  # masks alone
    assert all(path.is_file() for path in alone[0])
    assert runner.files_of(tmp_path / "mask.png", about, True) == (
        [tmp_path / f"{name}-mask.png" for name in ("round", "even-one")],
        [tmp_path / f"{name}-probability.png" for name in ("round", "even-one")],
    )
    assert painting.parts(counterpoise.load_student(student.folder)) == ["round", "even-one"]


def test_the_report_shows_questions_with_pictures(student: Result, run: Run) -> None:
    code, _, error = run("report", student.folder, "--overwrite")
    page = (student.folder / "report.html").read_text(encoding="utf-8")
    assert code == 0, error
    assert "each pixel a yes or a no of 2 questions" in page
    assert "even one" in page
    assert "difference: both are wrong" in page
    assert "mean Dice of this picture" in page


def test_a_teacher_and_a_student_agree_where_both_say_the_same_of_a_pixel() -> None:
    task = tasks.get("multilabel_segmentation")
    one = torch.tensor([[1.0, -1.0], [2.0, 3.0]]).view(1, 2, 1, 2)
    other = torch.tensor([[1.0, 1.0], [-2.0, 3.0]]).view(1, 2, 1, 2)
    assert task.agreeing(one, other, torch.zeros(1, 2, 1, 2)) == (2, 4)
    student, teacher, target = task.alike(one, other, torch.zeros(1, 2, 2, 4, dtype=torch.int8))
    assert target is not None
    assert student.shape == teacher.shape == target.shape


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        ({"cross_entropy": {}}, "each class is a question of its own. Instead: binary_cross_entropy"),
        ({"dice": {"sigmoid": False}}, "sigmoid: false takes the classes for alternatives"),
        ({"lovasz_softmax": {"sigmoid": False}}, "leave sigmoid out, it is true here"),
        ({"binary_cross_entropy": {}, "balance": {}}, "objective.balance.*Instead: binary_balance"),
        ({"binary_cross_entropy": {}, "cirkd": {}}, "objective.cirkd"),
    ],
)
def test_losses_of_a_softmax_are_refused(objective: dict[str, Any], message: str, tmp_path: Path) -> None:
    values_of = {name: {"weight": 1.0, **given} for name, given in objective.items()}
    with pytest.raises(ConfigError, match=message):
        counterpoise.distill(values(tmp_path / "run", objective=values_of, teacher={"model": "digits/unet_4_8"}))


def test_masks_without_questions_questions_without_their_task_and_photos_are_refused(run: Run, tmp_path: Path) -> None:
    plain = values(tmp_path / "run", data={"questions": None})
    with pytest.raises(ConfigError, match=r"task multilabel_segmentation answers questions: say which, as in --data\."):
        counterpoise.train(plain)
    with pytest.raises(ConfigError, match=r"set task: multilabel_segmentation, or leave out data\.questions"):
        counterpoise.train(values(tmp_path / "run", task="segmentation"))
    flags = ("--task", "multilabel_segmentation", "--student.model", "digits/unet_4_8", "--out", tmp_path / "run")
    code, _, error = run("train", *flags, "--data.source", "digits")
    assert (code, "learns from masks, and the data holds none" in error) == (2, True)


def _scenes(last: int) -> Splits:
    """Masks that hold the classes 0 to `last` of three."""
    masks = (torch.arange(16) % (last + 1)).to(torch.uint8).view(1, 4, 4).repeat(8, 1, 1)
    images = ArraySet.of_scenes(torch.zeros(8, 3, 4, 4, dtype=torch.uint8), masks, ("ground", "rim", "cup"))
    return Splits(*(asked(images.subset(torch.arange(4)), {"disc": ["rim", "cup"], "cup": ["cup"]}) for _ in range(2)))


def test_a_question_that_no_training_pixel_is_a_yes_of_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No pixel in the training masks of the data is a yes of 'cup'"):
        counterpoise.train(values(tmp_path / "run", data={"questions": None}), data=_scenes(1))


def test_crops_are_laid_on_what_is_a_yes_of_the_questions_that_are_named() -> None:
    task, images = tasks.get("multilabel_segmentation"), _scenes(2).train
    assert images.questions is not None

    def chosen(*names: str) -> tuple[int, ...]:
        found: Any = task.foreground(config.Scenes(foreground=0.5, foreground_classes=names), images)  # type: ignore[attr-defined]
        return tuple(found.classes)

    assert [chosen(), chosen("cup")] == [(1, 2), (2,)]
    with pytest.raises(ConfigError, match="Question 'rim' is unknown"):
        chosen("rim")


def test_a_teacher_of_a_softmax_is_refused(tmp_path: Path) -> None:
    data = {**DATA, "questions": None}
    other = counterpoise.train(values(tmp_path / "softmax", task="segmentation", data=data, train={"epochs": 1}))
    with pytest.raises(CounterpoiseError, match=r"softmax|classes"):
        counterpoise.distill(values(tmp_path / "run", teacher={"checkpoint": str(other.folder)}))


def test_one_logit_is_enough_for_object_or_not(tmp_path: Path) -> None:
    run = values(tmp_path / "run", train={"epochs": 1})
    run["data"]["questions"] = {"digit": [str(number) for number in range(10)]}
    result = counterpoise.train(run)
    network = counterpoise.load_student(result.folder)
    assert (network.num_classes, network.classes) == (1, ("digit",))
    assert network.thresholds is not None
    assert {row["class"] for row in counterpoise.evaluate(result.folder, device="cpu")["per_class"]} == {"digit"}


def test_answers_of_masks_are_what_views_are_trained_on() -> None:
    splits = sources.load(config.Data(**DATA))
    task = tasks.get("multilabel_segmentation")
    run = config.resolve({"task": task.name, "data": {**DATA, "scenes": {"size": (32, 32)}, "workers": 0}})
    loader = task.train_loader(splits.train, run, num_classes=2, share=tasks.Share(), device=torch.device("cpu"))
    batch = next(iter(loader.epoch(0)))
    assert (batch.target.dtype, batch.target.shape) == (torch.int8, (len(batch.images), 2, 32, 32))
    plain = sources.load(config.Data(**{**DATA, "questions": None}))
    other = tasks.get("segmentation").train_loader(
        plain.train, run, num_classes=11, share=tasks.Share(), device=torch.device("cpu")
    )
    codes = next(iter(other.epoch(0)))
    assert torch.equal(codes.images, batch.images)
    assert splits.train.questions is not None
    assert torch.equal(answers_of(splits.train.questions, codes.target), batch.target)
