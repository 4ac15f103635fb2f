"""Code of the user's own, named file.py:NAME: run here alone, and only where the user has named it.

Users name code on the command line, in the run file that they give, or in Python. A folder that they give (a run, a
student, a store) names code as well, in its run.yaml or student.json; such names are never run.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import BaseModel

from counterpoise.errors import ConfigError, CounterpoiseError, ModelError, nearest

_named: set[Path] = set()


def is_file(name: str) -> bool:
    """Whether a name is that of code in a file, such as path/to/net.py:build."""
    return ".py:" in name


def named_code(values: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """The dotted key and the name of all code in the values of a run file, of a section, or in a single name."""
    if isinstance(values, BaseModel):
        values = values.model_dump()
    if isinstance(values, str):
        if is_file(values):
            yield key, values
    elif isinstance(values, Mapping):
        for below, value in values.items():
            yield from named_code(value, f"{key}.{below}" if key else str(below))
    elif isinstance(values, list | tuple):
        for value in values:
            yield from named_code(value, key)


def name(values: Any) -> None:
    """Remember the code in these values as named by the user: it may be run from now on, in this process."""
    _named.update(_key(found) for _, found in named_code(values))


def require(values: Any, origin: str) -> None:
    """Raise ConfigError where values out of a folder name code that the user has not named; `origin` is their file."""
    foreign = [(key, found) for key, found in named_code(values) if _key(found) not in _named]
    if foreign:
        raise ConfigError(
            f"{origin} names code, {foreign[0][1]}, and a folder gets to run none. Where you trust it, name it "
            f"yourself: {flags(dict(foreign))}, or give your own run file."
        )


def flags(values: Any) -> str:
    """The flags that name the code in these values, as a command line has them."""
    return " ".join(f"--{key} {found}" for key, found in named_code(values))


def load(name: str, kind: type[CounterpoiseError]) -> ModuleType:
    """The module of `name`. The file is run, as `import` would.

    Raises an error of `kind` where the user has not named it, or where it is missing or cannot be imported.
    """
    path = Path(name.rpartition(":")[0])
    if not path.is_file():
        beside = [file.name for file in path.parent.glob("*.py")] if path.parent.is_dir() else []
        raise kind(f"{path} does not exist.{nearest(path.name, beside)}")
    if _key(name) not in _named:
        ways = (
            ("--model", "--student.model", "--teacher.model") if kind is ModelError else ("--objective.TERM.objective",)
        )
        raise kind(
            f"{name} is code that a folder names, and a folder gets to run none. Where you trust it, name it yourself: "
            f"{', '.join(ways)} {name}, or in the run file that you give."
        )
    folder = path.parent.resolve()
    module_name = f"_counterpoise_{path.stem}_{hashlib.sha256(os.fsencode(folder)).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses look their module up there
    others = _of_other_folders(folder)
    for name_ in others:
        del sys.modules[name_]
    sys.path.insert(0, str(folder))  # as for a script: files beside it can be imported
    importlib.invalidate_caches()
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # whatever the user's code raises
        del sys.modules[module_name]
        raise kind(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(str(folder))
        sys.modules.update(others)
    return module


def _of_other_folders(folder: Path) -> dict[str, ModuleType]:
    """Modules that are there already, of other files of the user's, by names that files beside have, too.

    Those of Python and of what is installed are what is meant everywhere.
    """
    entries = folder.iterdir() if os.access(folder, os.R_OK) else ()
    beside = {entry.stem for entry in entries if entry.suffix == ".py" or entry.is_dir()}
    installed = [Path(place).resolve() for place in (sys.prefix, sys.base_prefix)]
    found = {}
    for name_, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", ())), None)
        if name_.partition(".")[0] in beside and name_ != "__main__" and isinstance(file, str):
            place = Path(file).resolve()
            if not any(place.is_relative_to(known) for known in (folder, *installed)):
                found[name_] = module
    return found


def imported(name: str) -> bytes:
    """What the files hold that the file of `name` imports from beside it, and these in turn; b"" where it imports none.

    By import statements; what is imported in other ways is not found.
    """
    first = Path(name.rpartition(":")[0])
    files = [first]
    for file in files:
        for module in _imported(file):
            beside = first.parent / f"{module}.py"
            package = first.parent / module
            found = sorted(package.rglob("*.py")) if package.is_dir() else [beside] if beside.is_file() else []
            files += [each for each in found if each not in files]
    return b"\0".join(file.name.encode() + b"\0" + file.read_bytes() for file in sorted(files[1:]))


def digest(name: str) -> str:
    """sha256 of what the file of `name` holds, and those that it imports from beside it. Raises OSError."""
    return hashlib.sha256(Path(name.rpartition(":")[0]).read_bytes() + b"\0" + imported(name)).hexdigest()


def _imported(file: Path) -> Iterator[str]:
    """The outermost names that a file imports by statements."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):  # said where it is run
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def _key(name: str) -> Path:
    path = Path(name.rpartition(":")[0])
    return path if "\0" in name else path.resolve()  # no name of a file has that, and the run file is refused for it
