"""Runs and stores through any sequence of commands, beside a model of what should be there."""

from __future__ import annotations

import functools
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from stopping import AfterSteps
from torch import Tensor, nn

import counterpoise
from counterpoise.data.sources.arrays import ArraySet
from counterpoise.data.sources.base import Splits
from counterpoise.errors import Interrupted, StoreError
from counterpoise.teachers import store as stores

Values = dict[str, Any]
MOST = 6
"""Epochs of the longest run."""


class Teacher(nn.Module):
    """Fixed random answers. After so many pictures it is stopped, as by Ctrl-C."""

    input_size = 8

    def __init__(self, left: float = float("inf")) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(1)
            self.layers = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
        self.left = left

    def forward(self, images: Tensor) -> Tensor:
        self.left -= len(images)
        if self.left < 0:
            raise KeyboardInterrupt
        return 4 * self.layers(images)


@functools.cache
def data() -> Splits:
    """20 pictures to train on, 6 to look at."""
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (26, 3, 8, 8), dtype=np.uint8))
    labels = torch.arange(26) % 3
    return Splits(ArraySet(images[:20], labels[:20], "abc"), ArraySet(images[20:], labels[20:], "abc"))


def values(epochs: int) -> Values:
    """A run that does not depend on how long it is to be, with views that are drawn."""
    train = {"epochs": epochs, "batch_size": 8, "device": "cpu", "precision": "fp32", "ema": 0.9, "log_every": 1}
    return {
        "data": {"views": {"crop": "pad", "padding": 1, "mixup": 0.3}, "workers": 0},
        "student": {"model": "digits/cnn_3_4"},
        "objective": {"cross_entropy": {"weight": 1.0}, "balance": {"weight": 0.5}},
        "train": {**train, "schedule": {"name": "constant"}, "optimizer": {"learning_rate": 0.05}},
    }


class Ended(NamedTuple):
    """What a run ends in."""

    weights: bytes
    epochs: list[int]
    losses: list[float]


def ended(out: Path) -> Ended:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return Ended(
        (out / "student" / "model.safetensors").read_bytes(),
        [line["epoch"] for line in lines if line["kind"] == "epoch"],
        [line["loss"] for line in lines if line["kind"] == "step"],
    )


@functools.cache
def straight(epochs: int) -> Ended:
    """What a run of so many epochs ends in when nothing happens to it."""
    with tempfile.TemporaryDirectory() as place:
        counterpoise.distill({**values(epochs), "out": f"{place}/run"}, data=data(), teacher=Teacher())
        return ended(Path(place) / "run")


@functools.cache
def recorded() -> dict[int, bytes]:
    """The chunks of each epoch of a store of all, one after the other."""
    with tempfile.TemporaryDirectory() as place:
        record(Path(place) / "store", MOST)
        return contents(Path(place) / "store")


def record(out: Path, epochs: int, left: float = float("inf"), part: tuple[int, int] | None = None) -> bool:
    """Whether all is there afterwards. Stopped, where the teacher is asked about more than so many pictures."""
    given: Values = {} if part is None else {"part": part}
    told = counterpoise.record(
        values(epochs), out=out, views="epochs", precision="float32", data=data(), teacher=Teacher(left), **given
    )
    return bool(told["finished"])


def contents(store: Path) -> dict[int, bytes]:
    """The bytes of each epoch of a store."""
    found: dict[int, bytes] = {}
    for path in sorted((store / "chunks").glob("*.bin")):
        epoch = int(path.name.split("-")[0])
        found[epoch] = found.get(epoch, b"") + path.read_bytes()
    return found


class Machine(RuleBasedStateMachine):
    """Folders, and what should be in them: of the run, how long it is and whether it is done; of the store, its epochs.

    Attributes:
        epochs: of the run; 0 where there is none.
        kept: epochs that the store has; None where there is none. `begun`: those of a recording that was stopped.
    """

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp())
        self.run, self.runs, self.epochs, self.done = self.place / "run 0", 0, 0, False
        self.store, self.kept, self.begun = self.place / "store", set[int](), 0
        self.others: dict[Path, Ended] = {}

    def teardown(self) -> None:
        shutil.rmtree(self.place)

    def _train(self, steps: int, **options: Any) -> None:
        """The run, from wherever it is, for so many steps at most."""
        source: Values = {"data": data(), "teacher": Teacher(), "deadline": AfterSteps(steps), **options}
        self.done = True
        try:
            counterpoise.distill({**values(self.epochs), "out": str(self.run)}, **source)
        except Interrupted:
            self.done = False

    @precondition(lambda self: self.epochs == 0)
    @rule(epochs=st.integers(1, 3), steps=st.integers(1, 12))
    def train(self, epochs: int, steps: int) -> None:
        self.epochs = epochs
        self._train(steps)

    @precondition(lambda self: self.epochs and not self.done)
    @rule(steps=st.integers(1, 12))
    def resume(self, steps: int) -> None:
        self._train(steps, resume=True)

    @precondition(lambda self: self.done and self.epochs < MOST)
    @rule(more=st.integers(1, 2), steps=st.integers(1, 12))
    def extend(self, more: int, steps: int) -> None:
        shorter = self.run
        self.others[shorter] = straight(self.epochs)
        self.runs += 1
        self.run, self.epochs = self.place / f"run {self.runs}", min(MOST, self.epochs + more)
        self._train(steps, extend=shorter)

    @precondition(lambda self: not self.kept or self.kept == set(range(len(self.kept))))
    @rule(epochs=st.integers(1, MOST), stopped=st.none() | st.integers(40, 200))
    def record(self, epochs: int, stopped: int | None) -> None:
        if self.begun:  # the same command goes on
            epochs = self.begun
        before = contents(self.store) if self.store.exists() else {}
        try:
            assert record(self.store, epochs, float("inf") if stopped is None else stopped)
        except KeyboardInterrupt:
            assert stopped is not None
            if not self.kept:
                self.begun = epochs
        else:
            self.kept, self.begun = self.kept | set(range(epochs)), 0
        after = contents(self.store)
        assert all(after[epoch].startswith(made) for epoch, made in before.items())

    @precondition(lambda self: not self.kept and not self.begun)
    @rule(epochs=st.integers(1, 3), parts=st.integers(2, 3), gap=st.booleans())
    def merge(self, epochs: int, parts: int, gap: bool) -> None:
        folders = [self.place / f"part {part}" for part in range(parts)]
        for part, folder in enumerate(folders):
            record(folder, epochs, part=(part, parts))
        if gap and contents(folders[-1]):
            with pytest.raises(StoreError, match="are in none of"):
                stores.merge(*folders[:-1], out=self.store)
        stores.merge(*folders, out=self.store)
        self.kept = set(range(epochs))
        for folder in folders:
            shutil.rmtree(folder)

    @precondition(lambda self: len(self.kept) > 1)
    @rule(chance=st.randoms(use_true_random=False))
    def prune(self, chance: Any) -> None:
        keep = chance.sample(sorted(self.kept), chance.randint(1, len(self.kept)))
        stores.prune(self.store, keep=sorted(keep))
        self.kept = set(keep)

    @precondition(lambda self: self.kept)
    @rule(epochs=st.integers(1, 3))
    def train_from_the_store(self, epochs: int) -> None:
        out = self.place / "taught"
        run = {**values(epochs), "teacher": {"store": str(self.store)}, "out": str(out)}
        if self.kept >= set(range(epochs)):
            counterpoise.distill(run, data=data())
            assert ended(out) == straight(epochs)
            shutil.rmtree(out)
        else:
            with pytest.raises(StoreError, match="epoch"):
                counterpoise.distill(run, data=data())
            assert not (out / "student").exists()
            shutil.rmtree(out, ignore_errors=True)

    @invariant()
    def the_run_is_what_it_should_be(self) -> None:
        if self.done:
            assert ended(self.run) == straight(self.epochs)
        elif self.epochs:
            assert not (self.run / "student").exists()
        for folder, expected in self.others.items():
            assert ended(folder) == expected

    @invariant()
    def the_store_has_what_it_should_have(self) -> None:
        if not self.kept:
            return
        found = contents(self.store)
        whole = recorded()
        assert {epoch: found[epoch] for epoch in self.kept} == {epoch: whole[epoch] for epoch in self.kept}
        assert stores.verify(self.store) == []


def through(sequences: int, steps: int, always_the_same: bool) -> None:
    """Try so many sequences of so many commands."""
    from hypothesis.stateful import run_state_machine_as_test

    chosen = settings(
        max_examples=sequences,
        stateful_step_count=steps,
        derandomize=always_the_same,
        database=None,
        phases=(Phase.generate,),
    )
    run_state_machine_as_test(Machine, settings=chosen)


def test_any_sequence_of_commands_leaves_what_it_should() -> None:
    through(2, 6, always_the_same=True)


@pytest.mark.slow
def test_hundreds_of_long_sequences_leave_what_they_should() -> None:
    through(100, 12, always_the_same=False)
