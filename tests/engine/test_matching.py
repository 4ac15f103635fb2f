"""The strength of a term's gradient, beside what one step of plain SGD changes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

import counterpoise
from counterpoise.engine.matching import gradient_norms

TERMS = {"cross_entropy": {"weight": 0.5}, "twice": {"objective": "cross_entropy", "weight": 1.0}}
KD = {"forward_kl": {"weight": 3.0, "temperature": 4.0}}


def values(objective: dict[str, Any], rate: float = 0.1, **others: Any) -> dict[str, Any]:
    optimizer = {"name": "sgd", "learning_rate": rate, "momentum": 0.0, "weight_decay": 0.0, "nesterov": False}
    train = {"epochs": 1, "batch_size": 40, "optimizer": optimizer, "schedule": {"name": "constant"}, "device": "cpu"}
    data = {"source": "digits", "options": {"train_size": 40}, "views": {"crop": "none", "flip": False}}
    student = {"model": "digits/cnn_4_8"}
    return {"data": data, "student": student, "objective": objective, "train": train, "seed": 3, **others}


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("teacher")
    counterpoise.train({**values({"cross_entropy": {"weight": 1.0}}), "out": str(folder / "run")})
    teacher = {"checkpoint": str(folder / "run"), "accept_chance": True}
    counterpoise.record({**values(KD), "teacher": teacher}, out=folder / "store", epochs=1)
    return {"store": str(folder / "store")}


def test_the_norm_is_what_a_step_of_sgd_moves(store: dict[str, Any], tmp_path: Path) -> None:
    """Of two steps from the same weights, at rates 0.5 and 1, the difference is half the gradient."""
    ends = []
    for rate in (0.5, 1.0):
        folder = tmp_path / f"{rate}"
        counterpoise.distill({**values(KD, rate), "teacher": store, "out": str(folder)})
        ends.append(load_file(folder / "student" / "model.safetensors"))
    moved = (one.double() - ends[1][name].double() for name, one in ends[0].items() if one.is_floating_point())
    length = 2 * math.sqrt(math.fsum(float(one.square().sum()) for one in moved))
    found = gradient_norms({**values({**KD, **TERMS}), "teacher": store})
    assert list(found) == ["forward_kl", "cross_entropy", "twice"]
    assert found["forward_kl"] == pytest.approx(length, rel=1e-4)
    assert found["twice"] == pytest.approx(2 * found["cross_entropy"], rel=1e-6)
    assert found == gradient_norms({**values({**KD, **TERMS}), "teacher": store})
