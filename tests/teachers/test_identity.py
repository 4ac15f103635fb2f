"""A teacher is all that its answers depend on, for stores and for runs that go on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import counterpoise
from counterpoise import config
from counterpoise.errors import Interrupted, RunError, StoreError
from counterpoise.teachers import store as stores

DATA = {"source": "digits", "options": {"train_size": 60}, "views": {"crop": "pad", "padding": 1}, "workers": 0}
TRAIN = {"epochs": 2, "batch_size": 20, "precision": "fp32", "device": "cpu"}
REVERSED = {str(digit): 9 - digit for digit in range(10)}
NET = """
from torch import nn
GAIN = 1.0
class Scaled(nn.Conv2d):
    def forward(self, images):
        return GAIN * super().forward(images)
def make(num_classes):
    return nn.Sequential(Scaled(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes))
"""


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("teacher") / "run"
    counterpoise.train({"data": DATA, "train": TRAIN, "student": {"model": "digits/cnn_8_16"}, "out": out})
    return out


def values(weights: Path, **changed: Any) -> dict[str, Any]:
    common = {"data": DATA, "train": TRAIN, "student": {"model": "digits/cnn_4_8"}}
    return config.merge({**common, "teacher": {"checkpoint": str(weights), "accept_chance": True}}, changed)


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    path = tmp_path / "classes.yaml"
    path.write_text(yaml.safe_dump({str(digit): digit for digit in range(10)}))
    return path


@pytest.fixture
def store(teacher: Path, tmp_path: Path) -> Path:
    """One view of 18."""
    out = tmp_path / "store"
    counterpoise.record(values(teacher), out=out, views="epochs", epochs=1)
    return out


def others(teacher: Path, tmp_path: Path) -> Mapping[str, dict[str, Any]]:
    """Teachers of the same weights that answer otherwise, by what differs."""
    file = tmp_path / "reversed.yaml"
    file.write_text(yaml.safe_dump(REVERSED))
    return {
        r"normalization of the teacher: mean .* in the store, mean 0\.2, 0\.2, 0\.2": {"mean": [0.2, 0.2, 0.2]},
        r"classes of the teacher: as they are in the store, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0 given": {"classes": str(file)},
        r"input size of the teacher: .* in the store, 16 pixels given": {"input_size": 16},
    }


def begin(run: dict[str, Any], resume: bool = False) -> None:
    """Do a step, and stop with a checkpoint."""
    with pytest.raises(Interrupted):
        counterpoise.distill(run, resume=resume, deadline=0.0)


def earlier(store: Path) -> None:
    """Make the store what earlier versions wrote, which kept the hash of the weights."""
    index = json.loads((store / "index.json").read_text())
    index["notes"] = {key: index["notes"][key] for key in ("architecture", "computed_in")}
    (store / "index.json").write_text(json.dumps(index))


def test_a_store_takes_no_answers_of_the_same_weights_shown_or_mapped_otherwise(
    store: Path, teacher: Path, tmp_path: Path
) -> None:
    before = (store / "index.json").read_bytes()
    for words, section in others(teacher, tmp_path).items():
        with pytest.raises(StoreError, match=words):
            counterpoise.record(values(teacher, teacher=section), out=store, views="epochs", epochs=2)
        with pytest.raises(StoreError, match=words):
            counterpoise.distill(values(teacher, teacher={**section, "store": str(store)}, out=tmp_path / "run"))
        other = tmp_path / "other"
        counterpoise.record(values(teacher, teacher=section), out=other, views="epochs", epochs=1)
        with pytest.raises(StoreError, match=words):
            stores.merge(store, other, out=tmp_path / "both")
        for path in sorted(other.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
    assert (store / "index.json").read_bytes() == before
    assert counterpoise.record(values(teacher), out=store, views="epochs", epochs=2)["views"] == "epochs, 0-1"


def test_a_store_that_knows_weights_alone_asks_its_teacher_once_more(
    store: Path, teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    earlier(store)
    assert stores.info(store)["teacher known by"] == "its weights alone"
    for section in others(teacher, tmp_path).values():
        with pytest.raises(StoreError, match=r"weights alone.*answers otherwise.*teacher\.mean"):
            counterpoise.record(values(teacher, teacher=section), out=store, views="epochs", epochs=2)
        with pytest.raises(StoreError, match="answers otherwise"):
            counterpoise.distill(values(teacher, teacher={**section, "store": str(store)}, out=tmp_path / "run"))
    once = values(teacher, teacher={"store": str(store)}, train={"epochs": 1})
    counterpoise.distill({**once, "out": tmp_path / "run"}, show=True)
    assert "asked once more, it answers the same" in capsys.readouterr().err.replace("\n", " ")
    counterpoise.distill(config.merge(once, {"teacher": {"checkpoint": None}, "out": tmp_path / "alone"}), show=True)
    assert "normalization and classes are not known" in capsys.readouterr().err.replace("\n", " ")
    new = tmp_path / "new"
    counterpoise.record(values(teacher), out=new, views="epochs", epochs=1)
    with pytest.raises(StoreError, match=r"store knows its teacher by weights alone.*store extend"):
        stores.merge(store, new, out=tmp_path / "both")
    extended = counterpoise.record(values(teacher), out=store, views="epochs", epochs=2)
    assert extended["normalization"].startswith("mean")
    assert "teacher known by" not in extended
    stores.merge(store, new, out=tmp_path / "both")


def test_a_run_does_not_go_on_with_a_teacher_whose_classes_were_edited(
    teacher: Path, classes: Path, tmp_path: Path
) -> None:
    run = values(teacher, teacher={"classes": str(classes)}, out=tmp_path / "run")
    begin(run)
    classes.write_text("# a comment changes nothing\n" + classes.read_text())
    begin(run, resume=True)
    moved = tmp_path / "moved.yaml"
    moved.write_text(classes.read_text())
    begin(config.merge(run, {"teacher": {"classes": str(moved)}}), resume=True)
    classes.write_text(yaml.safe_dump(REVERSED))
    with pytest.raises(RunError, match=r"(?s)another teacher.*classes: as they are there, 9, 8.*teacher.classes"):
        counterpoise.distill(run, resume=True)


@pytest.mark.parametrize("beside", [False, True])
def test_a_run_does_not_go_on_with_a_teacher_whose_code_was_edited(tmp_path: Path, beside: bool) -> None:
    file = tmp_path / "net.py"
    file.write_text(NET.replace("GAIN = 1.0", "from gains import GAIN") if beside else NET)
    (tmp_path / "gains.py").write_text("GAIN = 1.0")
    network = {"model": f"{file}:make"}
    own = counterpoise.train({"data": DATA, "train": TRAIN, "student": network, "out": tmp_path / "teacher"}).folder
    run = values(own, teacher=network, out=tmp_path / "run")
    begin(run)
    begin(run, resume=True)
    (tmp_path / "unused.py").write_text("GAIN = 1.0")  # lies beside it, and is not imported
    begin(run, resume=True)
    if beside:
        file = tmp_path / "gains.py"
    file.write_text(file.read_text().replace("GAIN = 1.0", "GAIN = 2.0"))
    with pytest.raises(RunError, match=r"(?s)another teacher.*code.*: sha256 .*the file.* in teacher.model"):
        counterpoise.distill(run, resume=True)


def test_a_run_of_an_earlier_version_goes_on_and_says_what_is_not_known(
    teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = values(teacher, out=tmp_path / "run")
    begin(run)
    file = tmp_path / "run/checkpoints/last.safetensors"
    with safe_open(file, "pt") as checkpoint:
        metadata = checkpoint.metadata()
    header = json.loads(metadata["counterpoise"])
    header["origin"] = {key: header["origin"][key] for key in ("data", "teacher")}
    tensors = load_file(file)
    save_file(tensors, file, {"format": "pt", "counterpoise": json.dumps(header)})  # and they had no checksum
    (tmp_path / "run/identity.json").unlink()
    counterpoise.distill(run, resume=True, show=True)
    assert "of this run's teacher the weights alone" in capsys.readouterr().err.replace("\n", " ")
