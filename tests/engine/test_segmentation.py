"""Runs of segmentation from end to end: what they learn from, resume, share between processes, keep and refuse."""

from __future__ import annotations

import gc
import json
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

import counterpoise
from counterpoise import config, tasks
from counterpoise.data import sources
from counterpoise.data.class_weights import frequency_weights
from counterpoise.data.sources.arrays import ArraySet
from counterpoise.data.sources.base import IGNORE, Splits
from counterpoise.engine.trainer import Result
from counterpoise.errors import ConfigError, CounterpoiseError, DataError, ModelError, ObjectiveError, StoreError
from counterpoise.models.network import SceneView
from counterpoise.objectives.cross_entropy import CrossEntropy
from counterpoise.objectives.kernels import blocks

KILLS = 4
SMALL = {"train_size": 24, "val_size": 6, "edge": 32}
OWN = """
from torch import nn


class Coarse(nn.Sequential):
    '''A quarter of the resolution, without batch statistics.'''

    def __init__(self, num_classes=11):
        super().__init__(
            nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, num_classes, 1)
        )


def whole(num_classes=11):
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes))
"""


def values(out: Path, **changed: Any) -> dict[str, Any]:
    """A run file's values: two epochs of three steps, in this process."""
    common: dict[str, Any] = {
        "task": "segmentation",
        "out": out,
        "data": {"source": "digit_scenes", "options": SMALL, "workers": 0},
        "student": {"model": "digits/unet_4_8"},
        "train": {"epochs": 2, "batch_size": 8, "precision": "fp32", "device": "cpu", "log_every": 1},
    }
    return config.merge(common, changed)


def lines(folder: Path, kind: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in found if line["kind"] == kind]


def scenes() -> Splits:
    return sources.load(config.Data(source="digit_scenes", options=SMALL))


@pytest.fixture(scope="session")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("own") / "networks.py"
    path.write_text(OWN)
    return path


@pytest.fixture(scope="session")
def taught(own: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A teacher whose logits have another stride than the student's."""
    out = tmp_path_factory.mktemp("teacher") / "run"
    return counterpoise.train(values(out, student={"model": f"{own}:Coarse"}, train={"epochs": 4}))


@pytest.fixture(scope="session")
def teacher(own: Path, taught: Result) -> dict[str, Any]:
    return {"model": f"{own}:Coarse", "checkpoint": taught.folder, "accept_chance": True}


def test_a_run_tells_further_scores_and_picks_its_best_epoch_by_one(tmp_path: Path) -> None:
    asked = {"scores": ["case_assd", "case_dice", "recall:background"], "best_by": "case_assd", "epochs": 3}
    result = counterpoise.train(values(tmp_path / "run", train=asked))
    told = {line["epoch"] + 1: line["val"] for line in lines(tmp_path / "run", "epoch")}
    assert set(told[1]) == {"miou", "dice", "pixel_accuracy", *asked["scores"]}
    assert result.best["epoch"] == min(told, key=lambda epoch: told[epoch]["case_assd"])
    report = counterpoise.evaluate(tmp_path / "run", scores=["assd"], epoch="last")
    means = {row["score"]: row["mean"] for row in report["by_case"]["scores"]}
    assert result.last["case_assd"] == pytest.approx(means["assd"])
    assert result.last["case_dice"] == pytest.approx(means["dice"])
    assert result.last["recall:background"] == pytest.approx(report["per_class"][0]["recall"])
    usual = counterpoise.train(values(tmp_path / "usual", train={"epochs": 3}))
    assert {name: usual.last[name] for name in usual.last} == {name: result.last[name] for name in usual.last}
    for train, message in (
        ({"scores": ["case_dise"]}, r"train.scores: .*Did you mean 'case_dice'"),
        ({"scores": ["dice:vessel"]}, r"train.scores: dice:vessel: Class 'vessel' is unknown"),
        ({"scores": ["hd95:background"]}, "Class 'background' is unknown"),
        ({"scores": ["auroc"]}, "auroc is for two classes, and there are 11"),
        ({"best_by": "hd95"}, "train.best_by: hd95 is not told"),
    ):
        with pytest.raises(ConfigError, match=message):
            counterpoise.train(values(tmp_path / "refused", train=train))


def test_training_learns_and_evaluation_agrees(tmp_path: Path) -> None:
    rate = {"learning_rate": 0.1}
    result = counterpoise.train(values(tmp_path / "run", train={"epochs": 12, "optimizer": rate}))
    first, *_, last = lines(result.folder, "step")
    assert last["loss"] < 0.7 * first["loss"]
    assert result.best["miou"] > 5
    report = counterpoise.evaluate(result.folder)
    assert report["miou"] == pytest.approx(result.last["miou"])
    assert report["pixel_accuracy"] == pytest.approx(result.last["pixel_accuracy"])
    assert (report["images"], report["corrupt"]) == (6, [])
    assert sum(map(sum, report["confusion_matrix"])) == 6 * 32 * 32
    assert counterpoise.evaluate(result.folder, batch_size=1)["confusion_matrix"] == report["confusion_matrix"]


TERMS: dict[str, dict[str, Any]] = {
    "cross_entropy": {},
    "dice": {},
    "binary_cross_entropy": {},
    "balance": {},
    "forward_kl": {},
    "dist": {},
    "cwd": {},
    "skd": {"teacher_feature": "3"},
    "ifvd": {"teacher_feature": "3"},
    "cirkd": {"teacher_feature": "3", "pixel_memory": 64, "region_memory": 16},
}


@pytest.mark.parametrize("name", TERMS)
def test_every_dense_objective_teaches(name: str, teacher: dict[str, Any], tmp_path: Path) -> None:
    terms = {name: TERMS[name], **({} if name in ("balance", "forward_kl") else {"reverse_kl": {"weight": 0.0}})}
    run = values(tmp_path / "run", teacher=teacher, objective=terms, train={"epochs": 1, "ema": 0.5})
    result = counterpoise.distill(run)
    steps = lines(result.folder, "step")
    assert len(steps) == 3
    moved = {part: value for part, value in steps[0]["terms"].items() if part.partition("/")[0] == name}
    assert all(value > 0 for value in moved.values())
    assert sum(steps[-1]["terms"].values()) == pytest.approx(steps[-1]["loss"])
    assert result.teacher["miou"] > 0


def test_resolutions_differ_in_the_teachers_word_alone(teacher: dict[str, Any], tmp_path: Path) -> None:
    first = []
    for resolution in ("full", "logits"):
        scene = {"scenes": {"resolution": resolution}}
        run = values(tmp_path / resolution, teacher=teacher, data=scene, train={"epochs": 1})
        first.append(lines(counterpoise.distill(run).folder, "step")[0]["terms"])
    assert first[0]["cross_entropy"] == pytest.approx(first[1]["cross_entropy"], rel=1e-6)
    assert first[0]["balance/forward"] != first[1]["balance/forward"]
    assert first[0]["balance/forward"] == pytest.approx(first[1]["balance/forward"], rel=0.3)


def test_the_gauge_compares_both_sides_at_the_students_resolution(teacher: dict[str, Any], tmp_path: Path) -> None:
    result = counterpoise.distill(values(tmp_path / "run", teacher=teacher))
    kept = lines(result.folder, "epoch")[-1]["gauge"]
    again = counterpoise.gauge(result.folder, teacher=teacher)
    assert again["positions"] == 6 * 16 * 16
    for key in ("forward_kl", "reverse_kl"):
        assert kept[key] == pytest.approx(again[key], rel=1e-4)
        assert kept[key] > 0


def test_a_store_holds_views_that_are_turned_and_bent_and_serves_no_others(
    teacher: dict[str, Any], tmp_path: Path
) -> None:
    varied = {"rotate": 45.0, "elastic": {"strength": 3, "spacing": 8}, "flip_vertical": True, "noise": 0.1}
    run = values(tmp_path / "live", teacher=teacher, data={"scenes": varied}, train={"epochs": 1})
    live = counterpoise.distill(run)
    counterpoise.record(run, out=tmp_path / "store", precision="float32")
    from_store = {**run, "teacher": {"store": str(tmp_path / "store")}, "out": tmp_path / "stored"}
    stored = counterpoise.distill(from_store)
    both = [lines(one.folder, "step")[-1]["terms"] for one in (live, stored)]
    assert both[0] == pytest.approx(both[1], rel=1e-5)
    run = values(tmp_path / "plain", teacher=from_store["teacher"], train={"epochs": 1})
    with pytest.raises(StoreError, match="rotate"):
        counterpoise.distill(run)
    counterpoise.record({**from_store, "teacher": teacher}, out=tmp_path / "still", views="plain")
    assert not varied.keys() & json.loads((tmp_path / "still" / "index.json").read_text())["views"].keys()


class Recording(nn.Module):
    """Remembers the sizes of what it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 11, 3, 2, 1)
        self.seen: dict[bool, set[tuple[int, int]]] = {True: set(), False: set()}

    def forward(self, pixels: Tensor) -> Tensor:
        self.seen[self.training].add((pixels.shape[-2], pixels.shape[-1]))
        logits: Tensor = self.layer(pixels)
        return logits


def test_reduction_and_window_hold_in_training_and_are_kept_with_the_student(own: Path, tmp_path: Path) -> None:
    net = Recording()
    shown = {"scenes": {"reduction": 2.0, "window": [10, 12]}}
    counterpoise.train(values(tmp_path / "seen", data=shown), student=net)
    assert net.seen[True] == {(16, 16)}
    assert (10, 12) in net.seen[False]
    assert (16, 16) not in net.seen[False]
    asked = Recording()
    counterpoise.train(values(tmp_path / "asked", data={"scenes": {"size": [8, 20]}}), student=asked)
    assert asked.seen[True] == {(8, 20)}
    assert (32, 32) in asked.seen[False]

    result = counterpoise.train(values(tmp_path / "run", data=shown))
    description = json.loads((result.folder / "student" / "student.json").read_text())
    assert (description["input"]["reduction"], description["input"]["window"]) == (2.0, [10, 12])
    assert counterpoise.load_student(result.folder).scenes == SceneView(2.0, (10, 12))
    report = counterpoise.evaluate(result.folder / "student", {"data": values(tmp_path)["data"]})
    assert report["miou"] == pytest.approx(result.last["miou"])
    description["input"] |= {"reduction": 1.0, "window": None}
    (result.folder / "student" / "student.json").write_text(json.dumps(description))
    assert counterpoise.evaluate(result.folder)["confusion_matrix"] != report["confusion_matrix"]
    # as in student folders of before
    del description["input"]["reduction"], description["input"]["window"]
    (result.folder / "student" / "student.json").write_text(json.dumps(description))
    assert counterpoise.load_student(result.folder).scenes == SceneView()


def test_a_teacher_is_shown_scenes_as_it_was_trained_and_the_student_as_the_run_says(tmp_path: Path) -> None:
    whole = counterpoise.train(values(tmp_path / "teacher", train={"epochs": 1}))
    run = values(
        tmp_path / "run",
        teacher={"checkpoint": whole.folder, "accept_chance": True},
        student={"model": "digits/unet_4_4"},
        data={"scenes": {"reduction": 2.0}},
        train={"epochs": 1},
    )
    result = counterpoise.distill(run)
    assert result.teacher["miou"] == pytest.approx(whole.last["miou"])
    assert lines(result.folder, "epoch")[-1]["gauge"]["forward_kl"] > 0


def test_photos_without_masks_follow_the_teachers_word(teacher: dict[str, Any], tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(5):
        Image.effect_noise((40 + number, 30), 80).convert("RGB").save(photos / f"{number}.png")
    data = {"unlabeled": photos, "scenes": {"size": [24, 24]}}
    run = values(tmp_path / "run", teacher=teacher, data=data, train={"batch_size": 1, "epochs": 1})
    result = counterpoise.distill(run)
    steps = lines(result.folder, "step")
    assert len(steps) == 29
    assert sum(step["terms"]["cross_entropy"] == 0 for step in steps) == 5
    assert all(step["terms"]["balance/forward"] > 0 for step in steps)
    counterpoise.record(run, out=tmp_path / "store", precision="float32")
    stored = counterpoise.distill({**run, "teacher": {"store": str(tmp_path / "store")}, "out": tmp_path / "stored"})
    for live, read in zip(steps, lines(stored.folder, "step"), strict=True):
        assert read["terms"] == pytest.approx(live["terms"], rel=1e-4)
    with pytest.raises(ConfigError, match=r"data\.scenes\.size is missing"):
        counterpoise.distill(values(tmp_path / "no", teacher=teacher, data={"unlabeled": photos}))


def test_class_weights_by_frequency_are_those_of_the_training_masks(tmp_path: Path) -> None:
    train = scenes().train
    assert isinstance(train, ArraySet)
    run = config.resolve(values(tmp_path / "run", objective={"cross_entropy": {"class_weight": "frequency"}}))
    term = tasks.get("segmentation").objective(run, train).objective("cross_entropy")
    assert isinstance(term, CrossEntropy)
    assert term.class_weight == tuple(frequency_weights(train).tolist())
    assert len(set(term.class_weight)) > 5
    adjusted = config.resolve(values(tmp_path / "run", objective={"cross_entropy": {"class_prior": "frequency"}}))
    term = tasks.get("segmentation").objective(adjusted, train).objective("cross_entropy")
    assert isinstance(term, CrossEntropy)
    held = torch.bincount(train.masks.flatten(), minlength=256)[: len(train.classes)].double()
    assert term.class_prior == pytest.approx((held / held.sum()).tolist())
    counted = config.resolve(values(tmp_path / "run", objective={"cross_entropy": {"class_weight": "effective"}}))
    with pytest.raises(ConfigError, match="effective goes by numbers of images, and masks hold pixels"):
        tasks.get("segmentation").objective(counted, train)
    weighted = lines(counterpoise.train(run).folder, "step")[0]["loss"]
    plain = lines(counterpoise.train(values(tmp_path / "plain")).folder, "step")[0]["loss"]
    assert weighted != plain
    assert config.read(tmp_path / "run" / "run.yaml")["objective"]["cross_entropy"]["class_weight"] == "frequency"


def test_void_is_not_scored_by_the_teacher_where_there_are_masks(teacher: dict[str, Any], tmp_path: Path) -> None:
    train, val = scenes()
    assert isinstance(val, ArraySet)
    val.masks[1:] = IGNORE
    run = values(tmp_path / "run", teacher=teacher, train={"batch_size": 1, "epochs": 1})
    run["data"] = {"workers": 0}
    result = counterpoise.distill(run, data=Splits(train, val))
    alone = counterpoise.evaluate(result.folder, data_set=Splits(train, val.subset(torch.tensor([0]))), data=run)
    assert result.last["miou"] == pytest.approx(alone["miou"])


def test_masks_that_are_all_void_are_refused_before_training(teacher: dict[str, Any], tmp_path: Path) -> None:
    train, val = scenes()
    assert isinstance(train, ArraySet)
    train.masks[:] = IGNORE
    run = values(tmp_path / "run")
    run["data"] = {"workers": 0}
    with pytest.raises(DataError, match="are void: no pixel has a class"):
        counterpoise.train(run, data=Splits(train, val))
    assert not (tmp_path / "run").exists()
    train.masks[3, 4, 5:7] = torch.tensor([2, 1])
    result = counterpoise.train(run, data=Splits(train, val))
    assert all(torch.isfinite(value).all() for value in load_file(result.folder / "student/model.safetensors").values())


def refused(kind: type[CounterpoiseError], message: str, run: dict[str, Any], **given: Any) -> None:
    verb = counterpoise.distill if "teacher" in run or "teacher" in given else counterpoise.train
    with pytest.raises(kind, match=message):
        verb(run, **given)
    assert not Path(run["out"], "student").exists()


def test_data_and_networks_of_another_task_are_refused(
    own: Path, teacher: dict[str, Any], image_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    refused(
        ConfigError, "The data holds masks, .* classification learns one a picture", values(out, task="classification")
    )
    on_photos = {**values(out), "data": {"path": image_folder}}
    refused(
        ConfigError, "Task segmentation learns from masks, and the data holds none: see source masks_folder", on_photos
    )
    classifier = values(out, student={"model": "digits/cnn_4_8"})
    refused(ConfigError, "digits/cnn_4_8 is a network for classification, and the run is for segmentation", classifier)
    scene_parser = {**on_photos, "task": "classification"}
    refused(ConfigError, r"digits/unet_4_8 is a network for segmentation, .*\(set task: segmentation\)", scene_parser)
    refused(ObjectiveError, r"Dense terms need logits \[N, C, h, w\]", values(out, student={"model": f"{own}:whole"}))

    trained = counterpoise.train(values(tmp_path / "good", train={"epochs": 1}))
    with pytest.raises(DataError, match="The data has 3 classes and the student 11"):
        counterpoise.evaluate(trained.folder, image_folder)
    images = sources.load(config.Data(path=image_folder)).val
    images.classes = counterpoise.load_student(trained.folder).classes  # type: ignore[assignment]
    with pytest.raises(ConfigError, match="learns from masks"):
        counterpoise.evaluate(trained.folder, data_set=Splits(images, images))


def few_classes() -> Splits:
    """The scenes with ground and, of all digits, sevens and others."""
    halves = []
    for half in scenes():
        assert isinstance(half, ArraySet)
        masks = torch.where(half.masks == 0, 0, torch.where(half.masks == 8, 1, 2)).to(torch.uint8)
        halves.append(ArraySet.of_scenes(half.images, masks, ("ground", "7", "other")))
    return Splits(*halves)


def test_a_teacher_of_other_classes_is_refused_or_mapped(teacher: dict[str, Any], tmp_path: Path) -> None:
    run = values(tmp_path / "run", teacher=teacher, train={"epochs": 1})
    run["data"] = {"workers": 0}
    message = r"(?s)2 of the student's 3 classes are not found among the 11 .*'ground' is unknown.*teacher\.classes"
    refused(ModelError, message, run, data=few_classes())
    assert not (tmp_path / "run").exists()
    mapping = tmp_path / "classes.yaml"
    mapping.write_text("ground: background\n'7': '7'\nother: ['0', '1', '2', '3', '4', '5', '6', '8', '9']\n")
    run["teacher"] = {**teacher, "classes": mapping}
    result = counterpoise.distill(run, data=few_classes())
    assert lines(result.folder, "step")[0]["terms"]["balance/forward"] > 0
    assert counterpoise.load_student(result.folder).classes == ("ground", "7", "other")
    assert 0 < result.teacher["miou"] < 100


def test_bfloat16_and_channels_last(teacher: dict[str, Any], tmp_path: Path) -> None:
    run = values(tmp_path / "run", teacher=teacher, train={"epochs": 1, "precision": "bf16", "channels_last": True})
    result = counterpoise.distill(run)
    assert 0 < lines(result.folder, "step")[-1]["loss"] < 20
    assert counterpoise.evaluate(result.folder)["miou"] == pytest.approx(result.last["miou"], abs=3)


def write(path: Path, run: dict[str, Any]) -> Path:
    path.write_text(json.dumps({key: value for key, value in run.items() if key != "out"}, default=str))
    return path


def outcome(folder: Path) -> dict[str, bytes]:
    """All that must not depend on kills: weights, last and best, and the metrics without what a clock says."""
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line in found:
        for clock in ("images_per_second", "stages", "readers", "advice"):
            line.pop(clock, None)
    return {
        "student": (folder / "student" / "model.safetensors").read_bytes(),
        "best": (folder / "checkpoints" / "best.safetensors").read_bytes(),
        "metrics": json.dumps(found).encode(),
    }


@pytest.mark.parametrize("workers", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_kills_end_in_the_same_bytes(host: Any, teacher: dict[str, Any], tmp_path: Path, workers: int) -> None:
    scene = {"size": [24, 24], "jitter": 0.3, "window": [24, 24], "crops": 2, "foreground": 0.4}
    run = values(
        tmp_path,
        teacher=teacher,
        data={"workers": workers, "scenes": scene},
        objective={
            "cross_entropy": {"class_weight": "frequency"},
            "balance": {"weight": {"start": 1, "end": 3}},
            "cwd": {},
            "cirkd": TERMS["cirkd"],
        },
        train={"epochs": 2, "ema": 0.9, "log_every": 2, "checkpoint_minutes": 0.0},
    )
    command = ["distill", str(write(tmp_path / "run.yaml", run)), "--quiet"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    seconds = host.run([*command, "--out", str(whole)])
    kills = 0
    while kills < (1 if workers else KILLS):
        again = ["--resume"] if killed.exists() else []  # before there was a folder, there was nothing to go on with
        kills += host.kill_within([*command, "--out", str(killed), *again], 0.3 * seconds) and killed.exists()
    host.run([*command, "--out", str(killed), "--resume"])
    assert outcome(killed) == outcome(whole)


@pytest.mark.slow
def test_two_processes_train_what_one_trains(
    host: Any, torchrun: Callable[..., str], own: Path, teacher: dict[str, Any], tmp_path: Path
) -> None:
    """Views that reach beyond their scene have void, and so each process another number of labels."""
    run = values(
        tmp_path,
        teacher=teacher,
        student={"model": f"{own}:Coarse"},
        objective={
            "cross_entropy": {"class_weight": "frequency"},
            "balance": {"ignore_index": IGNORE},
            "cwd": {"weight": 3},
        },
        data={"scenes": {"crops": 2, "foreground": 0.4}},
        train={"epochs": 3, "optimizer": {"learning_rate": 0.02}, "scores": ["case_recall"]},
    )
    command = ["distill", str(write(tmp_path / "run.yaml", run)), "--quiet"]
    one, two = tmp_path / "one", tmp_path / "two"
    host.run([*command, "--out", str(one)])
    torchrun([*command, "--out", str(two)])
    losses = [[step["loss"] for step in lines(folder, "step")] for folder in (one, two)]
    assert losses[1][0] == pytest.approx(losses[0][0], rel=1e-5)
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    assert lines(two, "epoch")[-1]["val"] == pytest.approx(lines(one, "epoch")[-1]["val"], abs=0.5)
    cases = [[row.split(",")[:5] for row in (out / "cases.csv").read_text().splitlines()] for out in (one, two)]
    assert cases[0] == cases[1]
    assert len(cases[0]) == 1 + 6 * 11
    weights = load_file(one / "student" / "model.safetensors")
    for name, value in load_file(two / "student" / "model.safetensors").items():
        torch.testing.assert_close(value, weights[name], rtol=1e-3, atol=1e-4)


def test_a_store_holds_every_crop_for_runs_with_as_many(teacher: dict[str, Any], tmp_path: Path) -> None:
    scene = {"size": [16, 24], "crops": 2, "foreground": 0.5}
    run = values(tmp_path / "live", teacher=teacher, data={"scenes": scene}, train={"epochs": 1})
    counterpoise.record(run, out=tmp_path / "store", precision="float32")
    stored = {"out": tmp_path / "stored", "teacher": {"store": str(tmp_path / "store")}}
    both = [counterpoise.distill(each) for each in (run, config.merge(run, stored))]
    live, read = ([step["loss"] for step in lines(result.folder, "step")] for result in both)
    assert len(live) == 2 * SMALL["train_size"] // 8
    assert read == pytest.approx(live, rel=1e-4)
    for other in ({"crops": 3}, {"crops": 1}, {"foreground": 0.4}):
        with pytest.raises(StoreError, match="views"):
            counterpoise.distill(
                config.merge(config.merge(run, stored), {"out": tmp_path / "other", "data": {"scenes": other}})
            )


def test_sliding_window_of_one_pixel_networks_scores_as_whole_scenes(tmp_path: Path) -> None:
    """A 1x1 convolution at full resolution sees the same through any window."""
    net = nn.Conv2d(3, 11, 1)
    whole = counterpoise.train(values(tmp_path / "whole", train={"epochs": 1}), student=net)
    again = nn.Conv2d(3, 11, 1)
    again.load_state_dict(load_file(whole.folder / "student" / "model.safetensors"))
    scores = []
    for window in (None, [9, 14]):
        data = {"scenes": {"window": window}}
        rate = {"learning_rate": 1e-12}
        run = values(tmp_path / str(window), data=data, train={"epochs": 1, "optimizer": rate})
        scores.append(counterpoise.train(run, student=again).last["miou"])
    assert scores[0] == pytest.approx(scores[1], abs=0.05)
    found = counterpoise.evaluate(
        whole.folder, window=(9, 14), overlap=0.4, blend="linear", data_set=scenes(), model=net
    )
    assert found["miou"] == pytest.approx(scores[0], abs=0.05)


@pytest.mark.slow  # a minute of the C++ compiler
def test_a_run_of_large_masks_compiles_its_loss_says_so_and_counts_it(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "COMPILE_FROM", blocks.WORTHWHILE_FROM)
    out = tmp_path / "run"
    code, _, said = run("train", write(tmp_path / "run.yaml", values(out, train={"epochs": 1})), "--out", out)
    assert code == 0, said
    assert "compiling the loss, which takes" in said
    assert "compiled the loss in" in said
    summary = json.loads((out / "summary.json").read_text())
    assert 0 < summary["compile_seconds"] < summary["seconds"]


def test_no_reading_process_is_left_when_a_run_has_ended(tmp_path: Path) -> None:
    gc.disable()  # so that what ends them is not the garbage collector, whenever it comes
    try:
        train = {"epochs": 1, "batch_size": 4, "precision": "fp32", "device": "cpu"}
        data = {"source": "digit_scenes", "options": {"train_size": 8}, "memory_limit_gb": 0}
        student = {"model": "digits/unet_4_8"}
        counterpoise.train(
            {"task": "segmentation", "data": data, "student": student, "train": train, "out": str(tmp_path / "run")}
        )
        assert multiprocessing.active_children() == []
    finally:
        gc.enable()
