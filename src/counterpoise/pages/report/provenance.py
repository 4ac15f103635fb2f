"""Where a run comes from, and the command that makes it again."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from counterpoise.engine import receipts
from counterpoise.engine.run_folder import RECEIPT
from counterpoise.errors import RunError
from counterpoise.pages.report.reading import Reading, inside, mapping, numbers
from counterpoise.pages.report.words import number

LONGEST = 20_000
"""Characters of a run file that are shown."""


def provenance(reading: Reading) -> dict[str, Any]:
    """Facts, hashes and versions of a run, its run file, and the command."""
    origin = reading.provenance
    facts: list[tuple[str, str]] = [("Run folder", str(reading.folder))]
    summary = reading.summary or {}
    if summary.get("machine"):
        facts.append(("Machine", str(summary["machine"])))
    counted = numbers(summary)
    if "seconds" in counted:
        facts.append(("Training time", f"{number(counted['seconds'])} s, {number(counted.get('steps'))} steps"))
    facts.append(("Seed", str(reading.values.get("seed", ""))))
    if origin.get("commit"):
        facts.append(("Commit of counterpoise", str(origin["commit"])[:12]))
    facts.append(("Teacher", str(reading.teacher_told.get("architecture") or reading.teacher_told.get("store") or "")))
    if counted.get("corrupt"):
        facts.append(("Images that could not be read", number(counted["corrupt"])))
    hashes = [
        ("Student's weights", reading.weights),
        ("Teacher's weights", reading.teacher_weights),
        ("Training data", str(origin.get("data_fingerprint") or "")),
        ("Run file", str(origin.get("run_sha256") or "")),
    ]
    told = _receipt(reading)
    if told is not None:
        hashes.append(("Receipt", told[1]))
    text = inside(reading, "run.yaml") or ""
    return {
        "facts": [(name, value) for name, value in facts if value],
        "hashes": [(name, value) for name, value in hashes if value],
        "versions": sorted(mapping(origin.get("versions")).items()),
        "command": _command(reading),
        "receipt": told and told[0],
        "run_file": text[:LONGEST],
        "cut": len(text) > LONGEST,
    }


def _receipt(reading: Reading) -> tuple[str, str] | None:
    """The paragraph of the run's receipt and its SHA-256; None without one, and in `missing` why one is not shown."""
    path = reading.folder / RECEIPT
    if not path.exists():
        return None
    try:
        stated = receipts.read(path)
    except RunError as error:
        reading.missing.append(str(error))
        return None
    others = receipts.changed(stated, reading.folder)
    if others:
        reading.missing.append(
            f"{RECEIPT} is left out: it states another {', '.join(others)} than there is. "
            "counterpoise receipt RUN writes it anew."
        )
        return None
    return stated.paragraph, receipts.hashes(reading.folder, [RECEIPT])[RECEIPT]


def _command(reading: Reading) -> str:
    """What makes the run again from its run file, in another folder."""
    verb = "distill" if isinstance(reading.values.get("teacher"), dict) else "train"
    out = Path(reading.folder.parent, f"{reading.name}-again")
    return f"counterpoise {verb} {shlex.quote(str(reading.folder / 'run.yaml'))} --out {shlex.quote(str(out))}"
