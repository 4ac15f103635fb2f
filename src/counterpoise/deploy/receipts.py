"""Receipts: what a run was made of and what came of it, with hashes, and whether it still is."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from counterpoise import config
from counterpoise.config.options import Place
from counterpoise.data import sources
from counterpoise.data.sources.loading import AUTO
from counterpoise.deploy import folder as exports
from counterpoise.engine.assemble import open_store, teacher_identity
from counterpoise.engine.export_student import STORED
from counterpoise.engine.identify import identify, own
from counterpoise.engine.receipts import ALWAYS, VERSION, Receipt, hashes, read
from counterpoise.engine.run_folder import IDENTITY, RECEIPT, RUN_FILE, STUDENT, SUMMARY
from counterpoise.errors import CounterpoiseError, ModelError, RunError, damage, first_line
from counterpoise.models import folder as students
from counterpoise.system import documents, own_code
from counterpoise.system.addresses import address_of
from counterpoise.system.files import expanded, write_text
from counterpoise.teachers.store.format import INDEX

SAME, CHANGED, MISSING = "same", "changed", "not here"
UNREADABLE = "cannot be read"


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
    """What a receipt states, each the same, changed or not here; files are those beside the receipt.

    Returns:
        A row a thing: {"what", "state", "stated", "found"}.

    Raises:
        RunError: no receipt, one of a newer version, or its run is not beside it.
        ModelError: something is there and is another one than was stated, or cannot be read; or the student is gone.
    """
    stated, home = read(path), path.parent
    if not (home / RUN_FILE).is_file():
        raise RunError(f"{path} does not lie in its run's folder, which has {RUN_FILE}: put it back there.")
    rows = [_row(what, said, found) for what, said, found in _compared(stated, home)]
    lost = [row for row in rows if row["state"] == CHANGED or (row["state"] == MISSING and row["what"] in ALWAYS)]
    if lost:
        told = "".join(
            f"\n  {row['what']}: stated {_short(row['stated'])}, {_short(row['found'], 'found ') or MISSING}"
            for row in lost
        )
        raise ModelError(f"{path} states other things than there are:{told}")
    return rows


def _short(value: str, before: str = "") -> str:
    """A hash by its first digits; words as they are."""
    cut = value[:16] if len(value) == 64 and " " not in value else value[:200]
    return cut if value.startswith(UNREADABLE) or not value else before + cut


def _row(what: str, said: str, found: str | None) -> dict[str, str]:
    state = MISSING if found is None else SAME if found == said else CHANGED
    return {"what": what, "state": state, "stated": said, "found": found or ""}


def _of(path: Path) -> Receipt:
    """The receipt of a run's folder. Raises RunError or ModelError where something of it is missing or damaged."""
    if not (path / SUMMARY).is_file():
        raise RunError(f"{path} holds no finished run: a receipt is of one (summary.json).")
    run = config.kept(path / RUN_FILE)
    summary, made_of = (_values(path / name) for name in (SUMMARY, IDENTITY))
    places = _exports(path)
    names = [*ALWAYS, *(f"{place}/{name}" for place in places for name in sorted(exports.read(path / place).files))]
    files = hashes(path, names)
    if missing := [name for name in names if name not in files]:
        raise RunError(f"{path} lacks {', '.join(missing)}, or it is a link to elsewhere: a receipt is of a whole run.")
    described = students.describe(path / STUDENT / students.DESCRIPTION)
    try:
        found = Receipt(
            receipt=VERSION,
            files=files,
            exports={place: _described(path / place) for place in places},
            made_of=made_of,
            store=_noted_store(described),
            architecture=described.architecture,
            steps=summary["steps"],
            last=summary["last"],
            again=_again(run, made_of),
        )
        return found.model_copy(update={"paragraph": _paragraph(found, run)})
    except (LookupError, TypeError, ValueError) as error:  # a ValidationError is a ValueError
        raise RunError(
            f"{path / SUMMARY} or {IDENTITY} is damaged: {damage(error)}. Restore it from a copy, or train again."
        ) from None


def _values(path: Path) -> dict[str, Any]:
    """What a file of the run says. Raises RunError."""
    try:
        found = documents.read_json(path, within=path.parent)
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {first_line(error)}. Restore it from a copy, or train again.") from None
    if not isinstance(found, dict):
        raise RunError(f"{path} is damaged: restore it from a copy, or train again.")
    return found


def _exports(path: Path) -> list[str]:
    """Folders of exports within a run, by their place in it."""
    found = [Path(place) for place, _, files in os.walk(path) if exports.DESCRIPTION in files]
    return sorted(place.relative_to(path).as_posix() for place in found)


def _described(place: Path) -> str:
    """SHA-256 of what an export says of itself, but for whether it was verified, which other machines find."""
    values = exports.read(place).model_dump(mode="json", exclude={"verified"})
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _noted_store(described: students.Description) -> str | None:
    """Hashes of the stores that a student learned from, as it was trained; None without, or of earlier versions."""
    teacher = described.provenance.get("teacher")
    noted = teacher.get(STORED) if isinstance(teacher, dict) else None
    return " ".join(map(str, noted)) if isinstance(noted, list) else None


def _again(run: config.Run, made_of: Mapping[str, str]) -> str | None:
    """The command that makes a run again; None where its file does not name all that it was made of."""
    handed_in = (
        (run.student.model is None and run.student.checkpoint is None)
        or (run.teacher is None and "teacher" in made_of)
        or (run.data.path is None and run.data.source == AUTO)
    )
    if handed_in:
        return None
    command = f"counterpoise {'train' if run.teacher is None else 'distill'} {RUN_FILE}"
    return f"{command}{' --extend SHORTER' if run.train.extends else ''} --out again"


def _compared(stated: Receipt, home: Path) -> Iterator[tuple[str, str, str | None]]:
    """What a receipt states, and what there is: name, stated, and found, or None where it is not here."""
    for name, said in stated.files.items():
        yield name, said, _file(home, name)
    for place, said in stated.exports.items():
        path = home / place / exports.DESCRIPTION
        yield f"{place}/{exports.DESCRIPTION}", said, _here(path, partial(_described, path.parent))
    yield from _statements(stated, home)
    run = config.kept(home / RUN_FILE)
    if stated.store is not None:
        yield from _stores(stated, run)
    identity = _identity(run)
    for key, said in stated.made_of.items():
        part = key.partition(".")[0]
        yield NAMES.get(key, key), said, identity.get(key, identity.get(f"{part} unread"))


NAMES = {"data": "fingerprint of data", "val": "fingerprint of val", "teacher": "weights of the teacher"}
"""What parts of an identity are called; others by their keys."""


def _file(home: Path, name: str) -> str | None:
    found = hashes(home, [name]).get(name)
    return found or (f"{UNREADABLE}, or a link to elsewhere" if os.path.lexists(home / name) else None)


def _here(path: Path, find: Callable[[], str]) -> str | None:
    """What is found of a thing that lies at a path, or that it cannot be read; None where it does not lie there."""
    try:
        return find() if os.path.lexists(path) else None
    except (CounterpoiseError, OSError) as error:
        return f"{UNREADABLE}: {first_line(error)}"


def _statements(stated: Receipt, home: Path) -> Iterator[tuple[str, str, str | None]]:
    """What a receipt says beside hashes, and what the run's own files say; of this version's receipts alone."""
    if stated.receipt < VERSION:
        return
    try:
        summary, run = _values(home / SUMMARY), config.kept(home / RUN_FILE)
    except CounterpoiseError as error:
        yield SUMMARY, f"{stated.steps} steps", None if not (home / SUMMARY).exists() else f"{UNREADABLE}: {error}"
        return
    plain = stated.model_copy(update={"paragraph": ""})
    described = _here(home / STUDENT, lambda: students.describe(home / STUDENT / students.DESCRIPTION).architecture)
    for name, said, found in (
        ("architecture", stated.architecture, described),
        ("steps", stated.steps, summary.get("steps")),
        ("last", _sorted(stated.last), _sorted(summary.get("last"))),
        ("again", stated.again, _again(run, stated.made_of)),
        (
            "paragraph",
            stated.paragraph,
            _paragraph(plain.model_copy(update={"again": _again(run, stated.made_of)}), run),
        ),
    ):
        yield name, str(said), str(found)
    yield IDENTITY, _digest(stated.made_of), _here(home / IDENTITY, lambda: _digest(_values(home / IDENTITY)))


def _sorted(scores: Any) -> str:
    """Scores as text that does not depend on their order, nor on whether a whole number has a point."""
    if not isinstance(scores, dict) or not all(isinstance(value, int | float) for value in scores.values()):
        return str(scores)
    return ", ".join(f"{name} {float(value)}" for name, value in sorted(scores.items()))


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(dict(values), sort_keys=True).encode()).hexdigest()


def _stores(stated: Receipt, run: config.Run) -> Iterator[tuple[str, str, str | None]]:
    """The stores of a run: their contents, and the checksums of their chunks."""
    assert stated.store is not None
    named = [str(path) for path in _named_stores(run)]
    there = all(address_of(Path(name)) is not None or expanded(Path(name)).exists() for name in named)
    try:
        stored = open_store(run)
    except CounterpoiseError as error:
        yield "teacher store", stated.store, f"{UNREADABLE}: {first_line(error)}" if there and named else None
        return
    if stored is None:
        yield "teacher store", stated.store, None
        return
    with contextlib.closing(stored):
        each = stored.opened()
        if stated.receipt == 1:
            yield "teacher store", stated.store, hashes(Path(named[0]), [INDEX]).get(INDEX)
        else:
            yield "teacher store", stated.store, " ".join(store.content_hash() for store in each)
        try:
            damaged = [f"{store.name}: {name}" for store in each for name in store.damaged()]
        except OSError as error:
            damaged = [str(error)]
        yield "chunks of the store", SOUND, f"damaged: {', '.join(damaged)}" if damaged else SOUND


SOUND = "as its index has them"


def _named_stores(run: config.Run) -> list[Path]:
    section = run.teacher
    if section is None:
        return []
    names = [section.store, *(member.store for member in section.members)]
    return [Path(str(name).replace("{seed}", str(run.seed))) for name in names if name is not None]


def _identity(run: config.Run) -> dict[str, str]:
    """What `identify` finds of a run now. Of a part that is there and cannot be read "PART unread" says so."""
    found = dict(own(run))
    try:
        splits = sources.load(run.data)
    except CounterpoiseError as error:
        path = run.data.path
        if path is not None and address_of(path) is None and expanded(path).exists():
            found |= dict.fromkeys(("data unread", "val unread"), f"{UNREADABLE}: {first_line(error)}")
        return found
    found |= identify(splits.train, splits.val, {}, run.data)
    try:
        found |= identify(splits.train, splits.val, teacher_identity(run, splits.train.classes), run.data)
    except CounterpoiseError as error:
        named = [] if run.teacher is None else [run.teacher.checkpoint, *_named_stores(run)]
        named += [] if run.teacher is None else [member.checkpoint for member in run.teacher.members]
        needs_code = any(key.startswith("teacher.") for key, _ in own_code.named_code(run))
        paths = [path for path in named if path is not None and address_of(path) is None]
        if paths and not needs_code and all(expanded(path).exists() for path in paths):
            found["teacher unread"] = f"{UNREADABLE}: {first_line(error)}"
    return found


def _paragraph(found: Receipt, run: config.Run) -> str:
    """All of it in words."""
    metric, score = next((key, value) for key, value in found.last.items() if key != "epoch")
    taught = "on labels alone"
    if "teacher" in found.made_of:
        taught = f"by {found.made_of.get('teacher.architecture', 'a teacher')} ({found.made_of['teacher'][:12]})"
    kept = ", whose answers had been recorded" if found.store is not None or _named_stores(run) else ""
    places = list(dict.fromkeys(name.rpartition("/")[0] for name in found.files if name not in ALWAYS))
    made = f" It was exported to {', '.join(places)}." if places else ""
    return (
        f"{found.architecture} ({found.files[f'{STUDENT}/{students.WEIGHTS}'][:12]}) was trained {taught}{kept}, in "
        f"{found.steps:,} steps with seed {run.seed}, on data of fingerprint {found.made_of['data'][:12]}; {metric} "
        f"{score:.2f} after the last epoch.{made} {_made_again(found, run)}"
    )


def _made_again(found: Receipt, run: config.Run) -> str:
    """The sentence on how."""
    if found.again is None:
        return (
            f"{RUN_FILE} alone does not make it again: its network, teacher or data were handed in, as finetune and "
            "Python do."
        )
    begin = _relative(run)
    are = "is" if len(begin) == 1 else "are"
    where = f"where {', '.join(begin)} {are}, with {RUN_FILE} there" if begin else "in its folder"
    shorter = (
        f" SHORTER is the run of {run.train.extends[-1]} epochs that it went on from." if run.train.extends else ""
    )
    return f"`{found.again}` makes it again, called {where}.{shorter}"


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
