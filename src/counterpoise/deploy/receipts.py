"""Receipts: what a run was made of and what came of it, with hashes, and whether it still is."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from counterpoise import config
from counterpoise.config.options import Place
from counterpoise.data import sources
from counterpoise.deploy import folder as exports
from counterpoise.engine.networks import build_teacher
from counterpoise.engine.run_folder import IDENTITY, RUN_FILE, STUDENT, SUMMARY
from counterpoise.errors import CounterpoiseError, ModelError, RunError
from counterpoise.models import folder as students
from counterpoise.system import documents
from counterpoise.system.files import write_text
from counterpoise.teachers.store.format import INDEX

RECEIPT, VERSION = "receipt.json", 1
SAME, CHANGED, MISSING = "same", "changed", "not here"


class Receipt(BaseModel):
    """What a receipt states.

    Attributes:
        receipt: its version.
        files: SHA-256 of run file, student and exports, by place in the run's folder.
        made_of: fingerprints of the data, and who the teacher is, as `identity.json` has them.
        store: SHA-256 of the index of the teacher store that the run file names; None where it names none.
        architecture: of the student.
        last: scores after the last epoch.
        again: the command that makes the run again, in its folder.
        paragraph: all of it in words.
    """

    receipt: int
    files: dict[str, str]
    made_of: dict[str, str]
    store: str | None
    architecture: str
    steps: int
    last: dict[str, float]
    again: str
    paragraph: str = ""


def receipt(run: Place) -> dict[str, Any]:
    """Write `receipt.json` into a finished run's folder: a function of what lies there, so the same on every machine.

    Returns:
        Its values, see `Receipt`.

    Raises RunError where the folder holds no finished run.
    """
    path = Path(run)
    values = _of(path).model_dump()
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
    stated, home = _read(path), path.parent
    if not (home / RUN_FILE).is_file():
        raise RunError(f"{path} does not lie in its run's folder, which has {RUN_FILE}: put it back there.")
    rows = [_row(what, said, found) for what, said, found in _compared(stated, home)]
    changed = [row for row in rows if row["state"] == CHANGED]
    if changed:
        told = "".join(f"\n  {row['what']}: stated {row['stated'][:16]}, found {row['found'][:16]}" for row in changed)
        raise ModelError(f"{path} states other things than there are:{told}")
    return rows


def _read(path: Path) -> Receipt:
    try:
        values = documents.read_json(path)
        version = values.get("receipt") if isinstance(values, dict) else None
        if isinstance(version, int) and version > VERSION:
            raise RunError(f"{path} is a receipt of version {version}, and this program knows {VERSION}: update it.")
        stated = Receipt.model_validate(values)
    except (OSError, ValidationError, ValueError):
        raise RunError(f"{path} is no receipt, or is damaged: counterpoise receipt RUN writes one.") from None
    home = path.parent.resolve()
    for name in stated.files:
        if not (home / name).resolve().is_relative_to(home):
            raise RunError(f"{path} names {name!r:.80}, which does not lie in its folder.")
    return stated


def _row(what: str, said: str, found: str | None) -> dict[str, str]:
    state = MISSING if found is None else SAME if found == said else CHANGED
    return {"what": what, "state": state, "stated": said, "found": found or ""}


def _of(path: Path) -> Receipt:
    """The receipt of a run's folder."""
    if not (path / SUMMARY).is_file():
        raise RunError(f"{path} holds no finished run: a receipt is of one (summary.json).")
    run = config.kept(path / RUN_FILE)
    summary = documents.read_json(path / SUMMARY, within=path)
    names = [RUN_FILE, *(f"{STUDENT}/{name}" for name in (students.WEIGHTS, students.DESCRIPTION))]
    places = _exports(path)
    for place in places:
        names += [f"{place}/{name}" for name in sorted(exports.read(path / place).files)]
    found = Receipt(
        receipt=VERSION,
        files=_hashes(path, names),
        made_of=documents.read_json(path / IDENTITY, within=path),
        store=_store(run),
        architecture=students.describe(path / STUDENT / students.DESCRIPTION).architecture,
        steps=summary["steps"],
        last=summary["last"],
        again=f"counterpoise {'train' if run.teacher is None else 'distill'} {RUN_FILE} --out again",
    )
    return found.model_copy(update={"paragraph": _paragraph(found, run, places)})


def _exports(path: Path) -> list[str]:
    """Folders of exports within a run, by their place in it."""
    found = [Path(place) for place, _, files in os.walk(path) if exports.DESCRIPTION in files]
    return sorted(place.relative_to(path).as_posix() for place in found)


def _hashes(folder: Path, names: list[str]) -> dict[str, str]:
    """SHA-256 of those files of a folder that are there."""
    return {name: file.sha256 for name, file in exports.measured(folder, tuple(names)).items()}


def _store(run: config.Run) -> str | None:
    """SHA-256 of the index of the store that a run names; None where there is none on this machine."""
    if run.teacher is None or run.teacher.store is None:
        return None
    return _hashes(Path(run.teacher.store), [INDEX]).get(INDEX)


def _compared(stated: Receipt, home: Path) -> Iterator[tuple[str, str, str | None]]:
    """What a receipt states, and what there is: name, stated hash, found hash or None."""
    run = config.kept(home / RUN_FILE)
    there = _hashes(home, list(stated.files))
    for name, said in stated.files.items():
        yield name, said, there.get(name)
    if stated.store is not None:
        yield "index of the store", stated.store, _store(run)
    try:
        splits = sources.load(run.data)
    except CounterpoiseError:
        splits = None
    for part, images in (("data", splits and splits.train), ("val", splits and splits.val)):
        if part in stated.made_of:
            yield f"fingerprint of {part}", stated.made_of[part], images.fingerprint() if images else None
    if "teacher" in stated.made_of:
        yield "weights of the teacher", stated.made_of["teacher"], _teacher(run, splits and splits.train.classes)


def _teacher(run: config.Run, classes: tuple[str, ...] | None) -> str | None:
    """The hash of a teacher's weights; None where it is not on this machine, or needs code that nobody named."""
    if run.teacher is None or classes is None:
        return None
    try:
        return build_teacher(run, classes).weights_hash()
    except CounterpoiseError:
        return None


def _paragraph(found: Receipt, run: config.Run, places: list[str]) -> str:
    """All of it in words."""
    metric, score = next((key, value) for key, value in found.last.items() if key != "epoch")
    taught = "on labels alone"
    if "teacher" in found.made_of:
        taught = f"by {found.made_of.get('teacher.architecture', 'a teacher')} ({found.made_of['teacher'][:12]})"
    kept = "" if run.teacher is None or run.teacher.store is None else ", whose answers had been recorded"
    made = f" It was exported to {', '.join(places)}." if places else ""
    return (
        f"{found.architecture} ({found.files[f'{STUDENT}/{students.WEIGHTS}'][:12]}) was trained {taught}{kept}, in "
        f"{found.steps:,} steps with seed {run.seed}, on data of fingerprint {found.made_of['data'][:12]}; {metric} "
        f"{score:.2f} after the last epoch.{made} `{found.again}` in its folder makes it again."
    )
