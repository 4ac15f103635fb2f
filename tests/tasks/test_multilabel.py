"""Several labels a picture, from end to end: what is learned, scored, chosen, answered and refused."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor

import counterpoise
from counterpoise import config, tasks
from counterpoise.data import checking, labels, mixing, sources, summary
from counterpoise.data.class_weights import with_class_weights
from counterpoise.data.sources.arrays import ArraySet
from counterpoise.data.sources.base import Splits
from counterpoise.engine.trainer import Result
from counterpoise.errors import ConfigError, CounterpoiseError, DataError, ModelError
from counterpoise.models import catalog
from counterpoise.objectives.binary_cross_entropy import BinaryCrossEntropy
from counterpoise.tasks.multilabel import LabelReport, LabelScore

Run = Callable[..., tuple[int, str, str]]
SMALL = {"train_size": 160, "val_size": 80}
ONE_DIGIT = {"source": "digits", "options": {"train_size": 160}}


def values(out: Path, **changed: Any) -> dict[str, Any]:
    """A run file's values: two epochs of five steps."""
    common: dict[str, Any] = {
        "task": "multilabel",
        "out": out,
        "data": {"source": "digit_pairs", "options": SMALL, "views": {"crop": "none", "flip": False}},
        "student": {"model": "digits/cnn_8_8", "input_size": 20},
        "train": {"epochs": 2, "batch_size": 32, "precision": "fp32", "device": "cpu", "log_every": 1},
    }
    return config.merge(common, changed)


def table(rows: list[list[int]], classes: str = "abc") -> ArraySet:
    images = torch.arange(len(rows), dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 4, 4).contiguous()
    return ArraySet(images, torch.tensor(rows, dtype=torch.int8), tuple(classes))


@pytest.fixture(scope="session")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return counterpoise.train(values(tmp_path_factory.mktemp("taught") / "run", data={"options": {"unknown": 0.2}}))


@pytest.fixture(scope="session")
def student(taught: Result, tmp_path_factory: pytest.TempPathFactory) -> Result:
    teacher = {"checkpoint": str(taught.folder), "accept_chance": True}
    return counterpoise.distill(values(tmp_path_factory.mktemp("student") / "run", teacher=teacher))


def test_a_run_that_names_no_terms_learns_from_labels_and_the_teacher_by_sigmoids(student: Result) -> None:
    lines = [json.loads(line) for line in (student.folder / "metrics.jsonl").read_text().splitlines()]
    terms = next(line["terms"] for line in lines if line["kind"] == "step")
    assert list(terms) == ["binary_cross_entropy", "binary_balance/forward", "binary_balance/reverse"]
    assert {"map", "auroc", "loss"} < set(student.last)
    assert "forward_kl" in next(line["gauge"] for line in lines if line["kind"] == "epoch")


@pytest.mark.parametrize("epoch", ["last", "best"])
def test_evaluation_finds_the_scores_of_the_run_and_f1_at_the_thresholds_of_that_epoch(
    student: Result, epoch: Any
) -> None:
    report = counterpoise.evaluate(student.folder, epoch=epoch, device="cpu")
    scores = student.last if epoch == "last" else student.best
    assert {name: report[name] for name in ("map", "auroc", "loss")} == {
        name: scores[name] for name in ("map", "auroc", "loss")
    }
    stored = json.loads((student.folder / "student" / "student.json").read_text())["thresholds"][epoch]
    assert [row["threshold"] for row in report["per_class"]] == stored
    assert len(set(stored)) > 1
    assert "chosen on the validation images" in report["notes"][0]


def test_thresholds_are_those_of_the_highest_f1_and_stay_where_they_are_on_other_images(taught: Result) -> None:
    student = counterpoise.load_student(taught.folder)
    val = sources.load(config.Data(source="digit_pairs", options=SMALL)).val
    logits = student(torch.stack([val.read(index) for index in range(len(val))])).detach()

    def macro(thresholds: list[float]) -> float:
        report = LabelReport(val.classes, thresholds)
        report.update(logits, val.labels)
        found: float = report.values()["macro_f1"]
        return found

    assert student.thresholds is not None
    own = macro(list(student.thresholds))
    assert own >= max(macro([share] * 10) for share in (0.1, 0.2, 0.3, 0.5))
    other = counterpoise.evaluate(
        taught.folder, data={"data": {"source": "digit_pairs", "split_seed": 1, "options": SMALL}}, device="cpu"
    )
    assert [row["threshold"] for row in other["per_class"]] == list(student.thresholds)


def test_answers_are_the_labels_at_or_above_their_thresholds(student: Result, run: Run) -> None:
    loaded = counterpoise.load_student(student.folder)
    assert loaded.thresholds is not None
    least = dict(zip(loaded.classes or (), loaded.thresholds, strict=True))
    code, out, _ = run("predict", "--student", student.folder, "--data", student.folder / "run.yaml", "--json")
    answers = json.loads(out)
    assert (code, len(answers)) == (0, SMALL["val_size"])
    for answer in answers:
        assert all(label["probability"] >= least[label["class"]] for label in answer["labels"])
        told = {label["class"] for label in answer["labels"]}
        assert all(
            label["probability"] < least[label["class"]] for label in answer["top"] if label["class"] not in told
        )
        assert set(answer["truth"]) <= set("0123456789")
    code, out, _ = run("predict", "--student", student.folder, "--data", student.folder / "run.yaml", "--csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["labels"] for row in rows] == ["; ".join(x["class"] for x in answer["labels"]) for answer in answers]
    assert rows[0]["truth"] == "; ".join(answers[0]["truth"])


def test_the_gauge_takes_labels_for_questions_of_their_own(student: Result) -> None:
    gauge = counterpoise.gauge(student.folder, device="cpu")
    assert gauge["positions"] == SMALL["val_size"]
    assert sum(band["teacher_mass"] for band in gauge["bands"]) != pytest.approx(100, abs=1)
    assert gauge["calibration"]["student"].keys() == {"labels", "calibration_error"}


def test_an_export_says_the_labels_that_the_student_says(
    student: Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime")
    made = counterpoise.export(student.folder, to="onnx", out=tmp_path / "onnx", images=20)
    assert made["agreement"]["metric"] == "map"
    assert made["agreement"]["student"] == pytest.approx(made["agreement"]["export"], abs=0.1)
    low, high = made["agreement"]["interval"]
    assert low <= 0 <= high
    loaded = counterpoise.load_student(student.folder)
    assert made["thresholds"] == loaded.thresholds
    val = sources.load(config.Data(source="digit_pairs", options=SMALL)).val
    picture = tmp_path / "pair.png"
    Image.fromarray(val.read(0).permute(1, 2, 0).numpy()).save(picture)
    (expected,) = loaded.predict([picture])
    held: dict[str, Any] = {"__name__": "run"}
    exec(compile((tmp_path / "onnx" / "run.py").read_text(), "run.py", "exec"), held)
    main, given = held["main"], (tmp_path / "onnx", "export.json", "model.onnx")
    assert main(*given, held["labels_there"], held["load"], [str(picture)]) == 0
    told = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [(name, float(share)) for share, name in told] == [
        (label["class"], pytest.approx(label["probability"], abs=1e-3)) for label in expected["labels"]
    ]
    nothing = held["labels_there"](np.full(10, -9.0), {"classes": list("0123456789")}, None, None)
    assert nothing == ["          none of the labels; the likeliest is 0, 0.0001 where 0.5000 are needed"]


def test_a_page_tells_which_labels_are_missed(student: Result, tmp_path: Path) -> None:
    page = counterpoise.report([student.folder], out=tmp_path / "page.html").read_text(encoding="utf-8")
    for words in (
        "mean average precision",
        "The commonest mistakes",
        "answered where it is not",
        "All labels",
        "AUROC %",
    ):
        assert words in page
    assert "left out" not in page


def test_what_is_unknown_teaches_nothing_and_is_not_scored() -> None:
    logits = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    target = torch.tensor([[1, 0, -1, 1], [-1, -1, -1, -1], [0, -1, 1, 0]], dtype=torch.int8)
    for given in (target, target.float()):
        (gradient,) = torch.autograd.grad(BinaryCrossEntropy()(logits, None, given), logits)
        known = target >= 0
        assert (gradient[~known] == 0).all()
        expected = (logits.sigmoid() - target) / 2  # of three images nothing is known of one
        torch.testing.assert_close(gradient[known], expected[known].detach())
    scores = []
    for guess in (-9.0, 9.0):
        score = LabelScore(4)
        score.update(logits.detach().where(target >= 0, torch.tensor(guess)), target)
        scores.append((score.values(), score.thresholds()))
    assert scores[0] == scores[1]


def test_positive_weights_are_by_the_frequency_of_labels_or_by_name() -> None:
    images = table([[1, 0, 1], [0, 0, 1], [0, -1, 1], [0, 0, -1]])
    terms = {"binary_cross_entropy": config.Term.model_validate({"pos_weight": "frequency"})}
    run = config.Run(task="multilabel", objective=terms)
    bce = tasks.get("multilabel").objective(run, images).objective("binary_cross_entropy")
    assert bce.pos_weight == (3.0, 1.0, 1.0)  # of the last two one is never there, and the other always
    logits, target = torch.randn(2, 3, generator=torch.Generator().manual_seed(1)), torch.tensor([[1, 0, 1], [0, 1, 0]])
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        logits, target.float(), reduction="none", pos_weight=torch.tensor([3.0, 1.0, 1.0])
    )
    torch.testing.assert_close(bce(logits, None, target), expected.sum(1).mean())
    named = {"binary_cross_entropy": config.Term.model_validate({"pos_weight": {"z": 2.0}})}
    with pytest.raises(ConfigError, match="'z' is no class"):
        tasks.get("multilabel").objective(config.Run(task="multilabel", objective=named), images)
    shares = {"cross_entropy": config.Term.model_validate({"class_prior": "frequency"})}
    with pytest.raises(ConfigError, match="several labels have no share of each class"):
        with_class_weights(shares, images)


def test_mixed_labels_are_mixed_one_by_one() -> None:
    own, partner = torch.tensor([[1, 0, -1, 1]], dtype=torch.int8), torch.tensor([[0, 0, 1, 1]], dtype=torch.int8)
    torch.testing.assert_close(
        mixing.targets(own, partner, torch.tensor([0.25]), 4), torch.tensor([[0.25, 0.0, -1.0, 1.0]])
    )


def test_whole_steps_in_memory_have_the_outcome_of_others_mixed_labels_included(tmp_path: Path) -> None:
    views = {"crop": "pad", "padding": 1, "flip": False, "mixup": 0.2}
    first = counterpoise.train(values(tmp_path / "a", data={"views": views}))
    fast = counterpoise.train(values(tmp_path / "b", data={"views": views}, train={"fast": True}))
    assert first.last == fast.last


def test_two_processes_score_all_answers_as_one_does(host: Any, tmp_path: Path) -> None:
    """Of 81 images one process has a row more."""
    given = values(tmp_path / "run", train={"epochs": 1}, data={"options": {"val_size": 81}})
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({**given, "out": str(given["out"])}))
    host.together(["train", str(tmp_path / "run.yaml")])
    last = json.loads((tmp_path / "run" / "summary.json").read_text())["last"]
    alone = counterpoise.evaluate(tmp_path / "run", device="cpu")
    assert [alone[name] for name in ("map", "auroc", "loss")] == [last[name] for name in ("map", "auroc", "loss")]


def test_images_are_divided_by_their_rarest_label() -> None:
    rows = [[1, 1, 0] if index % 10 == 0 else [1, 0, index % 2] for index in range(100)]
    train, val = sources.split(table(rows), 20, 0)
    assert (val.per_class(), train.per_class()) == ([20, 2, 10], [80, 8, 40])
    assert labels.strata(torch.tensor([[0, -1], [-1, -1], [1, 1]], dtype=torch.int8), 2).tolist() == [2, -1, 0]


def test_labels_move_with_their_classes_and_are_counted() -> None:
    images = table([[1, 0, -1], [1, 1, 0], [-1, -1, -1]])
    assert (images.per_class(), images.unlabeled) == ([2, 1, 0], 1)
    assert (
        summary.census(images)
        == "0 (c) to 2 (a) a label, 1 labels an image, 44.4% of the labels unknown (all of 1 images)"
    )
    moved = images.in_order("cab")
    assert moved.labels.tolist() == [[-1, 1, 0], [0, 1, 1], [-1, -1, -1]]
    assert moved.fingerprint() != images.fingerprint()


@pytest.mark.parametrize(
    ("rows", "message"),
    [([[1, 0]], "must have 3 columns, one a class, got 2"), ([[1, 0, 2]], "1, 0 and -1 .unknown., got 2")],
)
def test_a_table_that_is_none_of_labels_is_refused(rows: list[list[int]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        table(rows)


@pytest.mark.parametrize(
    ("name", "term", "instead"),
    [
        ("cross_entropy", {}, "binary_cross_entropy"),
        ("forward_kl", {}, "binary_balance"),
        ("dkd", {}, "binary_balance"),
        ("dice", {"sigmoid": True}, "binary_cross_entropy"),
        ("mine", {"objective": "class_weighted", "of": "binary_balance"}, "binary_balance"),
    ],
)
def test_terms_that_take_classes_for_alternatives_are_refused(name: str, term: dict[str, Any], instead: str) -> None:
    run = config.Run(task="multilabel", objective={name: config.Term.model_validate(term)})
    with pytest.raises(ConfigError, match=rf"objective\.{name}.* Instead: {instead}"):
        tasks.get("multilabel").objective(run, None)


def test_data_of_the_other_kind_is_refused_with_the_task_that_takes_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="set task: classification"):
        counterpoise.train({**values(tmp_path / "a"), "data": ONE_DIGIT})
    with pytest.raises(ConfigError, match="task: multilabel"):
        counterpoise.train(values(tmp_path / "b", task="classification", objective={"cross_entropy": {}}))
    found = counterpoise.check({"task": "multilabel", "data": ONE_DIGIT, "student": {"model": "digits/cnn_4_8"}})
    assert "set task: classification" in found["problems"][0]["what"]


def test_labels_that_no_score_could_tell_of_are_said(tmp_path: Path) -> None:
    absent = Splits(table([[1, 0, 1], [0, 1, 0]] * 8), table([[0, 0, 0], [0, 0, -1]]))
    with pytest.raises(DataError, match="No validation image has any of the labels"):
        counterpoise.train(values(tmp_path), data=absent)
    always = Splits(table([[1, -1, 0], [0, 1, 1]] * 8), table([[1, -1, 1], [1, 0, -1]]))
    said = [problem.what for problem in checking.cheap(always) if "all images" in problem.what]
    assert [what.partition(" in all images of ")[2].split()[0] for what in said] == ["train", "val"]
    alone = sources.split(table([[1, 1, 0]] + [[1, 0, 1]] * 9 + [[0, 0, 0]]), 3, 0).train.notes
    assert alone == ["classes of one image alone, which stays in train: 'b'"]


def test_a_teacher_that_was_trained_to_answer_otherwise_is_refused(taught: Result, tmp_path: Path) -> None:
    given = values(tmp_path / "a", task="classification", teacher={"checkpoint": str(taught.folder)})
    with pytest.raises(ConfigError, match="was trained for multilabel, and the run is for classification"):
        counterpoise.distill({**given, "data": ONE_DIGIT})


class Soft(torch.nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.mean((2, 3)).repeat(1, 4)[:, :10].sigmoid()


@pytest.mark.parametrize(
    ("section", "message"),
    [({"accept_chance": True}, "as a sigmoid gives"), ({"outputs": "probabilities"}, "answers no probabilities")],
)
def test_a_teacher_with_a_sigmoid_of_its_own_is_refused(section: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(CounterpoiseError, match=message):
        counterpoise.distill(values(tmp_path / "run", teacher=section), teacher=Soft())


def test_a_teacher_that_knows_nothing_is_known_by_its_ranking(tmp_path: Path) -> None:
    val = sources.load(config.Data(source="digit_pairs", options={"val_size": 600, "train_size": 1})).val
    score = LabelScore(10)
    score.update(val.labels.float() * 2 + torch.randn(600, 10, generator=torch.Generator().manual_seed(0)), val.labels)
    assert score.verdict().kind == "useful"
    score.state = torch.cat([score.state[:, :10].roll(5, 0), score.state[:, 10:]], 1)
    assert score.verdict().kind == "chance"
    assert LabelScore(10).verdict().kind == "unknown"
    nothing = {"teacher": {}, "train": {"epochs": 1}, "data": {"options": {"train_size": 32, "val_size": 600}}}
    fresh = catalog.build("digits/cnn_4_8", num_classes=10)
    with pytest.raises(ModelError, match=r"it has a mean AUROC of .*, where answers that know nothing.* have 50%"):
        counterpoise.distill(values(tmp_path / "run", **nothing), teacher=fresh)


def test_pairs_are_the_same_everywhere_and_share_no_digit() -> None:
    data = config.Data(source="digit_pairs", options={"train_size": 50, "val_size": 50})
    train, val = sources.load(data)
    assert train.fingerprint() == sources.load(data).train.fingerprint()
    assert all(1 <= count <= 2 for count in (train.labels == 1).sum(1).tolist())
    hidden = sources.load(config.Data(source="digit_pairs", options={"unknown": 0.5, "train_size": 50})).train
    known = hidden.labels >= 0
    assert 0.4 < known.float().mean() < 0.6
    assert torch.equal(hidden.labels[known], train.labels[known])
    assert not torch.equal(train.read(0), val.read(0))
    with pytest.raises(ConfigError, match=r"unknown must be 0 to below 1, got 1"):
        sources.load(config.Data(source="digit_pairs", options={"unknown": 1.0}))
