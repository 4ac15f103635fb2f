"""Names of classes: what a label names, and which names are doubtful."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from counterpoise.errors import DataError, look

NANS = {"nan", "NaN", "NAN", "Nan"}
_PERHAPS_MISSING = {"na", "n/a", "#n/a", "none", "null", "unknown", "?", "-", "-1"}
_FRACTION = re.compile(r"[-+]?[0-9]*\.?[0-9]+(e[-+]?[0-9]+)?", re.IGNORECASE)
_NO_LABEL = "a row without a label is empty, or NaN"


def is_number(name: str) -> bool:
    """Whether a name is a whole number, as folders of numbered classes are called."""
    return re.fullmatch(r"-?[0-9]{1,18}", name) is not None


def plain_text(value: object) -> str:
    """A value as text without spaces around it; "" where there is none, or NaN."""
    if value is None or value != value:
        return ""
    text = str(value).strip()
    return "" if text in NANS else text


def of_label(value: object, *, numbered: bool = False) -> str | None:
    """The class that a label names; None where it names none.

    Args:
        numbered: whole numbers are numbers of classes, the same with zeros before them, and -1 is that of none; else
            they are names as others are.
    """
    text = plain_text(value)
    if numbered and is_number(text):
        text = str(int(text))
        return None if text == "-1" else text
    return text or None


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


def doubtful(classes: Sequence[str], where: str, *, none: str = _NO_LABEL, separator: bool = False) -> list[str]:
    """A word on names that may be meant otherwise.

    Args:
        where: what holds them, such as "column 'label'".
        none: what says that there is no label.
        separator: whether labels may be divided by an option.
    """
    return [
        *_perhaps_missing(classes, where, none),
        *_perhaps_several(classes, where, separator),
        *_perhaps_measured(classes, where),
    ]


def _perhaps_missing(classes: Sequence[str], where: str, none: str) -> list[str]:
    """Of names that may say that there is no label."""
    odd = [f"'{name}'" for name in classes if name.casefold() in _PERHAPS_MISSING]
    return [f"{', '.join(odd)} of {where} is taken for a class: {none}"] if odd else []


def _perhaps_several(classes: Sequence[str], where: str, separator: bool) -> list[str]:
    """Of names that may be several labels each: some of them put together from others."""
    known = {*classes}
    for sign in "|;,":
        for name in classes:
            parts = [part.strip() for part in name.split(sign)]
            if len(parts) > 1 and (sign == "|" or known >= {*parts}):
                way = f"--data.options.separator '{sign}'" if separator else "they are read from a table of labels"
                return [f"'{name}' of {where} is taken for one class: where it is several labels, {way}"]
    return []


def _perhaps_measured(classes: Sequence[str], where: str) -> list[str]:
    """Of numbers with fractions."""
    if not (found := next((name for name in classes if "." in name), None)):
        return []
    if not all(map(_FRACTION.fullmatch, classes)):
        return []
    return [f"{where} holds numbers, such as {found}, and each is taken for a class, of no order"]
