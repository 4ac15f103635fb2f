"""A student, its exports and their card: as a folder, and onto a server that speaks the Hub's language."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hub_server import Hub
from huggingface_hub import ModelCard

import counterpoise

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="session")
def exported(digits_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ONNX export of the digits' student, and what was measured of both, in a folder beside the run."""
    out = tmp_path_factory.mktemp("published") / "onnx-float32"
    counterpoise.export(digits_run, to="onnx", out=out)
    measured = counterpoise.measure([digits_run, out], threads=[1], batches=[1], rounds=6, seconds=0.01)
    strangers = [{**entry, "sha256": {"model.onnx": "of another"}} for entry in measured["measured"]]
    (out.parent / "measured.json").write_text(json.dumps({**measured, "measured": [*measured["measured"], *strangers]}))
    return out


def test_folder_for_the_hub_has_a_card_that_tells_of_every_export(
    digits_run: Path, exported: Path, run: Run, tmp_path: Path
) -> None:
    given = ["--exports", exported, "--measured", exported.parent / "measured.json"]
    before = (digits_run / "student" / "README.md").read_bytes()
    code, out, err = run("push", digits_run, "--out", tmp_path / "hub", *given, "--license", "apache-2.0")
    assert (code, err, "exports/onnx-float32/model.onnx" in out) == (0, "", True)
    assert (digits_run / "student" / "README.md").read_bytes() == before
    card = ModelCard.load(tmp_path / "hub" / "README.md")
    assert card.data.license == "apache-2.0"
    assert card.data.library_name == "counterpoise"
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in card.text.splitlines() if "|" in line]
    (export,) = [row for row in rows if row[0] == "`exports/onnx-float32`"]
    assert export[1:4] == ["onnx float32", export[2], export[3]]
    assert export[3].startswith("top1 ")
    assert export[4:] == ["0.00 (0.00 to 0.00)", "100.00% of 180", "", "yes"]
    measured = json.loads((exported.parent / "measured.json").read_text())
    assert export[2] == f"{(exported / 'model.onnx').stat().st_size / 1e6:.3g}"
    assert sum(len(row) == 6 and row[1:3] == ["1", "1"] for row in rows) == 2  # not those of others
    latencies = {row[0]: row for row in rows if len(row) == 6 and row[1:3] == ["1", "1"]}
    assert latencies.keys() == {"pytorch float32", "onnx float32"}
    assert measured["machine"]["processor"] in latencies["onnx float32"][5]
    facts = {row[0]: row[1] for row in rows if len(row) == 2}
    assert facts["objective.cross_entropy.weight"] == "1"
    assert facts["training data"].startswith(f"fingerprint `{facts['data_fingerprint'][:16]}`")
    assert facts["network `digits/cnn_8_16`"] == "counterpoise, Apache-2.0"
    student = counterpoise.load_student(tmp_path / "hub")
    assert student.description == counterpoise.load_student(digits_run).description
    assert counterpoise.verify(tmp_path / "hub" / "exports" / "onnx-float32")["format"] == "onnx"

    code, _, err = run("push", tmp_path / "hub", "--out", tmp_path / "again", *given, "--license", "mit")
    assert (code, err) == (0, "")
    text = (tmp_path / "again" / "README.md").read_text()
    assert (text.count("## Exports"), text.count("license:"), "license: mit" in text) == (1, 1, True)


def test_student_and_exports_are_committed_to_the_hub(digits_run: Path, exported: Path, run: Run, hub: Hub) -> None:
    given = ["--to", "acme/ducks", "--exports", exported, "--private"]
    code, out, _ = run("push", digits_run, *given, "--json")
    assert code == 0
    (created,) = hub.created
    assert (created["organization"], created["name"]) == ("acme", "ducks")
    assert created.get("visibility") == "private" or created["private"]  # newer and older libraries
    assert sorted(hub.files) == json.loads(out)["files"]
    for name in ("model.safetensors", "student.json"):
        assert hub.files[name] == (digits_run / "student" / name).read_bytes()
    for file in exported.iterdir():
        assert hub.files[f"exports/onnx-float32/{file.name}"] == file.read_bytes()
    assert b"## Exports" in hub.files["README.md"]


def test_the_receipt_of_a_run_goes_with_its_student(digits_run: Path, run: Run, tmp_path: Path) -> None:
    own = Path(shutil.copytree(digits_run, tmp_path / "run"))
    stated = counterpoise.receipt(own)
    code, out, _ = run("push", own, "--out", tmp_path / "hub")
    assert (code, "receipt.json" in out) == (0, True)
    content = (tmp_path / "hub" / "receipt.json").read_bytes()
    assert content == (own / "receipt.json").read_bytes()
    card = (tmp_path / "hub" / "README.md").read_text()
    section = card.partition("## Receipt\n\n")[2].partition("\n\n## ")[0]
    assert section.startswith(f"{stated['paragraph']}\n\n")
    assert f"`{hashlib.sha256(content).hexdigest()}`" in section
    found = hashlib.sha256((tmp_path / "hub" / "model.safetensors").read_bytes()).hexdigest()
    assert stated["files"]["student/model.safetensors"] == found

    assert run("push", tmp_path / "hub", "--out", tmp_path / "again")[0] == 0
    assert (tmp_path / "again" / "receipt.json").read_bytes() == content
    assert (tmp_path / "again" / "README.md").read_text().count("## Receipt") == 1
    assert run("push", own, "--out", tmp_path / "best", "--epoch", "best")[0] == 0
    assert not (tmp_path / "best" / "receipt.json").exists()  # which is of other weights
    assert "## Receipt" not in (tmp_path / "best" / "README.md").read_text()

    with (own / "student" / "student.json").open("a") as file:
        file.write("\n")
    code, _, err = run("push", own, "--out", tmp_path / "changed")
    assert code == 2
    assert "states another student.json than that of" in " ".join(err.split())
    (own / "receipt.json").write_text("{")
    code, _, err = run("push", own, "--out", tmp_path / "damaged")
    assert (code, "is no receipt, or is damaged" in " ".join(err.split())) == (2, True)


def test_what_cannot_be_pushed_is_told(
    digits_run: Path,
    scenes_run: Path,
    exported: Path,
    run: Run,
    hub: Hub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(*arguments: str | Path) -> str:
        code, _, err = run("push", *arguments)
        assert code == 2
        return " ".join(err.split())

    assert "push needs --to org/name or --out FOLDER, one of them" in refused(digits_run)
    assert "--private is of a repository on the Hub" in refused(digits_run, "--out", "ducks", "--private")
    assert "--to is org/name, such as acme/ducks, got 'ducks'" in refused(digits_run, "--to", "ducks")
    assert "was made from another student" in refused(scenes_run, "--out", tmp_path / "x", "--exports", exported)
    assert "is there already" in refused(digits_run, "--out", exported)
    given = ("--exports", exported, "--measured", exported / "export.json")
    assert "is nothing that counterpoise measure wrote" in refused(digits_run, "--out", tmp_path / "x", *given)
    assert not (tmp_path / "x").exists()
    hub.allowed = False
    told = refused(digits_run, "--to", "acme/ducks")
    assert f"{hub.url} did not take acme/ducks: " in told
    assert "Log in with hf auth login" in told
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    told = refused(digits_run, "--to", "acme/ducks")
    assert "http://127.0.0.1:9 cannot be reached" in told
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://hub.invalid")
    assert "http://hub.invalid cannot be reached" in refused(digits_run, "--to", "acme/ducks")
