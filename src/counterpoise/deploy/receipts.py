"""Receipts: what a run was made of and what came of it, with hashes, and whether it still is."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from counterpoise import config
from counterpoise.config.options import Place
from counterpoise.data import sources
from counterpoise.deploy import folder as exports
from counterpoise.engine.assemble import teacher_of
from counterpoise.engine.receipts import RECEIPT, VERSION, Receipt, hashes, read
from counterpoise.engine.run_folder import IDENTITY, RUN_FILE, STUDENT, SUMMARY
from counterpoise.errors import CounterpoiseError, ModelError, RunError
from counterpoise.models import folder as students
from counterpoise.system import documents, own_code
from counterpoise.system.addresses import address_of
from counterpoise.system.files import expanded, write_text
from counterpoise.teachers.store.format import INDEX

SAME, CHANGED, MISSING = "same", "changed", "not here"


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
    stated, home = read(path), path.parent
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
    files = hashes(path, names)
    if missing := [name for name in names if name not in files]:
        raise RunError(f"{path} lacks {', '.join(missing)}, or it is a link to elsewhere: a receipt is of a whole run.")
    found = Receipt(
        receipt=VERSION,
        files=files,
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


def _store(run: config.Run) -> str | None:
    """SHA-256 of the index of the store that a run names; None where there is none on this machine."""
    if run.teacher is None or run.teacher.store is None:
        return None
    return hashes(Path(run.teacher.store), [INDEX]).get(INDEX)


def _compared(stated: Receipt, home: Path) -> Iterator[tuple[str, str, str | None]]:
    """What a receipt states, and what there is: name, stated hash, found hash or None."""
    run = config.kept(home / RUN_FILE)
    there = hashes(home, stated.files)
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
        return teacher_of(run, classes).weights_hash()
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
    begin = _relative(run)
    are = "is" if len(begin) == 1 else "are"
    where = f"where {', '.join(begin)} {are}, with {RUN_FILE} there" if begin else "in its folder"
    return (
        f"{found.architecture} ({found.files[f'{STUDENT}/{students.WEIGHTS}'][:12]}) was trained {taught}{kept}, in "
        f"{found.steps:,} steps with seed {run.seed}, on data of fingerprint {found.made_of['data'][:12]}; {metric} "
        f"{score:.2f} after the last epoch.{made} `{found.again}` makes it again, called {where}."
    )


def _relative(run: config.Run) -> list[str]:
    """What a run file names by a path from the working folder on: data, weights, stores, code of one's own."""
    values = run.model_dump(exclude={"out"})
    named = [*_paths(values), *(Path(name.rpartition(":")[0]) for _, name in own_code.named_code(values))]
    here = [path for path in named if address_of(path) is None and not expanded(path).is_absolute()]
    return list(dict.fromkeys(path.as_posix() for path in here))


def _paths(values: Any, key: str = "") -> Iterator[Path]:
    if isinstance(values, Mapping):
        for name, value in values.items():
            yield from _paths(value, name)
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _paths(value)
    elif isinstance(values, Path) or (isinstance(values, str) and key == "store"):
        yield Path(values)
