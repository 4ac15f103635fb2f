"""All kinds of errors stand in errors.py, and the tree at its top is the real one."""

from __future__ import annotations

import builtins
import inspect
import re
from pathlib import Path

from counterpoise import errors

PRIVATE = {
    ("reading.py", "Unreadable"): "stands in the run.py beside an export, too, which imports nothing of ours",
    ("studies/advising/advise.py", "_AllAlikeError"): "is raised and caught within one race of candidates",
    ("system/addresses.py", "_Refused"): "is raised and caught within one class",
    ("teachers/store/writer.py", "_TeacherFailed"): "is raised and caught within one function",
}
"""Exceptions outside errors.py, by file and name, and why."""


def is_exception(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseException)


def test_no_other_module_defines_an_exception_than_those_with_a_reason() -> None:
    package = Path(errors.__file__).parent
    classes = [
        (file.relative_to(package).as_posix(), name, set(re.findall(r"\w+", re.sub(r"\[.*\]", "", bases))))
        for file in package.rglob("*.py")
        for name, bases in re.findall(r"^ *class (\w+)\(([^)]*)\):", file.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    kinds = {name for name, kind in vars(builtins).items() if is_exception(kind)}
    while more := {name for _, name, bases in classes if bases & kinds} - kinds:
        kinds |= more
    assert {(file, name) for file, name, _ in classes if name in kinds and file != "errors.py"} == PRIVATE.keys()


def test_the_tree_at_the_top_is_that_of_the_classes() -> None:
    line = re.compile(r"^((?:[| ] {3})*(?:\+-- )?)(\w+)(?: {2,}.*)?$", re.MULTILINE)
    above: dict[int, str] = {-1: "Exception"}
    drawn: dict[str, str] = {}
    for branch, name in line.findall(inspect.cleandoc(errors.__doc__ or "")):
        depth = len(branch) // 4
        above[depth] = name
        drawn[name] = above[depth - 1]
    kinds = {name: kind for name, kind in vars(errors).items() if is_exception(kind)}
    builtin = {name: "Exception" for name in drawn if hasattr(builtins, name)}
    assert drawn == {name: kind.__bases__[0].__name__ for name, kind in kinds.items()} | builtin
