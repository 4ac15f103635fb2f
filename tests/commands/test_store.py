"""`counterpoise record` and `counterpoise store` on real stores of digits."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from counterpoise.commands import app

Run = Callable[..., tuple[int, str, str]]
FAST = ["--train.precision", "fp32", "--train.device", "cpu", "--quiet"]
DIGITS = ["--data.source", "digits", "--data.options.train_size", "100"]


@pytest.fixture(scope="session")
def run_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs with a teacher of digits and 18 views an image."""
    folder = tmp_path_factory.mktemp("runs")
    teacher = folder / "teacher"
    train = ["--train.epochs", "1", "--student.model", "digits/cnn_8_16", "--out", str(teacher)]
    assert app.run(["train", *DIGITS, *FAST, *train]) == 0
    path = folder / "run.yaml"
    path.write_text(
        "data: {source: digits, options: {train_size: 100}, views: {crop: pad, padding: 1}}\n"
        f"teacher: {{checkpoint: {teacher}, accept_chance: true}}\n"
        "student: {model: digits/cnn_4_8}\n"
        "train: {epochs: 2, batch_size: 25, precision: fp32, device: cpu}\n"
    )
    return path


@pytest.fixture(scope="session")
def recorded(run_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("stores") / "whole"
    assert app.run(["record", str(run_file), "--out", str(out), "--quiet"]) == 0
    return out


@pytest.fixture
def store(recorded: Path, tmp_path: Path) -> Path:
    """A copy of one's own."""
    return Path(shutil.copytree(recorded, tmp_path / "store"))


def contents(store: Path) -> dict[str, bytes]:
    return {str(f.relative_to(store)): f.read_bytes() for f in store.rglob("*") if f.is_file() and f.name != ".lock"}


def values(answer: tuple[int, str, str]) -> Any:
    code, out, err = answer
    assert code == 0, err
    return json.loads(out)


def refused(answer: tuple[int, str, str], *words: str) -> None:
    code, _, err = answer
    assert code == 2
    assert "\nError: " in f"\n{err}"  # what was found is said before
    assert "Traceback" not in err
    assert all(word in err for word in words), err


def test_what_was_recorded_is_told(run: Run, run_file: Path, recorded: Path, tmp_path: Path) -> None:
    told = values(run("record", run_file, "--out", tmp_path / "new", "--precision", "int8", "--quiet", "--json"))
    assert told["finished"]
    assert told["state"] == "finished"
    assert told["views"] == "complete, 0-17"
    assert (told["samples"], told["logits"], told["precision"], told["chunks"]) == (100, "10", "int8", 18)
    assert told["architecture"] == "digits/cnn_8_16"
    assert told["bytes"] == 100 * 18 * told["bytes a view of a sample"]
    shown = values(run("store", "info", tmp_path / "new", "--json"))
    assert shown == {key: value for key, value in told.items() if key not in {"store", "finished"}}
    code, out, _ = run("store", "info", recorded)
    assert code == 0
    assert "float16" in out


def test_a_student_learns_from_the_store_alone(run: Run, run_file: Path, store: Path) -> None:
    result = values(run("distill", run_file, "--teacher.store", store, "--out", "student", "--quiet", "--json"))
    assert result["steps"] == 8
    alone = ["distill", *DIGITS, *FAST, "--data.views.crop", "pad", "--data.views.padding", "1"]
    alone += ["--student.model", "digits/cnn_4_8", "--train.epochs", "1", "--teacher.store", str(store)]
    assert values(run(*alone, "--out", "alone", "--json"))["steps"] == 2
    refused(
        run("distill", run_file, "--teacher.store", store, "--data.views.padding", "2", "--out", "other"),
        "does not fit",
        "views, padding: 1 in the store, 2 given",
    )
    size = ("--data.options.train_size", "90")
    refused(run("distill", run_file, "--teacher.store", store, *size, "--out", "other"), "other data", "100 in the")


def test_parts_on_two_machines_merge_into_the_same_bytes(run: Run, run_file: Path, recorded: Path) -> None:
    for part in ("1", "2"):
        told = values(run("record", run_file, "--out", f"part{part}", "--part", f"{part}/2", "--quiet", "--json"))
        assert not told["finished"]
        assert told["state"] == "recording, 9 of 18 chunks"
    refused(run("store", "merge", "part1", "--out", "half"), "9 chunks are in none of part1")
    refused(run("distill", run_file, "--teacher.store", "part1", "--out", "x"), "is not finished: 9 of 18 chunks")
    shown = values(run("store", "merge", "part1", "part2", "--out", "merged", "--json"))
    assert shown["state"] == "finished"
    assert contents(Path("merged")) == contents(recorded)
    refused(run("record", run_file, "--out", "x", "--part", "3/2"), "--part is such as 2/8")
    refused(run("record", run_file, "--out", "x", "--part", "two"), "--part is such as 2/8", "'two'")


def test_a_flipped_bit_is_found_named_and_mended(run: Run, run_file: Path, store: Path, recorded: Path) -> None:
    assert run("store", "verify", store)[:2] == (0, f"{store} is whole.\n")
    chunk = store / "chunks" / "000011-000000.bin"
    data = bytearray(chunk.read_bytes())
    data[100] ^= 4
    chunk.write_bytes(data)
    (store / "chunks" / "000002-000000.bin").unlink()
    cut = store / "chunks" / "000003-000000.bin"
    cut.write_bytes(cut.read_bytes()[:-5])
    problems = ["000002-000000.bin is missing", "000003-000000.bin is truncated", "000011-000000.bin has changed bytes"]
    refused(run("store", "verify", store), *problems, "--discard")
    code, out, _ = run("store", "verify", store, "--json")
    assert code == 2
    assert [damage["chunk"] for damage in json.loads(out)] == [problem.split()[0] for problem in problems]
    refused(run("store", "verify", store, "--discard"), *problems, "They are removed: record again")
    assert not chunk.exists()
    assert run("record", run_file, "--out", store, "--quiet")[0] == 0
    assert contents(store) == contents(recorded)


def test_a_store_is_extended_by_the_epochs_it_lacks(run: Run, run_file: Path) -> None:
    by_epochs = ("--views", "epochs", "--precision", "int4", "--quiet")
    assert run("record", run_file, *by_epochs, "--epochs", "3", "--out", "three")[0] == 0
    assert run("record", run_file, *by_epochs, "--out", "store")[0] == 0
    before = contents(Path("store"))
    told = values(run("store", "extend", run_file, "--out", "store", "--epochs", "3", "--quiet", "--json"))
    assert told["views"] == "epochs, 0-2"
    assert contents(Path("store")) == contents(Path("three"))
    assert before.items() - contents(Path("store")).items() == {("index.json", before["index.json"])}
    refused(run("store", "extend", run_file, "--epochs", "3"), "extend needs --out")
    refused(run("store", "extend", run_file, "--out", "store", "--seed", "9"), "does not fit", "seed: 0 in the store")
    refused(run("record", run_file, *by_epochs, "--epochs", "0", "--out", "other"), "epochs must be at least 1")


def test_a_store_is_made_smaller(run: Run, store: Path) -> None:
    told = values(run("store", "prune", store, "--precision", "int4", "--keep", "0-3,7", "--out", "small", "--json"))
    assert (told["views"], told["precision"]) == ("complete, 0-3, 7", "int4")
    assert values(run("store", "info", store, "--json"))["views"] == "complete, 0-17"
    assert values(run("store", "prune", store, "--keep", "0,2", "--json"))["views"] == "complete, 0, 2"
    assert len(list((store / "chunks").glob("*.bin"))) == 2
    assert run("store", "verify", store)[0] == 0
    refused(run("store", "prune", store), "prune needs --keep", "--precision")
    refused(run("store", "prune", store, "--keep", "0-x"), "numbers and ranges such as", "0-x")
    refused(run("store", "prune", store, "--keep", "9"), "9 cannot be kept")
    refused(run("store", "prune", store, "--precision", "int8"), "folder of its own")


@pytest.mark.parametrize("keep", ["5-2", "3-", "-3", "0-99999999999", "a", ""])
def test_views_to_keep_that_are_no_numbers_are_said(run: Run, store: Path, keep: str) -> None:
    refused(run("store", "prune", store, f"--keep={keep}"), f"0-49 or 0,3,7-9, got '{keep}'")
    refused(run("store", "prune", store, "--keep", "0-999999"), "holds views 0-17; 18-999999 cannot be kept")


def test_more_parts_than_chunks_merge(run: Run, run_file: Path, recorded: Path) -> None:
    for part in (1, 2, 3):  # one chunk an epoch: the first has none
        arguments = ["--views", "epochs", "--out", f"{part}", "--part", f"{part}/3", "--quiet", "--json"]
        assert not values(run("record", run_file, *arguments))["finished"]
    assert "recording, 0 of 2 chunks): what is there is whole" in run("store", "verify", "1")[1]
    assert values(run("store", "merge", "1", "2", "3", "--out", "all", "--json"))["state"] == "finished"
    assert "all is whole." in run("store", "verify", "all")[1]


def test_a_file_is_no_store(run: Run, run_file: Path) -> None:
    refused(run("store", "verify", run_file), "run.yaml holds no store")
    refused(run("distill", run_file, "--teacher.store", run_file, "--out", "run"), "run.yaml holds no store")


def test_an_address_is_no_folder_to_write_to(run: Run, run_file: Path, store: Path, tmp_path: Path) -> None:
    for command in (
        ["record", run_file, "--quiet", "--out", "s3://bucket/new"],
        ["store", "info", "s3://bucket/new"],
        ["store", "verify", "s3://bucket/new"],
        ["store", "extend", run_file, "--out", "s3://bucket/new"],
        ["store", "prune", store, "--keep", "0-3", "--out", "s3://bucket/new"],
        ["store", "merge", store, "--out", "s3://bucket/new"],
    ):
        refused(run(*command), "s3://bucket/new is an address", "a folder on this machine")
    assert not (tmp_path / "s3:").exists()


def test_a_teacher_computed_otherwise_does_not_go_on_with_a_recording(run: Run, run_file: Path, tmp_path: Path) -> None:
    half = ["--teacher.precision", "bf16", "--quiet"]
    assert run("record", run_file, "--out", "one", "--part", "1/2", *half)[0] == 0
    words = ["precision of the teacher: bfloat16 in the store, float32 given"]
    refused(run("record", run_file, "--out", "one", "--quiet"), *words)
    assert run("record", run_file, "--out", "two", "--part", "2/2", "--quiet")[0] == 0
    refused(run("store", "merge", "one", "two", "--out", "both"), *words)
    assert run("record", run_file, "--out", "one", *half)[0] == 0
    assert "whole" in run("store", "verify", "one")[1]


def test_views_are_those_that_were_asked_for(run: Run, run_file: Path) -> None:
    plain = values(run("record", run_file, "--views", "plain", "--out", "plain", "--quiet", "--json"))
    assert plain["views"] == "plain, 0"
    refused(run("distill", run_file, "--teacher.store", "plain", "--out", "x"), "views, crop: none in the store, pad")
    untouched = ["--data.views.crop", "none", "--data.views.no-flip"]
    assert run("distill", run_file, *untouched, "--teacher.store", "plain", "--out", "run", "--quiet")[0] == 0
    mixing = ("--data.views.mixup", "0.2")
    told = values(run("record", run_file, *mixing, "--out", "mixed", "--quiet", "--json"))
    assert told["views"] == "epochs, 0-1"
    refused(run("record", run_file, *mixing, "--views", "complete", "--out", "x"), "cannot be counted")
    refused(run("record", run_file, "--out", "x", "--precision", "int7"), "Did you mean 'int8'")
    refused(run("record", run_file, "--out", "x", "--views", "some"), "some")
    refused(run("record", run_file), "record needs a folder for the store: give --out")


def test_a_folder_that_holds_something_else_is_left_alone(run: Run, run_file: Path, store: Path) -> None:
    Path("photos").mkdir()
    Path("photos/one.jpg").touch()
    refused(run("record", run_file, "--out", "photos"), "photos holds other files (one.jpg)")
    assert [file.name for file in Path("photos").iterdir()] == ["one.jpg"]
    before = contents(store)
    refused(run("record", run_file, "--out", store, "--precision", "int8"), "precision: float16 in the store, int8")
    assert contents(store) == before
    for command in ("info", "verify"):
        refused(run("store", command, "nowhere"), "nowhere holds no store")
