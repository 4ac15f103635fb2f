"""Receipts: the same on every machine, and whatever changed since is named."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import counterpoise
from counterpoise.errors import ModelError, RunError

GOLDEN = Path(__file__).parents[1] / "golden"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of digits with a teacher, and an export of it."""
    place = tmp_path_factory.mktemp("receipts")
    data = {"source": "digits", "options": {"train_size": 60}, "workers": 0}
    train = {"epochs": 1, "batch_size": 30, "device": "cpu", "precision": "fp32"}
    values: dict[str, Any] = {"data": data, "train": train}
    counterpoise.train({**values, "student": {"model": "digits/cnn_8_16"}, "out": place / "teacher"})
    teacher = {"checkpoint": str(place / "teacher"), "accept_chance": True}
    counterpoise.distill({**values, "teacher": teacher, "student": {"model": "digits/cnn_4_8"}, "out": place / "run"})
    shutil.copytree(GOLDEN / "onnx", place / "run" / "exports" / "onnx-float32")  # as export leaves one
    return place / "run"


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    """The run elsewhere, with its receipt."""
    shutil.copytree(made, tmp_path / "moved")
    counterpoise.receipt(tmp_path / "moved")
    return tmp_path / "moved"


def test_a_receipt_is_the_same_wherever_the_run_lies_and_all_of_it_is_found_again(
    made: Path, copy: Path, run: Run
) -> None:
    code, out, _ = run("receipt", made)
    assert "makes it again, called in its folder." in " ".join(out.split())
    assert (code, (made / "receipt.json").read_bytes()) == (0, (copy / "receipt.json").read_bytes())
    assert out.startswith("digits/cnn_4_8 (")
    assert "was trained by digits/cnn_8_16" in out
    items = json.loads(run("verify", copy / "receipt.json", "--json")[1])["items"]
    assert {row["state"] for row in items} == {"same"}
    told = {row["what"] for row in items}
    assert {"run.yaml", "student/model.safetensors", "fingerprint of data", "weights of the teacher"} <= told
    assert "exports/onnx-float32/model.onnx" in told


@pytest.mark.parametrize("what", ["run.yaml", "student/model.safetensors", "exports/onnx-float32/model.onnx"])
def test_what_has_changed_is_named(copy: Path, run: Run, what: str) -> None:
    with (copy / what).open("ab") as file:
        file.write(b"\n")
    with pytest.raises(ModelError, match=f"states other things than there are:\n  {what}: stated "):
        counterpoise.verify(copy / "receipt.json")
    assert run("verify", copy / "receipt.json")[0] == 2


def test_what_is_not_here_is_told(copy: Path, run: Run) -> None:
    shutil.rmtree(copy / "exports")
    found = {row["what"]: row["state"] for row in counterpoise.verify(copy / "receipt.json")["items"]}
    assert found["exports/onnx-float32/model.onnx"] == "not here"
    assert found["student/model.safetensors"] == "same"


def test_a_receipt_that_moved_or_is_none_is_refused(copy: Path, tmp_path: Path) -> None:
    alone = tmp_path / "receipt.json"
    shutil.copy(copy / "receipt.json", alone)
    with pytest.raises(RunError, match=r"does not lie in its run's folder, which has run\.yaml: put it back there"):
        counterpoise.verify(alone)
    for content in ("{}", "[]", "{", '{"receipt": 1}'):
        alone.write_text(content)
        with pytest.raises(RunError, match="is no receipt, or is damaged: counterpoise receipt RUN writes one"):
            counterpoise.verify(alone)
    alone.write_text('{"receipt": 2}')
    with pytest.raises(RunError, match="is a receipt of version 2, and this program knows 1"):
        counterpoise.verify(alone)
    stated = json.loads((copy / "receipt.json").read_text())
    stated["files"]["../elsewhere"] = "0"
    (copy / "receipt.json").write_text(json.dumps(stated))
    with pytest.raises(RunError, match=r"names '\.\./elsewhere', which does not lie in its folder"):
        counterpoise.verify(copy / "receipt.json")
    with pytest.raises(RunError, match="holds no finished run"):
        counterpoise.receipt(tmp_path)


def test_a_run_of_relative_paths_is_made_again_from_where_they_lead(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made.parent / "teacher", tmp_path / "teacher")
    values = yaml.safe_load((made / "run.yaml").read_text())
    values |= {"out": "runs/first", "teacher": {"checkpoint": "teacher", "accept_chance": True}}
    counterpoise.distill(values)
    told = counterpoise.receipt("runs/first")
    assert told["paragraph"].endswith("--out again` makes it again, called where teacher is, with run.yaml there.")
    shutil.copy("runs/first/run.yaml", "run.yaml")
    assert run(*told["again"].split()[1:], "--quiet")[0] == 0
    first, again = (
        hashlib.sha256(Path(run_, "student/model.safetensors").read_bytes()) for run_ in ("runs/first", "again")
    )
    assert first.digest() == again.digest()
