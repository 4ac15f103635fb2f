"""Changed files that are read tag by tag or message by message: TIFF, DICOM, ONNX; and XML that stands for a graph."""

from __future__ import annotations

import struct
from itertools import pairwise
from random import Random
from typing import Any

from mutators import NUMBERS, OUTSIDE, TEXTS, of_bytes, of_text

_WORDS = (0, 1, 2, 3, 4, 7, 8, 16, 255, 256, 4096, 65535, 2**31 - 1, 2**31, 2**32 - 1)
_ENTRY = 12


def of_tiff(content: bytes, random: Random) -> bytes:
    """A classic TIFF of little endians: sizes, counts, offsets and kinds of its tags, pages that follow in a ring."""
    if random.random() < 0.25:
        return of_bytes(content, random)
    made = bytearray(content)
    for _ in range(random.choice((1, 1, 2, 3))):
        pages = _pages(bytes(made))
        if not pages:
            return of_bytes(bytes(made), random)
        start = random.choice(pages)
        count = int.from_bytes(made[start : start + 2], "little")
        there = (len(made) - start - 2) // _ENTRY
        entry = start + 2 + _ENTRY * random.randrange(max(1, min(count, there)))
        end = start + 2 + _ENTRY * count
        match random.randrange(8):
            case 0:
                struct.pack_into("<H", made, start, random.choice((0, 1, count - 1, count + 1, 65535)) & 0xFFFF)
            case 1 if end + 4 <= len(made):
                struct.pack_into("<I", made, end, random.choice((*pages, 0, 1, 8, len(made), 2**32 - 1)))
            case 2:
                struct.pack_into("<H", made, entry, random.choice((254, 256, 257, 258, 259, 262, 274, 277, 284, 330)))
            case 3:
                struct.pack_into("<H", made, entry + 2, random.choice((0, 1, 2, 3, 4, 5, 12, 13, 16, 99, 65535)))
            case 4:
                struct.pack_into("<I", made, entry + 4, random.choice(_WORDS))
            case _:
                struct.pack_into("<I", made, entry + 8, random.choice((*_WORDS, *pages)))
    return bytes(made)


def _pages(content: bytes) -> list[int]:
    """Where directories of pages are, as far as they can be followed."""
    found: list[int] = []
    place = int.from_bytes(content[4:8], "little") if content[:4] == b"II*\0" else 0
    while 0 < place < len(content) - 6 and place not in found:
        found.append(place)
        end = place + 2 + _ENTRY * int.from_bytes(content[place : place + 2], "little")
        place = int.from_bytes(content[end : end + 4], "little")
    return [place for place in found if place + 2 + _ENTRY < len(content)]


def of_dicom(content: bytes, random: Random) -> bytes:
    """A DICOM file with explicit kinds: lengths, kinds and values of its elements."""
    if random.random() < 0.25:
        return of_bytes(content, random)
    elements = _elements(content)
    start, size, long = random.choice(elements)
    head = 12 if long else 8
    value = content[start + head : start + head + size]
    kind = content[start + 4 : start + 6]
    match random.randrange(6):
        case 0:
            kind = random.choice((b"UN", b"SQ", b"OB", b"OW", b"DS", b"IS", b"US", b"UI", b"LO", b"FD", b"??", b"\0\0"))
        case 1:
            wrong = random.choice((0, 1, size + 1, max(0, size - 1), 65535, 2**31, 2**32 - 2, 2**32 - 1))
            width, form = (4, "<I") if long else (2, "<H")
            told = struct.pack(form, wrong & (256**width - 1))
            return content[: start + head - width] + told + content[start + head :]
        case 2:
            return content[:start] + content[start + head + size :]
        case 3:
            part = content[start : start + head + size]
            return content[:start] + part * random.choice((2, 3, 500)) + content[start + head + size :]
        case _:
            value = random.choice(
                (
                    str(random.choice((*NUMBERS, *TEXTS))).encode("utf-8", "surrogatepass")[:4000],
                    b"\\".join([b"1e999", b"nan", b"-0", b"0"][: random.randrange(5)]),
                    struct.pack("<H", random.choice((0, 1, 2, 8, 16, 32, 64, 65535))),
                    bytes(len(value)),
                    value[::-1],
                    value * 2,
                )
            )
    value += b"\0" * (len(value) % 2)
    told = kind + (b"\0\0" + struct.pack("<I", len(value)) if long else struct.pack("<H", len(value) & 0xFFFF))
    return content[: start + 4] + told + value + content[start + head + size :]


def _elements(content: bytes) -> list[tuple[int, int, bool]]:
    """Where each element begins, how long its value is, and whether its length takes four bytes."""
    found, place = [], 132
    while place + 8 <= len(content):
        long = content[place + 4 : place + 6] in (b"OB", b"OW", b"SQ", b"UN", b"UT")
        at, width = (place + 8, 4) if long else (place + 6, 2)
        size = int.from_bytes(content[at : at + width], "little")
        found.append((place, size, long))
        place = at + width + size
    return found


def of_onnx(content: bytes, random: Random) -> bytes:
    """An ONNX model: weights that lie elsewhere, dimensions, opsets, nodes without end or in a ring."""
    import onnx

    if random.random() < 0.3:
        return of_bytes(content, random)
    model: Any = onnx.load_model_from_string(content)
    for _ in range(random.choice((1, 1, 2))):
        random.choice(_OF_MODELS)(model, random)
    made: bytes = model.SerializeToString()
    return made


def _elsewhere(model: Any, random: Random) -> None:
    weight = random.choice(model.graph.initializer)
    size = len(weight.raw_data)
    weight.ClearField("raw_data")
    weight.data_location = 1
    places = (
        OUTSIDE,
        "/etc/passwd",
        "/dev/zero",
        "export.json",
        "x/../../outside.txt",
        "",
        ".",
        "link",
        "\0",
        "nowhere",
    )
    told = {"location": random.choice(places), "offset": random.choice(("0", "-1", "4096", str(2**63), "x"))}
    told["length"] = random.choice((str(size), "0", "-1", str(2**40), str(2**64)))
    for key, value in told.items():
        entry = weight.external_data.add()
        entry.key, entry.value = key, value


def _sides(model: Any, random: Random) -> None:
    weight = random.choice(model.graph.initializer)
    sides = list(weight.dims) or [1]
    sides[random.randrange(len(sides))] = random.choice((0, -1, 1, 2**20, 2**31, 2**40, 2**62, 2**63 - 1))
    weight.ClearField("dims")
    weight.dims.extend(random.choice((sides, sides[::-1], [*sides, 1], sides * 40)))


def _kinds(model: Any, random: Random) -> None:
    random.choice(model.graph.initializer).data_type = random.choice((0, 1, 2, 6, 7, 8, 9, 10, 11, 16, 17, 23, 99, -1))


def _ends(model: Any, random: Random) -> None:
    ends = model.graph.input if random.random() < 0.5 else model.graph.output
    if not ends:
        return
    match random.randrange(4):
        case 0:
            del ends[:]
        case 1:
            ends[0].name = random.choice(TEXTS[:30])
        case 2:
            ends[0].type.tensor_type.elem_type = random.choice((0, 1, 7, 8, 10, 99))
        case _:
            for side in ends[0].type.tensor_type.shape.dim[: random.randrange(1, 5)]:
                side.dim_value = random.choice((0, -1, 1, 3, 2**15, 2**31, 2**62))


def _opsets(model: Any, random: Random) -> None:
    match random.randrange(4) if model.opset_import else 3:
        case 0:
            del model.opset_import[:]
        case 1:
            model.opset_import[0].version = random.choice((0, -1, 1, 6, 99, 2**40))
        case 2:
            model.opset_import[0].domain = random.choice(("com.canary", "ai.onnx.ml", "x" * 3000))
        case _:
            model.ir_version = random.choice((0, -1, 1, 3, 99, 2**40))


def _nodes(model: Any, random: Random) -> None:
    if not (nodes := model.graph.node):
        return
    node = random.choice(nodes)
    match random.randrange(7):
        case 0:
            node.op_type = random.choice(
                ("Canary", "", "If", "Loop", "Identity", "ConstantOfShape", "Einsum", "Gather")
            )
        case 1:
            node.domain = random.choice(("com.canary", "ai.onnx.contrib", "com.microsoft"))
        case 2 if node.input:
            node.input[0] = random.choice((*node.output[:1], *nodes[-1].output[:1], "nowhere", ""))
        case 3:
            del nodes[nodes[:].index(node)]
        case 4:
            nodes.add().CopyFrom(node)
        case 5 if node.output:  # a chain of names
            name = node.output[0]
            for level in range(random.choice((100, 2000, 20_000))):
                new = nodes.add()
                new.op_type, (before, after) = "Identity", (name if level == 0 else f"n{level}", f"n{level + 1}")
                new.input.append(before)
                new.output.append(after)
        case _ if node.attribute:
            change = random.choice(node.attribute)
            change.i = random.choice((0, -1, 2**31, 2**62))
            change.ints.extend([random.choice((0, -1, 2**31, 2**62))] * random.choice((1, 3, 100)))


def _nested(model: Any, random: Random) -> None:
    """Graphs within graphs."""
    graph = model.graph
    for _ in range(random.choice((5, 40, 90))):  # protobuf itself reads 100 messages within one another
        node = graph.node.add()
        node.op_type = "If"
        node.input.extend(name for first in model.graph.node[:1] for name in first.output[:1])
        branch = node.attribute.add()
        branch.name, branch.type = "then_branch", 5
        graph = branch.g


def _much(model: Any, random: Random) -> None:
    """A few bytes that stand for many numbers."""
    shape = model.graph.initializer.add()
    shape.name, shape.data_type = "many", 7
    shape.dims.append(2)
    shape.raw_data = struct.pack("<qq", *random.choice(((2**40, 1), (2**20, 2**20), (-1, 4), (2**31, 2**31))))
    node = model.graph.node.add()
    node.op_type = "ConstantOfShape"
    node.input.append("many")
    node.output.append("much")
    last = model.graph.input[0].name if model.graph.input else "pixels"
    whole = model.graph.node.add()
    whole.op_type = "Add"
    whole.input.extend(["much", last])
    whole.output.append("sum")
    if random.random() < 0.5 and model.graph.output:
        model.graph.output[0].name = "sum"


_OF_MODELS = (_elsewhere, _elsewhere, _sides, _kinds, _ends, _opsets, _nodes, _nodes, _nested, _much)
_BOMB = '<?xml version="1.0"?><!DOCTYPE net [<!ENTITY a "{}">{}]><net name="&z;">'


def of_xml(content: bytes, random: Random) -> bytes:
    """An XML document: its text and numbers, entities that expand or lead elsewhere, levels without reason."""
    chance = random.random()
    text = content.decode()
    rest = text[text.index("<net") :]
    if chance < 0.1:
        rest = rest[rest.index(">") + 1 :]
        match random.randrange(3):
            case 0:
                names = "abcdefghijklmnopqrstuvwxyz"
                steps = "".join(f'<!ENTITY {after} "{f"&{before};" * 10}">' for before, after in pairwise(names))
                return (_BOMB.format("ha" * 10, steps) + rest).encode()
            case 1:
                where = random.choice(("file:///etc/passwd", OUTSIDE, "http://127.0.0.1:9/x"))
                return f'<!DOCTYPE net [<!ENTITY z SYSTEM "{where}">]><net name="&z;">{rest}'.encode()
            case _:
                levels = random.choice((100, 5000, 200_000))
                return ("<net>" * levels + "</net>" * levels).encode()
    return of_text(content, random)
