"""Changed files, format by format: what chance, a bad copy or somebody hostile makes of a good one.

Each mutator takes the bytes of a good file and a random generator, and returns other bytes; equal seeds, equal bytes.
"""

from __future__ import annotations

import copy
import csv
import io
import json
import re
import struct
from collections.abc import Callable
from random import Random
from typing import Any

import yaml

Mutator = Callable[[bytes, Random], bytes]

OUTSIDE = "../outside.txt"
"""A file that lies beside the folder of a format, and that nothing in it may have opened."""
NUMBERS: tuple[Any, ...] = (
    0, -1, 1, 2, 255, 256, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53 + 1, 2**63 - 1, 2**63, 2**64,
    10**30, 10**400,
    -(2**63), 0.5, -0.5, 1e-320, 1e308, -1e308, float("nan"), float("inf"), float("-inf"), True, False,
)  # fmt: skip
TEXTS: tuple[str, ...] = (
    "", " ", "\0", "a\0b", "\n", "\r", "..", ".", "/", OUTSIDE, "../" * 9 + "etc/passwd", "/etc/passwd",
    "/dev/zero", "C:\\x", "\\\\host\\x", "file:///etc/passwd", "http://127.0.0.1:9/x", "~", "~nobody-here/x", "-rf",
    "canary.py:make", "canary", "os.system", "__class__", "{}", "{0.__class__}", "%s%n", "$(id)", "<script>",
    "null", "nan", "1e999",
    "0x10", "١٢", "\ufeff", "\u202egnp", "é", "\U0001f98a", "\ud800", "A" * 5000, "9" * 5000, "-", "None", "true",
)  # fmt: skip
VALUES: tuple[Any, ...] = (None, [], {}, [[]], [None], {"": None}, {"a": {}}, [1, "a"], *NUMBERS, *TEXTS)
LONG = 2**22
"""Letters of a changed text at most: a line that is repeated again and again is longer than memory."""
DEEP = 3000
"""Levels of what is nested without reason."""


def _value(random: Random) -> Any:
    """One of `VALUES`, and a fresh one: what holds it may be changed next."""
    return copy.deepcopy(random.choice(VALUES))


def of_bytes(content: bytes, random: Random) -> bytes:
    """One to three changes that know nothing of the format."""
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        content = random.choice(_BYTE_CHANGES)(content, random)
    return content


def _place(content: bytes, random: Random) -> int:
    """Headers are where lengths and kinds stand, so half of all changes are near one of the ends."""
    size = len(content)
    return random.choice(
        (random.randrange(size + 1), random.randrange(min(size, 64) + 1), size - min(size, random.randrange(64)))
    )


def _flip(content: bytes, random: Random) -> bytes:
    changed = bytearray(content)
    for _ in range(random.choice((1, 1, 2, 8, 64))):
        if changed:
            changed[min(_place(content, random), len(changed) - 1)] ^= 1 << random.randrange(8)
    return bytes(changed)


def _number(content: bytes, random: Random) -> bytes:
    """A length, an offset or an extent that is huge, zero, or one off."""
    kind = random.choice(("<B", "<H", ">H", "<I", ">I", "<Q", ">Q"))
    size = struct.calcsize(kind)
    place = min(_place(content, random), max(0, len(content) - size))
    most = 256**size - 1
    there = int.from_bytes(content[place : place + size], "little" if kind[0] == "<" else "big")
    value = random.choice(
        (0, 1, most, most // 2, most // 2 + 1, (there + 1) & most, (there - 1) & most, (there * 2) & most)
    )
    return content[:place] + struct.pack(kind, value & most) + content[place + size :]


def _cut(content: bytes, random: Random) -> bytes:
    return content[: _place(content, random)]


def _delete(content: bytes, random: Random) -> bytes:
    place = _place(content, random)
    return content[:place] + content[place + random.choice((1, 2, 4, 16, 512, 4096)) :]


def _repeat(content: bytes, random: Random) -> bytes:
    place, size = _place(content, random), random.choice((1, 4, 64, 512))
    return content[:place] + content[place : place + size] * random.choice((2, 2, 9, 200)) + content[place + size :]


def _splice(content: bytes, random: Random) -> bytes:
    """A part of the file over another part of it."""
    size = random.choice((1, 8, 64, 512))
    from_, to = _place(content, random), _place(content, random)
    part = content[from_ : from_ + size]
    return content[:to] + part + content[to + len(part) :]


def _noise(content: bytes, random: Random) -> bytes:
    place, size = _place(content, random), random.choice((1, 4, 16, 256))
    part = random.choice((random.randbytes(size), bytes(size), b"\xff" * size))
    return content[:place] + part + content[place + random.choice((0, size)) :]


def _other(content: bytes, random: Random) -> bytes:
    """Another file altogether."""
    return random.choice(
        (
            b"",
            b"\0",
            b"\xff\xfe",
            b"\xef\xbb\xbf",
            random.randbytes(300),
            b"\n" * 50,
            b"{}",
            b"[]",
            b"PK\3\4",
            b"\x89PNG\r\n\x1a\n",
            b"\x80\x04.",
        )
    )


_BYTE_CHANGES: tuple[Mutator, ...] = (
    _flip,
    _flip,
    _number,
    _number,
    _cut,
    _delete,
    _repeat,
    _splice,
    _noise,
    _noise,
    _other,
)


def of_text(content: bytes, random: Random) -> bytes:
    """Lines, words and numbers of a text; at times its bytes."""
    if random.random() < 0.25:
        return of_bytes(content, random)
    text = content.decode("latin-1")
    for _ in range(random.choice((1, 1, 2, 3))):
        changed = random.choice((_lines, _words, _words, _digits, _insert))(text, random)
        text = changed if len(changed) <= LONG else text
    return text.encode("latin-1", "replace")


def _lines(text: str, random: Random) -> str:
    lines = text.splitlines(keepends=True) or [""]
    at, other = random.randrange(len(lines)), random.randrange(len(lines))
    match random.randrange(6):
        case 0:
            del lines[at]
        case 1:
            lines.insert(other, lines[at])
        case 2:
            lines[at], lines[other] = lines[other], lines[at]
        case 3:
            lines[at] *= random.choice((2, 50, 500))
        case 4:
            lines[at] = lines[at].rstrip() + random.choice(("", "\r\n", "\r", "\n\n", "\x0b", "\x85"))
        case _:
            lines = lines[:at]
    return "".join(lines)


def _replaced(text: str, pattern: str, random: Random, new: str) -> str:
    found = list(re.finditer(pattern, text))
    if not found:
        return text + new
    one = random.choice(found)
    return text[: one.start()] + new + text[one.end() :]


def _latin(value: Any) -> str:
    return str(value).encode("utf-8", "surrogatepass").decode("latin-1")


def _words(text: str, random: Random) -> str:
    return _replaced(text, r"[^\s,;:\"{}\[\]]+", random, _latin(random.choice(TEXTS)))


def _digits(text: str, random: Random) -> str:
    return _replaced(text, r"-?\d+(\.\d+)?", random, _latin(random.choice(NUMBERS)))


def _insert(text: str, random: Random) -> str:
    place = random.randrange(len(text) + 1)
    new = random.choice(
        (_latin(random.choice(TEXTS)), *"\"',;:{}[]\t\0\r\n#&*!|>%@`-", "\xff", "\xef\xbb\xbf", '""', "<<: *a\n")
    )
    return text[:place] + new + text[place:]


def of_csv(content: bytes, random: Random) -> bytes:
    """A cell, a column, the names of columns, or the text."""
    if random.random() < 0.4:
        return of_text(content, random)
    rows = list(csv.reader(io.StringIO(content.decode())))
    row, column = random.randrange(len(rows)), random.randrange(len(rows[0]))
    match random.randrange(6):
        case 0:
            rows[0][column] = random.choice((*rows[0], *TEXTS))
        case 1:
            rows = [[*each[:column], *each[column + 1 :]] for each in rows]
        case 2:
            value = str(_value(random))
            rows = [rows[0], *([*each[:column], value, *each[column + 1 :]] for each in rows[1:])]
        case 3:
            rows[row] = rows[row] * random.choice((0, 2, 40))
        case _:
            rows[row][column] = str(_value(random))
    text = io.StringIO()
    csv.writer(text, lineterminator=random.choice(("\n", "\r\n"))).writerows(rows)
    return text.getvalue().encode("utf-8", "surrogatepass")


def _places(tree: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to each value of a tree."""
    found = [above]
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ():
        found += _places(value, (*above, key))
    return found


def _at(tree: Any, place: tuple[Any, ...]) -> Any:
    for key in place:
        tree = tree[key]
    return tree


def _odd(old: Any, random: Random) -> Any:
    """Something in the place of a value: of another kind, or a number or a text that nothing expects."""
    if isinstance(old, bool) or old is None:
        return _value(random)
    if isinstance(old, int | float) and random.random() < 0.6:
        return random.choice((*NUMBERS, old + 1, old - 1, -old, float(str(old)), str(old), [old]))
    if isinstance(old, str) and random.random() < 0.6:
        return random.choice((*TEXTS, old * 2, old[:-1], f"../{old}", f"/{old}", old.upper(), [old], old + "\0"))
    if isinstance(old, list) and random.random() < 0.5:
        return random.choice(
            (old * 2, old[:-1], old[::-1], dict(enumerate(map(str, old))), [*old, None], (old or [0]) * 300)
        )
    if isinstance(old, dict) and random.random() < 0.5:
        return random.choice((list(old), list(old.values()), {**old, "": 1}, {**old, "../x": old}, dict.fromkeys(old)))
    return _value(random)


def of_tree(tree: Any, random: Random) -> Any:
    """A tree of mappings and lists with one to three of its values dropped, renamed, moved or replaced."""
    tree = json.loads(json.dumps(tree))
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        place = random.choice(_places(tree))
        if not place:
            if random.random() < 0.1:
                return _value(random)
            continue
        holder, key = _at(tree, place[:-1]), place[-1]
        match random.randrange(8):
            case 0:
                del holder[key]
            case 1 if isinstance(holder, dict):
                holder[random.choice(TEXTS) if random.random() < 0.7 else f"{key}s"] = holder.pop(key)
            case 2:  # what stands elsewhere
                holder[key] = json.loads(json.dumps(_at(tree, random.choice(_places(tree)))))
            case _:
                holder[key] = _odd(holder[key], random)
    return tree


_NEST = "@nested@"


def _nested(text: str, random: Random) -> str:
    """In the place of `_NEST`, quotes and all, something nested without reason."""
    levels = random.choice((40, 70, DEEP, 100_000))
    bracket = random.choice(("[]", "{}"))
    new = "[" * levels + "]" * levels if bracket == "[]" else '{"a":' * levels + "1" + "}" * levels
    return text.replace(f'"{_NEST}"', new)


def of_json(content: bytes, random: Random) -> bytes:
    """A JSON document: its tree, its text, a key that comes twice, or nesting without reason."""
    chance = random.random()
    if chance < 0.15:
        return of_text(content, random)
    tree = json.loads(content)
    if chance < 0.22:
        return _twice(content, random)
    if chance < 0.27:
        places = [place for place in _places(tree) if place]
        if places:
            place = random.choice(places)
            _at(tree, place[:-1])[place[-1]] = _NEST
            return _nested(json.dumps(tree), random).encode()
    return json.dumps(of_tree(tree, random), ensure_ascii=random.random() < 0.5).encode("utf-8", "surrogatepass")


def _twice(content: bytes, random: Random) -> bytes:
    """The same with a key that comes twice in one mapping."""
    keys = list(re.finditer(rb'"[^"\\]*"\s*:', content))
    if not keys:
        return content
    key = random.choice(keys)
    value = json.dumps(_value(random)).encode()
    return content[: key.start()] + key[0] + b" " + value + b", " + content[key.start() :]


def of_json_lines(content: bytes, random: Random) -> bytes:
    """A line of a file that holds a JSON document a line, or its text."""
    if random.random() < 0.25:
        return of_text(content, random)
    lines = content.splitlines()
    at = random.randrange(len(lines))
    lines[at] = of_json(lines[at], random)
    return b"\n".join(lines) + b"\n"


_YAML_ODD = (
    "*self", "&self [*self]", "*nowhere", "!!python/object/apply:os.system ['touch canary']",
    "!!python/name:os.system",
    "!!binary aGk=", "!!set {a, b}", "!!omap [a: 1]",
    "!!timestamp 2001-99-99", "2001-12-14", "2001-12-14t21:59:43Z", "190:20:30",
    "0o17", "0b1", "0x_", "1_000", ".inf", ".NaN", "~", "? [a]", "!unknown x", "!!int ten", "!!float abc", "!!null x",
    "!!str", "|", ">-", "<<: 3", "{<<: [1]}", "'", '"', '"\\ud800"', '"\\x00"',
    "%YAML 9.9", "---", "...", "\t", "yes", "off", "[", "{", "}", "- - - -",
)  # fmt: skip


def of_yaml(content: bytes, random: Random) -> bytes:
    """A YAML document: its tree, its text, references that lead nowhere or expand without end, tags that name code."""
    chance = random.random()
    if chance < 0.2:
        return of_text(content, random)
    tree = yaml.safe_load(content)
    if chance < 0.5:
        place = random.choice([place for place in _places(tree) if place])
        _at(tree, place[:-1])[place[-1]] = _NEST
        text = yaml.safe_dump(tree, sort_keys=False)
        if chance < 0.25:
            return _nested(text.replace(_NEST, f'"{_NEST}"'), random).encode()
        if chance < 0.28:
            return (_laughs(random) + text.replace(_NEST, "*i")).encode()
        return text.replace(_NEST, random.choice(_YAML_ODD)).encode()
    if chance < 0.55:  # a key that comes twice
        lines = content.decode().splitlines(keepends=True)
        line = random.choice(lines)
        return "".join([*lines, line]).encode()
    changed = of_tree(tree, random)
    try:
        return yaml.safe_dump(changed, sort_keys=False, allow_unicode=random.random() < 0.5).encode(
            "utf-8", "surrogatepass"
        )
    except yaml.YAMLError:
        return json.dumps(changed).encode()


def _laughs(random: Random) -> str:
    """References to references: a kilobyte that stands for a thousand million values."""
    count = random.choice((2, 9, 30))
    text = f"a: &a [{', '.join('x' * count)}]\n"
    for below, name in zip("abcdefgh", "bcdefghi", strict=True):
        text += f"{name}: &{name} [{', '.join([f'*{below}'] * count)}]\n"
    return text
