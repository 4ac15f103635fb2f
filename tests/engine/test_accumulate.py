"""A batch taken in parts is one step by all of it."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import counterpoise
from counterpoise import config
from counterpoise.data.epochs import Batch
from counterpoise.engine.assemble import assemble
from counterpoise.engine.processes import Processes
from counterpoise.engine.step import Optimization, parts_of
from counterpoise.errors import ConfigError
from counterpoise.objectives.balance import BalanceDivergence
from counterpoise.objectives.base import Objective, counted
from counterpoise.objectives.cirkd import CrossImageRelations
from counterpoise.objectives.composite import WeightedSum
from counterpoise.objectives.crd import ContrastiveDistillation
from counterpoise.objectives.views import InParts
from counterpoise.outputs import Outputs
from counterpoise.teachers.stored import Read

DIGITS: dict[str, Any] = {"source": "digits", "options": {"train_size": 101}, "views": {"mixup": 0.3}}
TRAIN: dict[str, Any] = {
    "epochs": 2,
    "batch_size": 40,
    "precision": "fp32",
    "device": "cpu",
    "log_every": 1,
    "ema": 0.9,
    "clip_gradient": 1.0,
    "optimizer": {"learning_rate": 0.01},
}
WORDS = {"cross_entropy": {"label_smoothing": 0.1}, "balance": {"weight": 1.0}}


def plain(seed: int = 0) -> nn.Module:
    """A network without batch norm."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(6), nn.Flatten(), nn.Linear(288, 10))


def train(out: Path, accumulate: int, **train: Any) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """The weights that a run ends with, and what it logged of its steps."""
    values = {"data": DIGITS, "train": {**TRAIN, "accumulate": accumulate, **train}, "objective": WORDS}
    teacher = {"teacher": {"accept_chance": True, "outputs": "logits"}}
    counterpoise.distill({**values, **teacher, "out": str(out)}, student=plain(), teacher=plain(1))
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return load_file(out / "student" / "model.safetensors"), [line for line in lines if line["kind"] == "step"]


def test_a_run_in_parts_takes_the_steps_of_the_whole_batches(tmp_path: Path) -> None:
    weights, steps = train(tmp_path / "whole", 1)
    in_parts, others = train(tmp_path / "parts", 7)  # the last batch has 21 images, of unlike parts
    for name, value in weights.items():
        torch.testing.assert_close(in_parts[name], value, rtol=1e-4, atol=1e-6)
    assert [(line["step"], line["learning_rate"]) for line in others] == [
        (line["step"], line["learning_rate"]) for line in steps
    ]
    for one, other in zip(steps, others, strict=True):
        assert other["terms"] == pytest.approx(one["terms"], rel=1e-4, abs=1e-6)


def test_a_last_batch_has_no_more_parts_than_every_process_has_images() -> None:
    assert [parts_of(total, 4, 2) for total in (1, 2, 7, 8, 9, 100)] == [1, 1, 3, 4, 4, 4]
    assert parts_of(3, 1, 2) == 1
    for total in range(2, 40):
        shares = [total * (rank + 1) // 2 - total * rank // 2 for rank in (0, 1)]
        assert min(shares) >= parts_of(total, 4, 2)


def test_parts_are_all_of_the_batch_in_order() -> None:
    batch = Batch(torch.arange(7), torch.arange(7) * 2, torch.arange(7) * 3, 14)
    for count in range(1, 8):
        parts = batch.parts(count)
        sizes = [len(part.images) for part in parts]
        assert len(parts) == count
        assert max(sizes) - min(sizes) <= 1
        for name in ("images", "target", "indices"):
            assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(batch, name))
        assert {part.total for part in parts} == {14}


def test_what_a_store_says_of_a_part_is_of_its_samples() -> None:
    known = torch.tensor([True, False, True, True, False])
    read = Read(torch.tensor([[0.0], [2.0], [3.0]]), known)
    for rows, logits in ((slice(0, 2), [[0.0]]), (slice(1, 4), [[2.0], [3.0]]), (slice(4, 5), []), (slice(0, 5), None)):
        part = read.part(rows)
        assert torch.equal(part.known, known[rows])
        assert part.logits.tolist() == (read.logits.tolist() if logits is None else logits)


def test_too_many_parts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"accumulate cuts 40 images \(batch_size\) into 41 parts"):
        train(tmp_path / "run", 41)
    run = config.resolve({"data": DIGITS, "train": {**TRAIN, "accumulate": 12}, "objective": {"cross_entropy": {}}})
    parts = assemble(run, Processes(0, 1, torch.device("cpu")), student=plain())
    with pytest.raises(ConfigError, match=r"accumulate is 12, and each of 4 processes has 10 images of a batch of 40"):
        Optimization(run, parts, Processes(0, 4, torch.device("cpu")))


def test_the_fast_step_is_not_taken_and_says_why(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"train.fast: .* train.accumulate takes a batch in parts"):
        train(tmp_path / "run", 2, fast=True)


def test_a_part_of_one_that_batch_norm_cannot_take_is_explained(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 10), nn.BatchNorm1d(10))
    values = {"data": DIGITS, "train": {**TRAIN, "accumulate": 40}, "objective": {"cross_entropy": {}}}
    with pytest.raises(ConfigError, match=r"one a part \(train.accumulate\)"):
        counterpoise.train({**values, "out": str(tmp_path / "run")}, student=net)


def feature(samples: int, channels: int, seed: int) -> Outputs:
    made = torch.randn(samples, channels, 4, 4, generator=torch.Generator().manual_seed(seed))
    return Outputs(made.mean((2, 3))[:, :3], {"@-1": made})


@pytest.mark.parametrize("kind", [ContrastiveDistillation, CrossImageRelations])
def test_what_remembers_says_what_it_would_count_and_changes_nothing(kind: type[Objective]) -> None:
    student, teacher = feature(6, 5, 0), feature(6, 7, 1)
    target = torch.randint(3, (6,) if kind is ContrastiveDistillation else (6, 4, 4))
    target[0] = -1
    objective = kind()
    objective.prepare(student, teacher, 20)
    before, random = copy.deepcopy(objective.state_dict()), torch.get_rng_state()
    told = objective.counts(student.repeated(6), teacher.repeated(6), target)
    assert torch.equal(random, torch.get_rng_state())
    for name, value in objective.state_dict().items():
        assert torch.equal(value, before[name]), name
    objective.set_batch(torch.arange(6))
    terms = counted(objective.terms(student, teacher, target), 6)
    assert {name: int(term.count or 0) for name, term in terms.items()} == {
        name: int(count or 0) for name, count in told.items()
    }


def test_counting_leaves_every_module_in_its_mode_and_moves_no_average() -> None:
    balance = BalanceDivergence(rule="self_tuning", temperature_rule="per_sample")
    next(balance.children()).eval()
    modes, before = [one.training for one in balance.modules()], copy.deepcopy(balance.state_dict())
    logits = torch.randn(4, 3)
    assert {name: int(count) for name, count in balance.counts(Outputs(logits), Outputs(logits), None).items() if count}
    assert [one.training for one in balance.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in balance.state_dict().items())


def test_what_looks_at_the_whole_batch_sees_a_part_and_counts_by_its_size() -> None:
    student, teacher = torch.randn(2, 9, 5, dtype=torch.float64)
    target = torch.tensor([0, 1, -1, 2, 3, 4, 0, -1, -1])
    terms = {"dist": {}, "mlkd": {"ignore_index": -1}}
    shares = [slice(0, 3), slice(3, 9)]
    whole = InParts([target[shares[1]]])
    for name, arguments in terms.items():
        found, expected = 0.0, 0.0
        whole.divisors = None
        for share, weight in zip(shares, (3, 6) if name == "dist" else (2, 4), strict=True):
            sides = Outputs(student[share]), Outputs(teacher[share])
            objective = WeightedSum({name: arguments})
            found += float(objective(*sides, target[share], batch=whole).total)
            expected += weight / (9 if name == "dist" else 6) * float(objective(*sides, target[share]).total)
        assert found == pytest.approx(expected, rel=1e-12)


ARGUMENTS = [
    *("train", "--data.source", "digits", "--data.options.train_size", "600", "--train.device", "cpu", "--quiet"),
    *("--train.precision", "fp32", "--train.epochs", "6", "--train.batch_size", "50", "--train.log_every", "5"),
    *("--train.checkpoint_minutes", "0.001", "--student.model", "digits/cnn_4_8", "--train.accumulate", "3"),
    *("--train.optimizer.learning_rate", "0.01"),
]


@pytest.mark.slow
def test_kills_end_in_the_same_bytes(host: Any, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    seconds = host.run([*ARGUMENTS, "--out", str(whole)])
    kills = 0
    while kills < 4:
        again = ["--resume"] if killed.exists() else []
        kills += host.kill_within([*ARGUMENTS, "--out", str(killed), *again], 0.3 * seconds) and killed.exists()
    host.run([*ARGUMENTS, "--out", str(killed), "--resume"])
    ends = [(run / "student" / "model.safetensors").read_bytes() for run in (whole, killed)]
    assert ends[0] == ends[1]


@pytest.mark.slow
def test_parts_in_two_processes_with_one_batch_norm_are_as_in_one_process(host: Any, tmp_path: Path) -> None:
    """600 images in batches of 50: parts of 8 and 9 in each process, of 16 and 17 in both."""
    own = tmp_path / "net.py"
    own.write_text(
        "from torch import nn\n\n\ndef make(num_classes):\n"
        "    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, num_classes))\n"
        "    net.input_size = 8\n    return net\n"
    )
    arguments = [f"{own}:make" if value == "digits/cnn_4_8" else value for value in ARGUMENTS]
    one, two, alone = tmp_path / "one", tmp_path / "two", tmp_path / "alone"
    host.run([*arguments[:-4], *arguments[-2:], "--out", str(alone)])
    host.run([*arguments, "--out", str(one)])
    host.together([*arguments, "--out", str(two), "--train.sync_batch_norm"])
    weights, found, whole = (load_file(run / "student" / "model.safetensors") for run in (one, two, alone))
    for name, value in whole.items():
        torch.testing.assert_close(weights[name], value, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-4)
