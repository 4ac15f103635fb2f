"""Names of classes that look the same are refused, and those that are probably one are said, in every kind of data."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from counterpoise import config
from counterpoise.data import sources
from counterpoise.data.class_names import alike, doubtful, of_label, require_apart
from counterpoise.data.sources import ArraySet, Splits
from counterpoise.data.sources.halves import agreed
from counterpoise.errors import DataError, nearest

WHOLE, APART = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
Draw = Callable[..., Image.Image]


@pytest.fixture
def draw(make_picture: Draw, tmp_path: Path) -> Callable[[str], str]:
    """Puts a picture below tmp_path."""

    def put(name: str) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        make_picture("circle", len(name), (8, 8)).save(path)
        return name

    return put


def in_memory(classes: list[str]) -> ArraySet:
    return ArraySet(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.arange(4) % 2, classes)


@pytest.mark.parametrize("name", [APART, f"\u200b{WHOLE}", f"caf\u00ad{APART[3:]}"])
def test_classes_that_look_the_same_are_refused(name: str) -> None:
    with pytest.raises(DataError) as refused:
        require_apart(["ant", WHOLE, name])
    said = f"look the same, and are written otherwise, {WHOLE!a} and {name!a}: call both alike"
    assert said in str(refused.value)
    require_apart(["cafe", WHOLE, "Caf\u00e9", "dog"])


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        (["Cat", "cat"], "classes 'Cat' and 'cat' differ in case alone, and are two"),
        ([WHOLE, APART.upper()], f"classes '{WHOLE}' and '{APART.upper()}' differ in case alone, and are two"),
        (["01", "1"], "classes '01' and '1' are one number, and are two"),
        (["1", "\uff11"], "classes '1' and '\uff11' are one number, and are two"),
        (["sea lion", "sea\u00a0lion"], r"look alike ('sea lion' and 'sea\xa0lion'), and are two"),
        (["cat", "cat "], "look alike ('cat' and 'cat '), and are two"),
    ],
)
def test_classes_that_are_probably_one_are_said(classes: list[str], said: str) -> None:
    (note,) = alike(["dog", *classes])
    assert note.endswith(said)
    assert alike(["10", "1", "-1", "cat", "cats", "cafe", WHOLE]) == []


@pytest.mark.parametrize(
    ("given", "name", "numbered"),
    [
        (" cat\n", "cat", "cat"),
        ("", None, None),
        (None, None, None),
        (float("nan"), None, None),
        ("NaN", None, None),
        (7, "7", "7"),
        ("01", "01", "1"),
        ("-1", "-1", None),
        (-1, "-1", None),
        ("-2", "-2", "-2"),
        (True, "True", "True"),
    ],
)
def test_a_label_names_one_class_or_none(given: object, name: str | None, numbered: str | None) -> None:
    assert (of_label(given), of_label(given, numbered=True)) == (name, numbered)


def test_names_that_may_be_meant_otherwise_are_said() -> None:
    said = doubtful(["cat", "cat|dog", "NA"], "the tars", none="an empty one")
    assert said == [
        "'NA' of the tars is taken for a class: an empty one",
        "'cat|dog' of the tars is taken for one class: where it is several labels, they are read from a table of "
        "labels",
    ]
    assert doubtful(["cat", "dog", "1.5"], "x") == []


def test_every_kind_of_data_is_looked_at(tmp_path: Path, draw: Callable[[str], str]) -> None:
    for number in range(8):
        draw(f"odd/{['Cat', 'cat', '01', '1'][number % 4]}/{number}.png")
    folder = sources.load(config.Data(path=tmp_path / "odd"))
    assert folder.train.notes == [
        "classes '01' and '1' are one number, and are two",
        "classes 'Cat' and 'cat' differ in case alone, and are two",
    ]
    rows = [f"{draw(f'loose/{number}.png')},{[WHOLE, APART][number % 2]}" for number in range(6)]
    (tmp_path / "table.csv").write_text("\n".join(["file,label", *rows]), encoding="utf-8")
    with pytest.raises(DataError, match="look the same, and are written otherwise"):
        sources.load(config.Data(path=tmp_path / "table.csv"))
    two = Splits(*(in_memory(["Cat", "cat"]) for _ in range(2)))
    assert agreed(agreed(two, "here"), "here").train.notes == [
        "classes 'Cat' and 'cat' differ in case alone, and are two"
    ]


def test_a_class_of_val_that_is_written_otherwise_says_how(tmp_path: Path, draw: Callable[[str], str]) -> None:
    message = r"looks the same, and is written otherwise: 'caf\\xe9', not 'cafe\\u0301'"
    rows = []
    for number in range(8):
        part, cafe = [("train", WHOLE), ("val", APART)][number // 4]
        rows.append(f"{draw(f'loose/{number}.png')},{[cafe, 'dog'][number % 2]},{part}")
    (tmp_path / "table.csv").write_text("\n".join(["file,label,split", *rows]), encoding="utf-8")
    with pytest.raises(DataError, match=message):
        sources.load(config.Data(path=tmp_path / "table.csv"))
    with pytest.raises(DataError, match=message):
        agreed(Splits(in_memory([WHOLE, "dog"]), in_memory([APART, "dog"])), "here")
    assert nearest("\u200bx", ["x", "y"]) == r" 'x' looks the same, and is written otherwise: 'x', not '\u200bx'."
    assert nearest("cat", ["cats"]) == " Did you mean 'cats'?"
