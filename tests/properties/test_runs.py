"""What must not change the end of a run, over random small runs."""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file
from stopping import AfterSteps
from torch import Tensor, nn

import counterpoise
from counterpoise import config
from counterpoise.data.sources.arrays import ArraySet
from counterpoise.data.sources.base import Splits
from counterpoise.deploy import base
from counterpoise.errors import Interrupted
from counterpoise.models import catalog
from counterpoise.models.classmap import map_teacher

Values = dict[str, Any]
ROUNDING: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5}


def few_and_many(few: int, many: int, **drawn: st.SearchStrategy[Any]) -> Callable[[Any], Any]:
    """A property as two tests: of a few examples, and of many, which is slow."""

    def decorate(check: Callable[..., None]) -> Any:
        @pytest.mark.parametrize("examples", [few, pytest.param(many, marks=pytest.mark.slow)])
        def test(examples: int) -> None:
            # The few are the same each time, so that the suite does not fail by chance; the many are new ones.
            # Nothing is made smaller: that would take minutes, and these are small.
            chosen = settings(
                max_examples=examples, derandomize=examples == few, database=None, phases=(Phase.generate,)
            )
            chosen(given(**drawn)(check))()

        test.__name__, test.__doc__ = check.__name__, check.__doc__
        return test

    return decorate


@st.composite
def runs(draw: st.DrawFn, mixed: bool = True) -> Values:
    """Values of a run that takes a tenth of a second, its pictures and what teaches it apart."""
    views: Values = draw(st.sampled_from(({"crop": "none", "flip": False}, {"crop": "pad", "padding": 1}, {})))
    if mixed and draw(st.booleans()):
        views = {**views, draw(st.sampled_from(("mixup", "cutmix"))): 0.5}
    orders = ({}, {"shuffle": "blocks", "block_size": 4, "shuffle_window": 2})
    train: Values = {
        "epochs": draw(st.integers(1, 4)),
        "batch_size": draw(st.sampled_from((3, 5, 8, 40))),
        "device": "cpu",
        "precision": "fp32",
        "log_every": 1,
        "optimizer": {"name": draw(st.sampled_from(("sgd", "adamw"))), "learning_rate": 0.02},
        "schedule": {"name": draw(st.sampled_from(("one_cycle", "cosine", "constant")))},
        "ship": draw(st.sampled_from(("last", "best"))),
        "evaluate_every": draw(st.integers(1, 2)),
    }
    whole = train["batch_size"] < 12  # of the fewest pictures, so that a batch is left
    for key, value in (("ema", 0.9), ("clip_gradient", 0.5), *([("drop_last", True)] if whole else [])):
        if draw(st.booleans()):
            train[key] = value
    crd: Values = {"weight": 0.5, "teacher_feature": "features", "student_feature": "features"}
    others = ("balance", "forward_kl", "dkd", "dist")
    objective: Values = draw(st.sampled_from(({"crd": crd}, *({name: {"weight": 0.5}} for name in others))))
    return {
        "seed": draw(st.integers(0, 99)),
        "data": {"views": views, "workers": 0, **draw(st.sampled_from(orders))},
        "student": {"model": draw(st.sampled_from(("digits/cnn_4_8", "digits/cnn_3_5_7")))},
        "objective": {"cross_entropy": {"weight": 1.0}, **objective},
        "train": train,
    }


COUNTS = st.sampled_from((12, 18, 23))  # no last batch of one, which batch norm cannot take


def pixels(count: int) -> Splits:
    """So many pictures to train on and six to look at, of three classes."""
    images = np.random.default_rng(count).integers(0, 256, (count + 6, 3, 8, 8), dtype=np.uint8)
    labels = torch.arange(count + 6) % 3
    halves = (slice(0, count), slice(count, None))
    return Splits(*(ArraySet(torch.from_numpy(images[half]), labels[half], "abc") for half in halves))


class Teacher(nn.Module):
    """Answers of random weights, fixed by a seed."""

    input_size = 8

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(1)
            self.features = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten())
            self.head = nn.Linear(216, 3)

    def forward(self, images: Tensor) -> Tensor:
        return 4 * self.head(self.features(images))


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """An empty one; a fixture would be that of all examples."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def end(run: Values, out: Path, data: Splits | None, **options: Any) -> dict[str, bytes]:
    """The bytes that a run ends in: its students, and its metrics but for what a clock says."""
    given = {"data": data} if data is not None else {}
    teacher = {} if "teacher" in run else {"teacher": Teacher()}
    counterpoise.distill({**run, "out": str(out)}, **given, **teacher, **options)
    return ended(out)


def ended(out: Path) -> dict[str, bytes]:
    """The bytes that a run has ended in."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    for line, clock in itertools.product(lines, ("images_per_second", "stages", "readers", "advice")):
        line.pop(clock, None)
    names = ("student/model.safetensors", "checkpoints/best.safetensors")
    return {"metrics": json.dumps(lines).encode(), **{name: (out / name).read_bytes() for name in names}}


@few_and_many(4, 300, run=runs(), count=COUNTS, stops=st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_a_run_that_is_stopped_at_any_steps_ends_as_one_that_is_not(run: Values, count: int, stops: list[int]) -> None:
    with folder() as place:
        whole = end(run, place / "whole", pixels(count))
        for number, steps in enumerate(stops):
            resume: Values = {"resume": True} if number else {}
            with contextlib.suppress(Interrupted):
                end(run, place / "stopped", pixels(count), deadline=AfterSteps(steps), **resume)
        assert end(run, place / "stopped", pixels(count), resume=True) == whole


@few_and_many(3, 200, run=runs(), count=COUNTS)
def test_a_store_teaches_what_its_teacher_does(run: Values, count: int) -> None:
    if run["objective"].pop("crd", None):  # learns from features, which no store has
        run["objective"]["wttm"] = {"weight": 0.5}
    with folder() as place:
        told = counterpoise.record(
            run, out=place / "store", views="epochs", precision="float32", data=pixels(count), teacher=Teacher()
        )
        assert told["finished"]
        stored = end({**run, "teacher": {"store": str(place / "store")}}, place / "stored", pixels(count))
        assert without_the_teacher(stored) == without_the_teacher(end(run, place / "live", pixels(count)))


def without_the_teacher(found: dict[str, bytes]) -> dict[str, Any]:
    """A store cannot be asked about pictures to look at."""
    lines = [line for line in json.loads(found["metrics"]) if line["kind"] != "teacher"]
    return {**found, "metrics": [{key: value for key, value in line.items() if key != "gauge"} for line in lines]}


def pictures(place: Path, chance: random.Random) -> Path:
    """A folder of pictures of several sizes and kinds, a folder a class."""
    draws = np.random.default_rng(chance.randrange(2**32))
    for half, count in (("train", 6), ("val", 3)):
        for name, number in itertools.product("abc", range(count)):
            at = place / half / name
            at.mkdir(parents=True, exist_ok=True)
            size = (chance.randint(8, 20), chance.randint(8, 20), 3)
            picture = Image.fromarray(draws.integers(0, 256, size, dtype=np.uint8))
            picture.save(at / f"{number}.{chance.choice(('png', 'jpg'))}")
    return place


@few_and_many(2, 200, run=runs(), chance=st.randoms(use_true_random=False), shards=st.integers(1, 7))
def test_a_pack_trains_what_its_folder_does(run: Values, chance: random.Random, shards: int) -> None:
    run["data"] |= {"size": 8}
    run["train"]["batch_size"] = 5
    if run["data"].get("shuffle") == "blocks":  # of a pack, blocks are its own
        run["data"] = {key: run["data"][key] for key in ("views", "workers", "size")}
    with folder() as place:
        photos = pictures(place / "photos", chance)
        counterpoise.pack(photos, out=place / "pack", shards=shards)
        of_pack, of_folder = (
            end({**run, "data": {**run["data"], "path": str(path)}}, place / f"run {path.name}", None)
            for path in (place / "pack", photos)
        )
        assert of_pack == of_folder


@few_and_many(1, 40, run=runs(), chance=st.randoms(use_true_random=False))
def test_workers_train_what_one_process_does(run: Values, chance: random.Random) -> None:
    run["data"] |= {"size": 8}
    run["train"] |= {"batch_size": 5, "epochs": min(run["train"]["epochs"], 2)}
    with folder() as place:
        run["data"]["path"] = str(pictures(place / "photos", chance))
        alone, helped = (
            end({**run, "data": {**run["data"], "workers": workers}}, place / str(workers), None) for workers in (0, 2)
        )
        assert alone == helped


WIDTHS = st.lists(st.integers(1, 12), min_size=2, max_size=3)


@few_and_many(1, 60, widths=WIDTHS, classes=st.integers(2, 9), seed=st.integers(0, 99))
def test_an_export_answers_what_its_student_does(widths: list[int], classes: int, seed: int) -> None:
    torch.manual_seed(seed)
    name = "digits/cnn_" + "_".join(map(str, widths))
    names = [f"class {number}" for number in range(classes)]
    model = catalog.build(name, num_classes=classes, classes=names).eval()
    from counterpoise.engine.student import save_student

    with folder() as place:
        save_student(model, place / "student", classes=names, metrics={}, provenance={})
        counterpoise.export(place / "student", to="onnx", out=place / "export")
        images = torch.randint(0, 256, (5, 3, 8, 8), dtype=torch.uint8)
        answers = base.find("onnx").open(place / "export", threads=1)(images.numpy())
        with torch.inference_mode():
            torch.testing.assert_close(torch.as_tensor(answers), model(images), **ROUNDING)


@few_and_many(20, 500, names=st.permutations([f"class {number}" for number in range(6)]), seed=st.integers(0, 9))
def test_a_shuffled_classes_file_permutes_answers(names: Sequence[str], seed: int) -> None:
    torch.manual_seed(seed)
    known = sorted(names)
    teacher = catalog.build("digits/cnn_4_8", num_classes=6, classes=known).eval()
    images = torch.rand(3, 3, 8, 8)
    with folder() as place, torch.inference_mode():
        plain = teacher(images)
        assert torch.equal(map_teacher(teacher, names)(images), plain[:, [known.index(name) for name in names]])
        file = place / "classes.yaml"
        file.write_text("".join(f"{name}: {number}\n" for number, name in enumerate(names)))
        assert torch.equal(map_teacher(teacher, known, file)(images), plain[:, [names.index(name) for name in known]])


@few_and_many(3, 200, run=runs(mixed=False), count=COUNTS)
def test_twice_the_data_for_half_the_epochs_is_as_many_steps_at_the_same_rates(run: Values, count: int) -> None:
    run["train"] |= {"epochs": 2 * run["train"]["epochs"], "batch_size": 3 if count % 3 == 0 else count}
    run["data"] = {"views": run["data"]["views"], "workers": 0}
    once, twice = pixels(count), doubled(pixels(count))
    half = {**run, "train": {**run["train"], "epochs": run["train"]["epochs"] // 2}}
    with folder() as place:
        end(run, place / "once", once)
        end(half, place / "twice", twice)
        assert rates(place / "once") == pytest.approx(rates(place / "twice"), rel=1e-9)


def doubled(splits: Splits) -> Splits:
    """Each picture to train on twice."""
    train = splits.train
    assert isinstance(train, ArraySet)
    return Splits(ArraySet(train.images.repeat(2, 1, 1, 1), train.labels.repeat(2), "abc"), splits.val)


def rates(out: Path) -> list[float]:
    """The learning rate of each step."""
    lines = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
    return [line["learning_rate"] for line in lines if line["kind"] == "step"]


@few_and_many(2, 150, run=runs(mixed=False), count=st.sampled_from((12, 18)))
def test_twice_the_data_in_one_batch_trains_what_the_data_does(run: Values, count: int) -> None:
    """Without views that are drawn and statistics of batches; what compares samples with each other is left out."""
    run["data"] = {"views": {"crop": "none", "flip": False}, "workers": 0}
    run["objective"] = {"cross_entropy": {"weight": 1.0}, "balance": {"weight": 0.5}}
    run["train"]["optimizer"] = {"name": "sgd", "learning_rate": 0.02}
    weights = []
    with folder() as place:
        for name, data, size in (("once", pixels(count), count), ("twice", doubled(pixels(count)), 2 * count)):
            student = Teacher()
            nn.init.zeros_(student.head.weight)
            run["train"]["batch_size"] = size
            end(run, place / name, data, student=student)
            weights.append(load_file(place / name / "student" / "model.safetensors"))
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, **ROUNDING)


def test_random_runs_are_valid() -> None:
    """A property over runs that are all refused would hold for ever."""

    @settings(max_examples=10, derandomize=True, database=None)
    @given(run=runs())
    def valid(run: Values) -> None:
        config.Run.model_validate(run)

    valid()
