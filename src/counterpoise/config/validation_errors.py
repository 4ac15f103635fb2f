"""What Pydantic finds wrong with values, in words: where, what was expected, what was given, and the nearest choice."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from counterpoise.errors import ConfigError, hint, nearest, shown

Kind = TypeVar("Kind", bound=BaseModel)
MOST_TOLD = 20
"""Mistakes that a message tells."""


def validated(kind: type[Kind], values: Mapping[str, Any], origin: str) -> Kind:
    """Values as a section. Raises ConfigError that names each wrong key and the nearest right one."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ConfigError(explain(error, origin, kind)) from None


def explain(error: ValidationError, origin: str, root: type[BaseModel], section: str = "") -> str:
    """Each mistake in words: where it is, what was expected, what was given, and the nearest choice.

    Args:
        error: what Pydantic found.
        origin: words for where the values come from, such as "run file run.yaml".
        root: the class of the whole.
        section: name of the section that was checked; "" where that was the whole.
    """
    above = (section,) if section else ()
    # A default that is made of other values is not made where one of these is wrong: no mistake of its own.
    found = [item for item in error.errors() if item["type"] != "default_factory_not_called"]
    items = [(*_place(above + item["loc"]), item) for item in found]
    # Where a value may be of several kinds, Pydantic reports each: leave out those that it was not meant to be.
    meant = {place[:depth] for place, depth, item in items if depth is not None and not _of_other_kind(item)}
    expected: dict[str, list[str]] = {}
    given: dict[str, str] = {}
    for place, depth, item in items:
        if depth is not None and place[:depth] in meant and _of_other_kind(item):
            continue
        name = ".".join(place)
        message, given[name] = _message(place, item, root)
        expected.setdefault(name, []).append(message)
    lines = []
    for name, messages in expected.items():
        first, *others = dict.fromkeys(messages)
        lines.append(f"{name}: {', or '.join([first, *(m.removeprefix('input should be ') for m in others)])}")
        lines[-1] += given[name]
    head = f"The {origin} has {len(lines)} mistake{'s' if len(lines) > 1 else ''}:"
    more = [f"and {len(lines) - MOST_TOLD} more"] if len(lines) > MOST_TOLD else []
    return "\n".join([head, *(f"  {line}" for line in [*lines[:MOST_TOLD], *more])])


def _message(place: tuple[str, ...], item: Any, root: type[BaseModel]) -> tuple[str, str]:
    """What was expected, and what was given."""
    if item["type"] == "extra_forbidden":
        kind = "section" if len(place) == 1 else "key"
        return f"unknown {kind}.{hint(place[-1], _choices(place[:-1], root))}", ""
    if item["type"] in {"value_error", "assertion_error"}:
        return str(item["ctx"]["error"]), ""
    message = item["msg"][:1].lower() + item["msg"][1:]
    if item["type"] == "path_type":
        message = "input should be the path of a file or folder"
    if item["type"] == "missing" and len(place) == 1:
        return "it is missing", "."
    guess = ""
    if item["type"] == "literal_error":
        choices = item["ctx"]["expected"].replace("'", "").replace(" or ", ", ").split(", ")
        guess = nearest(str(item.get("input")), choices)
    elif item["type"] == "model_type":
        keys = _choices(place, root)
        message = "input should be a mapping of keys" + (f" such as '{keys[0]}'" if keys else "")
    return message, f", got {shown(item.get('input'))}.{guess}"


# What Pydantic puts into the place of a mistake for each kind that a value may be of.
_KIND = re.compile(r"bool|int|float|str|constrained-\w+|Schedule|(literal|function-\w+)\[.*\]")


def _place(loc: tuple[int | str, ...]) -> tuple[tuple[str, ...], int | None]:
    """The keys that lead to a mistake, and how many lead to the value of several kinds that it lies in."""
    parts = [str(part) for part in loc]
    # Not before the third: a term may be called 'float'.
    depth = next((i for i, part in enumerate(parts) if i >= 2 and _KIND.fullmatch(part)), None)
    return tuple(part for i, part in enumerate(parts) if i != depth), depth


def _of_other_kind(item: Any) -> bool:
    """Whether a value is not of this kind at all, rather than of this kind with a mistake in it."""
    return item["type"] != "value_error" and _KIND.fullmatch(str(item["loc"][-1])) is not None


def _choices(where: Sequence[str], root: type[BaseModel]) -> list[str]:
    """Names of the keys allowed at a place of the run file."""
    section: Any = root
    for name in where:
        field = getattr(section, "model_fields", {}).get(name)
        kinds = [field.annotation, *get_args(field.annotation)] if field is not None else [section]
        section = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
    return list(getattr(section, "model_fields", {}))
