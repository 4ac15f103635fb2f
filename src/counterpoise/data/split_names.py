"""Which part of a data set is for training and which for evaluation, by what people call them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from counterpoise.errors import DataError, nearest

TRAIN = ("train", "training", "trainval")  # each in order of preference
VAL = ("val", "valid", "validation", "dev")
TEST = ("test", "testing")


@dataclass(frozen=True)
class Halves:
    """Names of the two parts, as they are spelled there.

    Attributes:
        val: None where there is only the training part, of which some is to be held out.
        why: what else is to be known of the choice, such as "there is no val"; may be empty.
        unused: other parts that are there and not looked at.
    """

    train: str
    val: str | None
    why: str
    unused: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Of the parts that are used."""
        return (self.train,) if self.val is None else (self.train, self.val)


def is_split_name(name: str) -> bool:
    """Whether a part of a data set is usually called so, in any case."""
    return name.casefold() in (*TRAIN, *VAL, *TEST)


def word_in(path: str) -> str:
    """The name of a split that is a word in a path without its ending, such as in data/train-00000-of-00002; or ""."""
    return next((word.lower() for word in re.split(r"[^A-Za-z]+", path) if is_split_name(word)), "")


def find(present: Iterable[str], where: str, train: str | None = None, val: str | None = None) -> Halves | None:
    """The halves among the parts that are there; None where none is for training.

    Args:
        present: names of all parts (folders, lists, splits).
        where: what holds them, for errors.
        train, val: names that the user has given, if any.

    Raises:
        DataError: a name that was given is not there; two names differ in case alone.
    """
    names = sorted(present)
    first = named(train, names, where) if train is not None else _first(TRAIN, names, where)
    if first is None:
        if val is not None:
            named(val, names, where)
        return None
    others = [name for name in names if name != first]
    second = _first(VAL, others, where) if val is None else named(val, names, where)
    why = "which is trained on, too" if val is not None and second == first else ""
    if second is None:
        second = _first(TEST, others, where)
        why = "there is no val" if second is not None else ""
    return Halves(first, second, why, tuple(name for name in others if name != second))


def named(wanted: str, names: Sequence[str], where: str) -> str:
    """The part that was meant by a name: it as it is, in another case, or by another word for the same.

    Raises DataError where there is none, or several.
    """
    if wanted in names:
        return wanted
    plain = wanted.casefold()
    for words in ((plain,), next((kind for kind in (TRAIN, VAL, TEST) if plain in kind), ())):
        meant = [name for name in names if name.casefold() in words]
        if len(meant) == 1:
            return meant[0]
        if meant:
            raise DataError(f"{where} has {_listed(meant)}: which of them is '{wanted}'? Give it as it is spelled.")
    there = f" It has {_listed(names)}." if 0 < len(names) <= 10 else ""
    raise DataError(f"{where} has no split '{wanted}'.{nearest(wanted, names)}{there}")


def _first(words: Sequence[str], names: Sequence[str], where: str) -> str | None:
    for word in words:
        meant = [name for name in names if name.casefold() == word]
        if len(meant) > 1:
            raise DataError(f"{where} has {_listed(meant)}, which differ in case alone: rename one of them.")
        if meant:
            return meant[0]
    return None


def _listed(names: Iterable[str]) -> str:
    *first, last = [f"'{name}'" for name in names]
    return f"{', '.join(first)} and {last}" if first else last
