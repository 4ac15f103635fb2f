"""Receipts: what a run was made of and what came of it, with hashes, and whether it still is."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from counterpoise import config
from counterpoise.config.options import Place
from counterpoise.data import sources
from counterpoise.deploy import folder as exports
from counterpoise.engine.networks import build_teacher
from counterpoise.engine.run_folder import IDENTITY, RUN_FILE, STUDENT, SUMMARY
from counterpoise.errors import CounterpoiseError, ModelError, RunError
from counterpoise.models import folder as students
from counterpoise.system import documents
from counterpoise.system.files import regular, write_text
from counterpoise.teachers.store.format import INDEX

RECEIPT, VERSION = "receipt.json", 1
SAME, CHANGED, MISSING = "same", "changed", "not here"


def receipt(run: Place) -> dict[str, Any]:
    """Write `receipt.json` into a finished run's folder: a function of what lies there, so the same on every machine.

    Returns:
        {"receipt", "run", "made_of", "store", "student", "exports", "again", "paragraph"}: hashes are SHA-256; made_of
        has the fingerprints of the data and who the teacher is, as `identity.json` has them; exports lie in the run.

    Raises RunError where the folder holds no finished run.
    """
    path = Path(run)
    values = _of(path)
    write_text(path / RECEIPT, json.dumps(values, indent=2) + "\n")
    return values


def is_receipt(path: Path) -> bool:
    """Whether a path is that of a receipt."""
    return path.suffix == ".json" and path.is_file()


def check(path: Path) -> list[dict[str, str]]:
    """What a receipt names, each the same, changed or not here; files are those beside the receipt.

    Returns:
        A row a thing: {"what", "state", "stated", "found"}.

    Raises:
        RunError: no receipt, one of a newer version, or its run is not beside it.
        ModelError: something is there and is another one than was stated.
    """
    try:
        stated = documents.read_json(path)
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}.") from None
    if not isinstance(stated, dict) or not isinstance(stated.get("receipt"), int):
        raise RunError(f"{path} is no receipt: counterpoise receipt RUN writes one.")
    if stated["receipt"] > VERSION:
        raise RunError(
            f"{path} is a receipt of version {stated['receipt']}, and this program knows {VERSION}: update it."
        )
    home = path.parent
    if not (home / RUN_FILE).is_file():
        raise RunError(f"{path} does not lie in its run's folder, which has {RUN_FILE}: put it back there.")
    rows = [_row(what, said, found) for what, said, found in _compared(stated, home)]
    changed = [row for row in rows if row["state"] == CHANGED]
    if changed:
        told = "".join(f"\n  {row['what']}: stated {row['stated'][:16]}, found {row['found'][:16]}" for row in changed)
        raise ModelError(f"{path} states other things than there are:{told}")
    return rows


def _row(what: str, said: str, found: str | None) -> dict[str, str]:
    state = MISSING if found is None else SAME if found == said else CHANGED
    return {"what": what, "state": state, "stated": said, "found": found or ""}


def _of(path: Path) -> dict[str, Any]:
    """The values of a receipt of a run's folder."""
    if not (path / SUMMARY).is_file():
        raise RunError(f"{path} holds no finished run: a receipt is of one (summary.json).")
    run = config.kept(path / RUN_FILE)
    summary = documents.read_json(path / SUMMARY, within=path)
    identity = documents.read_json(path / IDENTITY, within=path)
    described = students.describe(path / STUDENT / students.DESCRIPTION)
    found = {
        "receipt": VERSION,
        "run": {RUN_FILE: _hash(path / RUN_FILE), "steps": summary["steps"], "last": summary["last"]},
        "made_of": identity,
        "store": None if run.teacher is None or run.teacher.store is None else _store(run.teacher.store),
        "student": {
            "architecture": described.architecture,
            **{name: _hash(path / STUDENT / name) for name in (students.WEIGHTS, students.DESCRIPTION)},
        },
        "exports": {place: _export(path / place) for place in _exports(path)},
        "again": f"counterpoise {'train' if run.teacher is None else 'distill'} {RUN_FILE} --out again",
    }
    return {**found, "paragraph": _paragraph(found, run)}


def _exports(path: Path) -> list[str]:
    """Folders of exports within a run, by their place in it."""
    found = []
    for place, _, files in os.walk(path):
        if exports.DESCRIPTION in files:
            found.append(Path(place).relative_to(path).as_posix())
    return sorted(found)


def _export(place: Path) -> dict[str, str]:
    described = exports.read(place)
    return {name: file.sha256 for name, file in sorted(described.files.items())}


def _store(place: str) -> dict[str, str | None]:
    index = Path(place) / INDEX
    return {"path": place, INDEX: _hash(index) if index.is_file() else None}


def _hash(path: Path) -> str:
    return hashlib.sha256(regular(path).read_bytes()).hexdigest()


def _compared(stated: dict[str, Any], home: Path) -> Iterator[tuple[str, str, str | None]]:
    """What a receipt states, and what there is: name, stated hash, found hash or None."""
    run = config.kept(home / RUN_FILE)
    yield RUN_FILE, stated["run"][RUN_FILE], _hash(home / RUN_FILE)
    for name in (students.WEIGHTS, students.DESCRIPTION):
        file = home / STUDENT / name
        yield f"{STUDENT}/{name}", stated["student"][name], _hash(file) if file.is_file() else None
    for place, files in stated["exports"].items():
        for name, said in files.items():
            file = home / place / name
            yield f"{place}/{name}", said, _hash(file) if file.is_file() else None
    if stated["store"] is not None and stated["store"][INDEX] is not None:
        index = Path(stated["store"]["path"]) / INDEX
        yield str(index), stated["store"][INDEX], _hash(index) if index.is_file() else None
    made_of = stated["made_of"]
    try:
        splits = sources.load(run.data)
    except CounterpoiseError:
        splits = None
    for part, images in (("data", splits and splits.train), ("val", splits and splits.val)):
        yield f"fingerprint of {part}", made_of[part], images.fingerprint() if images else None
    if "teacher" in made_of and run.teacher is not None and splits is not None:
        try:
            found = build_teacher(run, splits.train.classes).weights_hash()
        except CounterpoiseError:
            found = None
        yield "weights of the teacher", made_of["teacher"], found


def _paragraph(found: dict[str, Any], run: config.Run) -> str:
    """All of it in words."""
    metric, score = next((key, value) for key, value in found["run"]["last"].items() if key != "epoch")
    made_of, student = found["made_of"], found["student"]
    taught = "on labels alone"
    if "teacher" in made_of:
        taught = f"by {made_of.get('teacher.architecture', 'a teacher')} ({made_of['teacher'][:12]})"
    kept = "" if found["store"] is None else f", whose answers were recorded in {found['store']['path']}"
    made = f" It was exported to {', '.join(found['exports'])}." if found["exports"] else ""
    return (
        f"{student['architecture']} ({student[students.WEIGHTS][:12]}) was trained {taught}{kept}, in "
        f"{found['run']['steps']:,} steps with seed {run.seed}, on data of fingerprint {made_of['data'][:12]}; "
        f"{metric} {score:.2f} after the last epoch.{made} `{found['again']}` in its folder makes it again."
    )
