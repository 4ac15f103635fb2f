"""Candidates measured on a phone: the bundle to take there, and what came back."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from counterpoise.data import sources
from counterpoise.deploy.measuring import phones
from counterpoise.deploy.measuring.subjects import Subject
from counterpoise.errors import ConfigError, RunError
from counterpoise.studies.fitting import costing
from counterpoise.studies.fitting.costing import Entry
from counterpoise.studies.fitting.plan import FitPlan
from counterpoise.system import documents


def bundle(plan: FitPlan, folder: Path) -> list[Path]:
    """Write untrained candidates and the commands that measure them; those that cannot be exported are noted."""
    with tempfile.TemporaryDirectory(dir=plan.out, prefix=".measuring-") as temporary:
        found, failed = costing.exports(plan, plan.candidates, sources.load(plan.run.data), Path(temporary))
        if not found:
            lines = "".join(f"\n  {name}: {why}" for name, why in failed.items())
            raise ConfigError(f"No candidate can be exported to {plan.format.name}:{lines}")
        return phones.write_bundle(
            found, folder, threads=(plan.asked.threads,), rounds=plan.asked.rounds, more={"failed": failed}
        )


def bundle_of_final(plan: FitPlan, subject: Subject) -> Path:
    """The bundle of the winner's export, in the fit's folder."""
    folder = plan.out / "final" / f"{subject.name}-bundle"
    if not (folder / phones.CONTENTS).is_file():
        phones.write_bundle([subject], folder, threads=(plan.asked.threads,), rounds=plan.asked.rounds)
    return folder


def read(plan: FitPlan, files: Sequence[Path]) -> tuple[dict[str, Entry], dict[str, Entry]]:
    """Entries of the candidates, and of others such as a final export, by name.

    Raises ConfigError where a candidate is missing or was measured otherwise.
    """
    every: dict[str, Entry] = {}
    for file in files:
        contents = file.parent / phones.CONTENTS
        if not contents.is_file():
            raise ConfigError(
                f"{file} does not lie beside the {phones.CONTENTS} of its bundle, which says what it measured."
            )
        every |= {name: {"name": name, "failed": why} for name, why in _failed(contents).items()}
        every |= {entry["name"]: entry for entry in phones.read_output(file)["measured"]}
    names = [candidate.name for candidate in plan.candidates]
    missing = [name for name in names if name not in every]
    if missing:
        raise ConfigError(
            f"{', '.join(map(str, files))} has no measurement of {', '.join(missing[:5])}"
            f"{f' and {len(missing) - 5} more' if len(missing) > 5 else ''}: write the candidates anew with "
            "--candidates-to, and measure them."
        )
    for entry in every.values():
        if "failed" in entry:
            continue
        if entry["runtime"] != plan.format.name:
            raise ConfigError(
                f"{entry['name']} was measured with {entry['runtime']}, and --runtime is {plan.format.name}."
            )
        known = [case["threads"] for case in entry["cases"]]
        if plan.asked.threads not in known:
            threads = ", ".join(map(str, known))
            raise ConfigError(
                f"{entry['name']} was measured with {threads} threads, and --threads is {plan.asked.threads}."
            )
    return {name: every[name] for name in names}, {name: every[name] for name in every.keys() - set(names)}


def check_same(entry: Entry, subject: Subject) -> None:
    """Raises RunError where an entry is that of other files."""
    import hashlib

    if entry.get("sha256") != hashlib.sha256(subject.path.read_bytes()).hexdigest():
        raise RunError(f"{entry['file']} as it was measured is not the export that is there now: measure that.")


def _failed(contents: Path) -> dict[str, str]:
    try:
        values = documents.read_json(contents, within=contents.parent)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{contents} cannot be read: {error}.") from None
    found = values.get("failed", {}) if isinstance(values, dict) else None
    if not isinstance(found, dict):
        raise ConfigError(f"{contents} is not what --candidates-to wrote.")
    return {name: str(why) for name, why in found.items()}
