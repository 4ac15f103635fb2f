"""Run files read, laid over one another, checked and written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from counterpoise.config.run import Run
from counterpoise.config.validation_errors import validated
from counterpoise.errors import ConfigError, DocumentError
from counterpoise.system import documents

BASES = 16
"""Run files that may stand one on the other."""


def read(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The contents of a run file, not yet checked; `base: FILE` has them laid over those of another.

    Bases are looked for beside the file; of several, `base: [ONE, OTHER]`, later ones lie over earlier ones.

    Args:
        above: the files that this one is a base of.

    Raises ConfigError where a file is missing or not a YAML mapping.
    """
    if len(above) > BASES:
        raise ConfigError(f"Run file {above[0]} stands on more than {BASES} others, one on the other.")
    if path.resolve() in above:
        raise ConfigError(f"Run file {path} is its own base, by way of {above[-1]}.")
    return over_base(_contents(path), path.parent, str(path), (*above, path.resolve()))


def kept(path: Path) -> Run:
    """The run file of a run folder, complete as it was written there: it has no base to be read from elsewhere.

    Raises ConfigError where it is missing or damaged.
    """
    return resolve(kept_values(path), f"run file {path}")


def kept_values(path: Path) -> dict[str, Any]:
    """The same, not yet checked."""
    return _contents(path, path.parent)


def over_base(values: Mapping[str, Any], beside: Path, origin: str, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """`values` laid over the run files that their `base` names, which are looked for in the folder `beside`."""
    own = dict(values)
    bases = own.pop("base", [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise ConfigError(f"base in {origin} must be the name of a run file, or a list of names, got {bases!r:.80}.")
    if any("\0" in base for base in bases):
        raise ConfigError(f"base in {origin} has a null character, which no name of a file can have.")
    merged: dict[str, Any] = {}
    for base in bases:
        merged = merge(merged, read(beside / base, above))
    return merge(merged, own)


def _contents(path: Path, within: Path | None = None) -> dict[str, Any]:
    try:
        values = documents.read_yaml(path, within=within)
    except FileNotFoundError:
        raise ConfigError(f"Run file {path} does not exist.") from None
    except OSError as error:
        raise ConfigError(f"Run file {path} cannot be read: {documents.why_unread(error)}.") from None
    except DocumentError as error:
        raise ConfigError(f"Run file {path} is not YAML as it should be: {error}.") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(
            f"Run file {path} must hold sections such as 'data:' and 'student:', got {type(values).__name__}."
        )
    return values


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the values of `over` laid over it, section by section. An intensity is replaced whole."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        if key == "data" and isinstance(below, str | Path):  # `data: PATH` is short for `data: {path: PATH}`
            below = {"path": below}
        if isinstance(below, Mapping) and isinstance(value, Mapping) and key != "intensity":
            merged[key] = merge(below, value)
        else:
            merged[key] = value
    return merged


def resolve(values: Mapping[str, Any] | Run, origin: str = "run file") -> Run:
    """Check values against the sections. Raises ConfigError that names each wrong key and the nearest right one."""
    if isinstance(values, Run):
        return values
    if (place := _null_in(values)) is not None:
        raise ConfigError(f"The {origin} has a null character in {place}, which no name of a file can have.")
    return validated(Run, values, origin)


def _null_in(values: Any, place: str = "") -> str | None:
    """The dotted key of a text with a null character, where there is one."""
    if isinstance(values, Mapping):
        found = (_null_in(f"{key}", "a key") or _null_in(value, f"{place}.{key}") for key, value in values.items())
    elif isinstance(values, list | tuple):
        found = (_null_in(value, place) for value in values)
    else:
        return place.strip(".") if isinstance(values, str | Path) and "\0" in str(values) else None
    return next((one for one in found if one), None)


def dump(run: Run) -> str:
    """The resolved run as YAML, complete with defaults."""
    return yaml.safe_dump(run.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
