"""A student of scenes that leaves pixels unanswered: its promise holds on other scenes, and shows in its answers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import binom

import counterpoise
from counterpoise.data.sources.base import Splits
from counterpoise.engine import inputs, promising_scenes
from counterpoise.engine.promising_scenes import Marked
from counterpoise.errors import ConfigError, DataError
from counterpoise.models.promise import ScenePromise
from counterpoise.tasks.surety import EDGES, SurePixels, marks, surety

Run = Callable[..., tuple[int, str, str]]
CHOICES = 100
LADDER = EDGES.double().numpy()


def draw(count: int, seed: int) -> Marked:
    """Scenes of 200 pixels, some far harder than others, whose student is surer than it should be."""
    rng = np.random.default_rng(seed)
    hardness = rng.normal(0, 0.8, (count, 1))
    distance = np.abs(rng.normal(2.5 - hardness, 2.0, (count, 200)))
    right = rng.random((count, 200)) < 1 / (1 + np.exp(-0.9 * distance - 0.3 + hardness))
    place = np.searchsorted(EDGES.numpy(), (1 / (1 + np.exp(-distance))).astype(np.float32), side="right") - 1
    rows = np.arange(count)[:, None] * len(EDGES) + place
    counts = [np.bincount(rows[kind], minlength=count * len(EDGES)).reshape(count, -1) for kind in (right, ~right)]
    return Marked(*counts, sum(counts).sum(0, keepdims=True))


def shares(scenes: Marked) -> tuple[promising_scenes.Floats, promising_scenes.Floats]:
    """By edge: the share of pixels that is answered, and the mean over scenes of what is wrong of it."""
    answered, wrong = (side[:, ::-1].cumsum(1)[:, ::-1] for side in (scenes.right + scenes.wrong, scenes.wrong))
    return answered.sum(0) / answered[:, 0].sum(), (wrong / np.maximum(answered, 1)).mean(0)


@pytest.mark.parametrize(("count", "risk"), [(120, 0.1), pytest.param(300, 0.05, marks=pytest.mark.slow)])
def test_of_a_hundred_choices_no_more_break_their_word_than_chance_allows(count: int, risk: float) -> None:
    possible, truth = shares(draw(3_000, 12_345))
    broken, answered = 0, []
    for seed in range(CHOICES):
        try:
            found = promising_scenes.choose(draw(count, seed), LADDER, risk, seed=seed)
        except DataError:
            continue  # who promises nothing breaks nothing
        edge = int(np.searchsorted(LADDER, found.threshold))
        broken += bool(truth[edge] > risk)
        answered.append(found.answered)
        assert found.bound <= risk + 1e-4
    assert len(answered) > 0.8 * CHOICES
    assert broken <= binom.ppf(0.999, CHOICES, 0.05)
    best = possible[np.flatnonzero(truth <= risk).min()]
    assert 0.5 * best < np.mean(answered) < best


def test_of_slices_of_few_patients_no_more_choices_break_their_word_than_chance_allows() -> None:
    edges, broken = np.array([0.0, 0.5, 0.9]), 0
    for seed in range(CHOICES):
        rng = np.random.default_rng(seed)
        patients = np.repeat(np.arange(90), 6)
        wrong = rng.binomial(1_000, rng.beta(0.4, 6, 90)[patients])  # 6.25% on average, at any threshold
        counts = np.zeros((2, len(patients), 3), np.int64)
        counts[:, :, 2] = 1_000 - wrong, wrong
        try:
            promising_scenes.choose(Marked(*counts, counts.sum((0, 1))[None]), edges, 0.05, seed=seed, owners=patients)
        except DataError:
            continue
        broken += 1
    assert broken <= binom.ppf(0.999, CHOICES, 0.05)


def test_more_slices_of_the_same_volumes_do_not_make_a_promise_surer() -> None:
    whole = draw(150, 3)
    sliced = Marked(whole.right.repeat(4, 0), whole.wrong.repeat(4, 0), whole.by_class)
    once = promising_scenes.choose(whole, LADDER, 0.1)
    often = promising_scenes.choose(sliced, LADDER, 0.1, owners=np.arange(150).repeat(4))
    assert (often.threshold, often.bound, often.groups, once.groups) == (once.threshold, once.bound, 150, None)
    assert often.wrong == pytest.approx(once.wrong)
    with pytest.raises(DataError, match=r"20 groups of 600 scenes cannot promise .* 43 groups are needed at least"):
        promising_scenes.choose(sliced, LADDER, 0.1, owners=np.arange(600) // 30)


def test_marks_are_those_of_the_probabilities_themselves() -> None:
    logits, labels = 3 * torch.randn(4, 500), torch.randint(4, (500,))
    found, sure = marks(logits, labels, 1.7), surety(logits, 1.7)
    right = logits.argmax(0) == labels
    for edge in (0, 17, 200):
        there = sure >= EDGES[edge]
        assert found.right[edge:].sum() == (there & right).sum()
        assert found.wrong[edge:].sum() == (there & ~right).sum()
        assert found.by_class[:, edge:].sum(1).tolist() == labels[there].bincount(minlength=4).tolist()


def test_too_few_scenes_and_a_bad_student_promise_nothing() -> None:
    with pytest.raises(DataError, match=r"20 scenes cannot promise .* 43 are needed at least"):
        promising_scenes.choose(draw(20, 0), LADDER, 0.1)
    bad = draw(200, 0)
    with pytest.raises(DataError, match=r"No threshold keeps 10\.00% of wrong pixels .* on these 200 scenes"):
        promising_scenes.choose(Marked(bad.wrong, bad.right, bad.by_class), LADDER, 0.1)


def test_scenes_of_which_nothing_is_known_change_nothing() -> None:
    known, nothing = draw(150, 1), np.zeros((1, len(EDGES)), dtype=np.int64)
    there = np.random.default_rng(2).permutation(np.arange(180)) < 150
    right, wrong = (np.repeat(nothing, 180, 0) for _ in range(2))
    right[there], wrong[there] = known.right, known.wrong
    found = promising_scenes.choose(Marked(right, wrong, known.by_class), LADDER, 0.1)
    answered, mean = shares(known)
    edge = int(np.searchsorted(LADDER, found.threshold))
    assert (found.answered, found.wrong) == pytest.approx((answered[edge], mean[edge]))


def test_what_evaluate_means_is_what_is_promised_where_nothing_is_answered() -> None:
    logits = torch.tensor([[4.0, 0.1], [0.0, 0.0]])  # the second pixel is hardly sure
    promise = ScenePromise(
        risk=0.1,
        confidence=0.95,
        temperature=1.0,
        threshold=0.9,
        pictures=50,
        answered=0.5,
        wrong=0.05,
        bound=0.1,
        unsure={},
        data="",
    )
    sure = SurePixels(promise, 2)
    for kept, truth in ((slice(0, 2), [1, 0]), (slice(1, 2), [0]), (slice(1, 2), [255])):
        sure.begin()
        sure.add(logits[:, None, kept], torch.tensor([truth], dtype=torch.uint8))
    # The first scene answers one pixel, wrongly; the second none; of the third nothing is known.
    assert sure.values([0, 1, 2]) == pytest.approx({"answered": 100 / 3, "wrong_of_answered": 50.0})
    assert [sure.unsure(0), sure.unsure(1)] == [100.0, 0.0]
    nothing = SurePixels(promise, 2)
    nothing.begin()
    nothing.add(logits[:, None, 1:], torch.tensor([[0]], dtype=torch.uint8))
    assert nothing.values([0]) == {"answered": 0.0, "wrong_of_answered": None}
    sure.promise = promise.model_copy(update={"groups": 2})
    sure.begin()
    sure.add(logits[:, None, 1:], torch.tensor([[0]], dtype=torch.uint8))
    assert sure.values([0, 1, 1, 0])["wrong_of_answered"] == 25.0  # of the first group a half, of the second nothing
    assert "groups" not in promise.model_dump()


@pytest.fixture(scope="session")
def promised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on drawn scenes whose student has made a promise."""
    folder = tmp_path_factory.mktemp("scene-promises")
    run = {
        "task": "segmentation",
        "data": {"source": "digit_scenes", "options": {"train_size": 80, "val_size": 150}, "workers": 0},
        "student": {"model": "digits/unet_16_16_16"},
        "train": {"epochs": 4, "batch_size": 8, "device": "cpu", "precision": "fp32", "evaluate_every": 4},
        "out": str(folder / "run"),
    }
    counterpoise.train(run)
    counterpoise.promise(folder / "run", risk=0.1)
    return folder / "run"


def test_what_is_promised_is_what_evaluate_finds_and_prediction_leaves_out(
    promised: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = json.loads((promised / "student" / "student.json").read_text())["scene_promise"]
    report = counterpoise.evaluate(promised)
    assert report["answered"] == pytest.approx(100 * said["answered"])
    assert report["wrong_of_answered"] == pytest.approx(100 * said["wrong"])
    assert 100 * said["wrong"] < 10
    table = {row["class"]: row["unsure"] for row in report["per_class"]}
    assert {name: 100 * share for name, share in said["unsure"].items()} == pytest.approx(table)
    assert max(table.values()) > min(table.values())

    images = inputs.evaluated(promised, None, None, None)[0]
    Image.fromarray(images.read(0).permute(1, 2, 0).numpy()).save("scene.png")
    code, told, _ = run("predict", "scene.png", "--student", promised, "--out", "masks")
    assert code == 0, told
    answer = counterpoise.predict(["scene.png"], student=promised)[0]
    mask = np.asarray(Image.open("masks/scene-mask.png"))
    assert answer["unsure"] == pytest.approx((mask == 255).mean())
    assert 0 < answer["unsure"] < 1
    assert "unsure" in told
    assert f"{answer['unsure']:.3f}" in told
    assert sum(row["share"] for row in answer["classes"]) == pytest.approx(1 - answer["unsure"])
    assert "unsure" not in counterpoise.predict(["scene.png"], student=promised, window=(32, 32), overlap=0.5)[0]


def test_an_export_keeps_the_promise_by_answers_of_its_own(promised: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    made = counterpoise.export(promised, to="onnx", out=tmp_path / "export", images=4)
    own, whole = made["scene_promise"], json.loads((promised / "student" / "student.json").read_text())["scene_promise"]
    assert own["unsure"] == pytest.approx(whole["unsure"], abs=1e-3)
    assert own["data"] == whole["data"]
    for name in own.keys() - {"unsure", "data"}:
        assert own[name] == pytest.approx(whole[name], rel=1e-3), name
    images = inputs.evaluated(promised, None, None, None)[0]
    Image.fromarray(images.read(0).permute(1, 2, 0).numpy()).save(tmp_path / "scene.png")
    command = [sys.executable, str(tmp_path / "export" / "run.py"), "scene.png"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    mask = np.asarray(Image.open(tmp_path / "mask.png"))
    answer = counterpoise.predict([tmp_path / "scene.png"], student=promised)[0]
    assert (mask == 255).mean() == pytest.approx(answer["unsure"], abs=2e-3) != 0
    assert done.stdout.splitlines()[-1] == f"{(mask == 255).mean():8.4f}  not sure"


@pytest.mark.slow
def test_eight_bits_choose_anew_and_others_scenes_choose_nothing(promised: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    made = counterpoise.export(promised, to="onnx", precision="int8", out=tmp_path / "int8", images=20)
    whole = json.loads((promised / "student" / "student.json").read_text())["scene_promise"]
    assert made["scene_promise"]["risk"] == whole["risk"]
    assert made["scene_promise"]["temperature"] != whole["temperature"]
    other = {"source": "digit_scenes", "options": {"train_size": 80, "val_size": 20}}
    made = counterpoise.export(promised, to="onnx", out=tmp_path / "other", data={"data": other})
    assert made["scene_promise"] is None
    assert "so run.py answers every pixel." in made["notes"]["promise"]


@pytest.mark.parametrize("count", [1, 2])
def test_a_scene_or_two_are_too_few(promised: Path, count: int) -> None:
    images = inputs.evaluated(promised, None, None, None)[0].subset(torch.arange(count))
    with pytest.raises(DataError, match=f"^{count} scenes cannot promise .* 43 are needed at least"):
        counterpoise.promise(promised, data_set=Splits(images, images), risk=0.1)


def test_sets_of_classes_are_refused_of_pixels(promised: Path) -> None:
    with pytest.raises(ConfigError, match="coverage is of sets of classes for a picture"):
        counterpoise.promise(promised, coverage=0.8)
