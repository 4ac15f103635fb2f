"""Names of classes: which of them are probably one."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from counterpoise.data.walking import is_number
from counterpoise.errors import DataError, look


def require_apart(classes: Sequence[str]) -> None:
    """Raises DataError where two classes look the same, as one name does that two systems have written."""
    seen: dict[str, str] = {}
    for name in classes:
        other = seen.setdefault(look(name), name)
        if other != name:
            raise DataError(
                f"Classes '{other}' and '{name}' look the same, and are written otherwise, {other!a} and "
                f"{name!a}: call both alike where they are one class, else by other names."
            )


def alike(classes: Sequence[str]) -> list[str]:
    """A word on classes that are probably one."""
    seen: dict[str, str] = {}
    said: dict[str, str] = {}  # one of a kind is enough
    for name in classes:
        other = seen.setdefault(loose := _loosely(name), name)
        if other == name:
            continue
        if is_number(loose):
            how, differ = "number", "are one number"
        elif look(other).casefold() == look(name).casefold():
            how, differ = "case", "differ in case alone"
        else:
            how, differ = "look", f"look alike ({other!a} and {name!a})"
        said.setdefault(how, f"classes '{other}' and '{name}' {differ}, and are two")
    return list(said.values())


def _loosely(name: str) -> str:
    """What is left of a name without case, zeros before a number, and how a sign is drawn."""
    if not name.isascii():
        name = "".join(sign for sign in unicodedata.normalize("NFKC", name) if unicodedata.category(sign) != "Cf")
    text = " ".join(name.split()).casefold()
    return str(int(text)) if is_number(text) else text
