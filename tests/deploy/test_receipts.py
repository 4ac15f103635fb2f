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
from counterpoise.engine.student import load_student
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
    assert {"exports/onnx-float32/model.onnx", "exports/onnx-float32/export.json", "teacher.normalization"} <= told
    assert {"architecture", "steps", "last", "again", "paragraph", "identity.json"} <= told


@pytest.mark.parametrize("what", ["run.yaml", "student/model.safetensors", "exports/onnx-float32/model.onnx"])
def test_what_has_changed_is_named(copy: Path, run: Run, what: str) -> None:
    with (copy / what).open("ab") as file:
        file.write(b"\n")
    with pytest.raises(ModelError, match=f"states other things than there are:\n  {what}: stated "):
        counterpoise.verify(copy / "receipt.json")
    assert run("verify", copy / "receipt.json")[0] == 2


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_what_a_receipt_says_in_words_and_what_an_export_says_of_itself_count(copy: Path) -> None:
    receipt, export = copy / "receipt.json", copy / "exports" / "onnx-float32" / "export.json"
    change(export, verified=not json.loads(export.read_text())["verified"])  # as verify sets it on another machine
    counterpoise.verify(receipt)
    change(export, parameters=1)
    with pytest.raises(ModelError, match=r"onnx-float32/export\.json: stated"):
        counterpoise.verify(receipt)
    counterpoise.receipt(copy)
    whole = receipt.read_text()
    for name, value in (
        ("paragraph", "It is the best."),
        ("last", {"top1": 99.0}),
        ("steps", 10**6),
        ("again", "rm -r ."),
        ("architecture", "timm/resnet50"),
    ):
        change(receipt, **{name: value})
        with pytest.raises(ModelError, match=f"\n  {name}: stated "):
            counterpoise.verify(receipt)
        receipt.write_text(whole)
    made_of = {**json.loads(whole)["made_of"], "teacher.normalization": "mean 0, std 1"}
    change(receipt, made_of=made_of)
    with pytest.raises(
        ModelError, match=r"identity\.json(.|\n)*teacher\.normalization: stated mean 0, std 1, found mean 0\.5"
    ):
        counterpoise.verify(receipt)
    change(receipt, receipt=1, exports={}, made_of=json.loads(whole)["made_of"], paragraph="As version 1 had it.")
    counterpoise.verify(receipt)
    change(receipt, files={})
    with pytest.raises(
        RunError, match=r"states nothing of run\.yaml, student/model\.safetensors, student/student\.json"
    ):
        counterpoise.verify(receipt)
    receipt.write_text(whole)
    change(receipt, files={**json.loads(whole)["files"], "a\0b": "0"})
    with pytest.raises(RunError, match="does not lie in its folder"):
        counterpoise.verify(receipt)


def test_a_student_that_is_gone_and_files_that_cannot_be_read_are_no_same(copy: Path) -> None:
    (copy / "exports" / "onnx-float32" / "model.onnx").unlink()
    (copy / "exports" / "onnx-float32" / "model.onnx").mkdir()
    with pytest.raises(ModelError, match=r"model\.onnx: stated \w{16}, cannot be read, or a link to elsewhere"):
        counterpoise.verify(copy / "receipt.json")
    shutil.rmtree(copy / "student")
    with pytest.raises(ModelError, match=r"student/model\.safetensors: stated \w{16}, not here"):
        counterpoise.verify(copy / "receipt.json")


@pytest.mark.parametrize("name", ["summary.json", "identity.json"])
@pytest.mark.parametrize("content", ["{", "[]", '{"steps": "many"}', '{"data": 3}'])
def test_a_run_whose_own_files_are_damaged_is_refused(copy: Path, run: Run, name: str, content: str) -> None:
    (copy / name).write_text(content)
    code, _, error = run("receipt", copy)
    assert (code, name in error, "estore it from a copy" in error) == (2, True, True)
    code, _, error = run("verify", copy / "receipt.json")
    assert (code, "states other things" in error or name in error) == (2, True)


def test_data_and_teacher_that_cannot_be_read_are_told_from_what_is_not_here(
    image_folder: Path, tmp_path: Path, run: Run
) -> None:
    data = {"path": str(image_folder), "size": 16, "workers": 0}
    values: dict[str, Any] = {"data": data, "train": {"epochs": 1, "device": "cpu"}}
    counterpoise.train({**values, "student": {"model": "digits/cnn_4_8"}, "out": tmp_path / "teacher"})
    teacher = {"checkpoint": str(tmp_path / "teacher"), "accept_chance": True}
    student = {"model": "digits/cnn_4_8"}
    counterpoise.record({**values, "teacher": teacher, "student": student, "seed": 3}, out=tmp_path / "store-3")
    stored = {"teacher": {"store": str(tmp_path / "store-{seed}")}, "student": student, "seed": 3}
    counterpoise.distill({**values, **stored, "out": tmp_path / "run"})
    receipt = tmp_path / "run" / "receipt.json"
    assert len(counterpoise.receipt(tmp_path / "run")["store"]) == 64

    def states() -> dict[str, str]:
        return {row["what"]: row["state"] for row in counterpoise.verify(receipt)["items"]}

    assert set(states().values()) == {"same"}
    assert {"teacher store", "chunks of the store", "data.sample", "val.sample"} <= states().keys()
    (chunk,) = (tmp_path / "store-3" / "chunks").iterdir()
    whole = chunk.read_bytes()
    chunk.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ModelError, match="chunks of the store: stated as its index has them, found damaged: "):
        counterpoise.verify(receipt)
    chunk.write_bytes(whole[:-1])
    with pytest.raises(ModelError, match=r"teacher store: stated .*, cannot be read: Chunk .* has .* bytes"):
        counterpoise.verify(receipt)
    chunk.write_bytes(whole)
    picture = next((image_folder / "train").rglob("*.png"))
    content = picture.read_bytes()
    picture.write_bytes(content[:-1] + b"?")  # as long as it was
    with pytest.raises(ModelError, match=r"data\.sample: stated "):
        counterpoise.verify(receipt)
    picture.write_bytes(content)
    shutil.move(image_folder, tmp_path / "elsewhere")
    shutil.move(tmp_path / "store-3", tmp_path / "stored")
    assert {what for what, state in states().items() if state == "not here"} >= {"fingerprint of data", "teacher store"}
    image_folder.mkdir()
    with pytest.raises(ModelError, match=r"fingerprint of data: stated .*, cannot be read: "):
        counterpoise.verify(receipt)


def test_a_run_that_its_file_alone_does_not_make_says_so(made: Path, tmp_path: Path) -> None:
    values = yaml.safe_load((made.parent / "teacher" / "run.yaml").read_text())
    longer = {**values, "out": str(tmp_path / "longer"), "train": {**values["train"], "epochs": 2}}
    counterpoise.train(longer, extend=made.parent / "teacher")
    told = counterpoise.receipt(tmp_path / "longer")
    assert told["again"] == "counterpoise train run.yaml --extend SHORTER --out again"
    assert told["paragraph"].endswith("SHORTER is the run of 1 epochs that it went on from.")
    given = {key: value for key, value in values.items() if key != "student"}
    network = load_student(made)
    counterpoise.train({**given, "out": str(tmp_path / "handed")}, student=network)
    told = counterpoise.receipt(tmp_path / "handed")
    assert told["again"] is None
    assert "run.yaml alone does not make it again: its network, teacher or data were handed in" in told["paragraph"]
    assert counterpoise.verify(tmp_path / "handed" / "receipt.json")["items"]


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
    for content in ("{}", "[]", "{", '{"receipt": 2}'):
        alone.write_text(content)
        with pytest.raises(RunError, match="is no receipt, or is damaged: counterpoise receipt RUN writes one"):
            counterpoise.verify(alone)
    alone.write_text('{"receipt": 3}')
    with pytest.raises(RunError, match="is a receipt of version 3, and this program knows 2"):
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
