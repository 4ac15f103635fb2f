"""A student with its exports as a folder for the Hugging Face Hub, and onto it."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from counterpoise.config.options import keywords
from counterpoise.deploy import card, folder, promised
from counterpoise.deploy.options import Push
from counterpoise.engine import receipts
from counterpoise.engine.card import for_epoch
from counterpoise.engine.run_folder import RECEIPT, RUN_FILE
from counterpoise.engine.student import as_json
from counterpoise.engine.student_epochs import read_epoch
from counterpoise.errors import ConfigError, ModelError, PushError, RunError, first_line
from counterpoise.models import folder as student_folder
from counterpoise.system import documents
from counterpoise.system.files import reason, regular

EXPORTS = "exports"


@keywords(Push)
def push(student: str | Path, asked: Push) -> dict[str, Any]:
    """Put a student with its exports and a card that tells of them onto the Hugging Face Hub, or into a folder for it.

    Hashes are checked first. The student folder itself stays as it is. By default exports made from this student are
    taken.

    Args:
        student: student folder, or a run's folder.

    Returns:
        The `files` that it consists of, and the `folder` or the `url`.

    Raises:
        ModelError: a file is missing, damaged or changed; an export was made from another student, or promises
            otherwise than it; the run's receipt states another one.
        PushError: the Hub did not take it.
    """
    if asked.private and asked.to is None:
        raise ConfigError("--private is of a repository on the Hub: give --to org/name, or leave it out.")
    if asked.out is not None and asked.to is None:
        return {"folder": str(asked.out), "files": _gather(Path(student), Path(asked.out), asked)}
    if asked.out is not None or asked.to is None:
        raise ConfigError("push needs --to org/name or --out FOLDER, one of them.")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", asked.to):
        raise ConfigError(f"--to is org/name, such as acme/ducks, got '{asked.to}'.")
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary) / asked.to.partition("/")[2]
        files = _gather(Path(student), directory, asked)
        return {"url": _upload(directory, asked.to, asked.private), "files": files}


def _gather(student: Path, out: Path, asked: Push) -> list[str]:
    """Write the folder `out`; the files in it."""
    source = student_folder.find(student)
    shipped, _ = student_folder.read(source)
    described, weights = read_epoch(source, asked.epoch)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} is there already: give another --out.")
    own = _exports(student, source, described.weights_sha256) if asked.exports is None else asked.exports
    chosen = [Path(one) for one in own]
    found = {}
    for directory in chosen:
        export = folder.read(directory)
        folder.check_student(directory, export, source, described.weights_sha256)
        if other := promised.differs(described.scene_promise or described.promise, export):
            raise ModelError(f"{directory} was made before its student's promise: {other}. Export it again.")
        if f"{EXPORTS}/{directory.name}" in found:
            raise ConfigError(f"Two of the exports are called {directory.name}: rename one of their folders.")
        found[f"{EXPORTS}/{directory.name}"] = export
    measurements = _measurements(student, source) if asked.measured is None else asked.measured
    measured = [_json(Path(file)) for file in measurements]
    _check_files((source, *chosen))
    receipt = _receipt(source) if described == shipped else None  # which is of the student that ships
    text = for_epoch(_card(source), shipped, described)
    parts = card.parts_of(described.architecture, described.provenance)
    try:
        shutil.copytree(source, out, ignore=shutil.ignore_patterns(EXPORTS, RECEIPT), dirs_exist_ok=True)
        for directory, name in zip(chosen, found, strict=True):
            shutil.copytree(directory, out / name)
        if described != shipped:
            (out / student_folder.WEIGHTS).write_bytes(weights)
            (out / student_folder.DESCRIPTION).write_bytes(as_json(described.values()))
        told = None
        if receipt is not None:
            shutil.copy(receipt, out / RECEIPT)
            told = (
                receipts.read(out / RECEIPT).paragraph,
                receipts.hashes(out, [RECEIPT])[RECEIPT],
            )
        text = card.with_exports(text, found, measured, [source, *chosen], parts, asked.license_id, told)
        (out / student_folder.CARD).write_text(text, encoding="utf-8")
    except (OSError, shutil.Error) as error:
        raise RunError(f"{out} could not be written: {reason(error)}.") from error
    return sorted(file.relative_to(out).as_posix() for file in out.rglob("*") if file.is_file())


def _check_files(folders: Sequence[Path]) -> None:
    """Raises RunError where a folder to be published holds a link that leads out of it, or what is no file."""
    for folder_ in folders:
        for entry in folder_.rglob("*"):
            try:
                if not entry.is_dir() or entry.is_symlink():
                    regular(entry, within=folder_)
            except OSError as error:
                raise RunError(f"{folder_} is not published: {error}.") from None


def _receipt(source: Path) -> Path | None:
    """The receipt of the run that a student lies in, or beside a student that was published before; None without one.

    Raises RunError where it is damaged, ModelError where it is of another student.
    """
    within_run = source.name == student_folder.STUDENT and (source.parent / RUN_FILE).is_file()
    path = (source.parent if within_run else source) / RECEIPT
    if not path.exists():
        return None
    stated = receipts.read(path).files
    names = (student_folder.WEIGHTS, student_folder.DESCRIPTION)
    for name, found in receipts.hashes(source, names).items():
        if stated.get(f"{student_folder.STUDENT}/{name}") != found:
            raise ModelError(
                f"{path} states another {name} than that of {source}: counterpoise receipt RUN writes it anew."
            )
    return path


def _card(source: Path) -> str:
    try:
        return documents.read_text(source / student_folder.CARD, within=source)
    except OSError as error:
        raise RunError(f"The card of {source} cannot be read: {documents.why_unread(error)}.") from None


def _exports(student: Path, source: Path, weights: str) -> list[Path]:
    """Exports made from these weights, in the run or beside the student folder."""
    candidates = [
        *source.parent.glob(f"{EXPORTS}/*"),
        *student.glob(f"{EXPORTS}/*"),
        *source.parent.glob(f"{source.name}-*"),
    ]
    own = [directory for directory in dict.fromkeys(candidates) if folder.is_export(directory)]
    return sorted(directory for directory in own if folder.read(directory).student_sha256 == weights)


def _measurements(student: Path, source: Path) -> list[Path]:
    return sorted({*student.glob("measure*.json"), *source.parent.glob("measure*.json")})


def _json(path: Path) -> dict[str, Any]:
    try:
        values = documents.read_json(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}.") from None
    if not isinstance(values, dict) or not isinstance(values.get("measured"), list):
        raise ConfigError(f"{path} is nothing that counterpoise measure wrote.")
    return values


def _upload(directory: Path, to: str, private: bool) -> str:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    hub = HfApi()
    try:
        url = hub.create_repo(to, private=private, exist_ok=True)
        hub.upload_folder(repo_id=to, folder_path=directory, commit_message="A student and its exports")
    except LocalTokenNotFoundError:
        raise PushError(f"{to} needs a login: hf auth login, or HF_TOKEN.") from None
    except HfHubHTTPError as error:
        status = error.response.status_code
        hint = " Log in with hf auth login, as somebody who may write there." if status in (401, 403) else ""
        raise PushError(f"{hub.endpoint} did not take {to}: {first_line(error)}.{hint}") from error
    except Exception as error:  # of whatever the library reaches the network with
        kinds = {kind.__name__ for kind in type(error).__mro__}
        if not kinds & {"OSError", "TransportError", "RequestException"}:
            raise
        raise PushError(f"{hub.endpoint} cannot be reached: {error}.") from error
    return str(url)
