"""What is what in a Hugging Face data set: columns of pictures and labels, classes, and the two halves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from counterpoise import config
from counterpoise.data.class_names import doubtful, of_label
from counterpoise.data.problems import raise_first
from counterpoise.data.sources import grouping
from counterpoise.data.sources.base import ImageSet, Splits
from counterpoise.data.sources.division import name_parts, split_by_fraction
from counterpoise.data.split_names import Halves, find
from counterpoise.data.walking import ordered
from counterpoise.errors import ConfigError, DataError, nearest, unknown

_LABEL_NAMES = ("label", "labels", "class", "target")  # what a column of plain numbers or strings is usually called


class Columns(NamedTuple):
    """Names of the two columns."""

    image: str
    label: str


def choose(features: Mapping[str, Any], image: str | None, label: str | None) -> Columns:
    """The columns among the features of a data set; image, label: those that were asked for. Raises as `_column`."""
    import datasets

    pictures = [name for name, feature in features.items() if isinstance(feature, datasets.Image) or _is_bytes(feature)]
    image_column = _column("image", image, list(features), pictures, pictures)
    named = [name for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
    scalars = [name for name, feature in features.items() if name in named or _is_scalar(feature)]
    usual = [name for name in _LABEL_NAMES if name in scalars]
    return Columns(image_column, _column("label", label, list(features), scalars, named or usual[:1] or scalars))


class Asked(NamedTuple):
    """Splits and columns as the sources' options name them."""

    image: str | None
    label: str | None
    train_split: str | None
    val_split: str | None
    group: str | None
    shared: bool


class Grouped(NamedTuple):
    """What belongs together, by a column.

    Attributes:
        shared: let groups be on both sides of the data's own division.
        names: the group of each picture of a split, "" where there is none.
    """

    column: str
    shared: bool
    names: Callable[[str], list[str]]


def group_column(features: Mapping[str, Any], group: str) -> str:
    """The column of groups that was asked for. Raises ConfigError."""
    named = [name for name, feature in features.items() if _is_scalar(feature) or names_of(feature) is not None]
    return _column("group", group, list(features), named, [])


def group_names(values: Iterable[Any], feature: Any) -> list[str]:
    """The names that a column has for groups."""
    names = names_of(feature)
    return [text_of(value, names) or "" for value in values]


def require(columns: Iterable[str], features: Iterable[str], name: str, where: str, of: str) -> None:
    """Raises DataError where a split, or a file, lacks a column that another one has."""
    there = list(features)
    for column in columns:
        if column not in there:
            raise DataError(f"{name} of {where} has no column '{column}', which {of} has.")


def names_of(feature: Any) -> list[str] | None:
    """The names of a ClassLabel, in its order; None of a plain column. Raises DataError where one is no text."""
    names = getattr(feature, "names", None)
    if names is None:
        return None
    if odd := [name for name in names if not isinstance(name, str)]:
        raise DataError(f"The data set names a class {odd[0]!r:.80}: names of classes are texts.")
    return list(names)


def text_of(value: Any, names: Sequence[str] | None) -> str | None:
    """The class that a label stands for; None where it is withheld. Raises DataError where there is no such name."""
    if names is None:
        return of_label(value)
    if value is None or value < 0:  # -1 stands for a withheld label
        return None
    if value >= len(names):
        raise DataError(f"Label {value} is beyond the {len(names)} names of its column.")
    return str(names[value])


def classes_of(texts: Iterable[str], names: Sequence[str] | None) -> list[str]:
    """All classes, in their order; texts: those that are met."""
    return ordered(set(texts)) if names is None else list(names)


def unknown_class(name: str, split: str, classes: Sequence[str]) -> DataError:
    """What is said of a class of one split that training lacks."""
    return DataError(f"Class '{name}' of split '{split}' is unknown to the training data.{nearest(name, classes)}")


def find_halves(splits: Mapping[str, Any], where: str, train: str | None, val: str | None) -> Halves:
    """The splits to train and to evaluate on; of one alone, it. Raises DataError."""
    halves = find(splits, where, train, val)
    if halves is None and len(splits) == 1:
        halves = Halves(next(iter(splits)), None, "", ())
    if halves is None:
        raise DataError(
            f"{where} has no split 'train', only {', '.join(splits)}: name one, --data.options.train_split NAME."
        )
    return halves


def in_halves(
    data: config.Data,
    halves: Halves,
    train: ImageSet,
    val: Callable[[str], ImageSet],
    where: str,
    plain: str | None,
    grouped: Grouped | None = None,
) -> Splits:
    """Both halves; where there is one split alone, `data.val_fraction` of it is held out.

    Args:
        val: makes the set of a split.
        plain: the column of labels where it has names itself, and no list of them.
    """
    train.origin = f"split {halves.train} of {where}"
    if plain is not None:
        train.notes += doubtful(train.classes, f"column '{plain}'", none="a row without a label is empty, or null")
    if halves.unused:
        train.notes.append(f"not used: {', '.join(halves.unused)} of {where}")
    if halves.val is None:
        if grouped is not None:
            _group([train], grouped, halves, where)
        return split_by_fraction(train, data.val_fraction, data.split_seed)
    val_set = val(halves.val)
    if grouped is not None:
        _group([train, val_set], grouped, halves, where)
    val_set.origin = f"split {halves.val} of {where}" + (f" ({halves.why})" if halves.why else "")
    both = Splits(train, val_set)
    name_parts(both, halves)
    return both


def _group(parts: Sequence[ImageSet], grouped: Grouped, halves: Halves, where: str) -> None:
    """Give the parts their groups. Raises DataError where one is on both sides."""
    each = [grouped.names(name) for name in halves.names]
    part_of = [side for side, names in enumerate(each) for _ in names]
    every = [name for names in each for name in names]
    found = grouping.of_column(grouped.column, every, part_of, halves, grouped.shared)
    if found.torn:
        what = f"{len(found.torn):,} groups are in both {halves.train} and {halves.val} of {where}, such as"
        problem = grouping.of_torn(
            f"{what} '{found.torn[0]}'.", found.torn, "move their pictures to one side", grouped.shared
        )
        raise_first([problem])
        parts[0].notes.append(problem.sentence)
    parts[0].notes += found.said
    first = 0
    for part in parts:
        part.groups, part.group_names = found.numbers[first : first + len(part)], found.called
        first += len(part)


def _column(
    option: str, given: str | None, columns: Sequence[str], fitting: Sequence[str], likely: Sequence[str]
) -> str:
    """The column that was asked for, or the only likely one. Raises ConfigError, DataError."""
    if given is not None:
        if given not in columns:
            raise ConfigError(f"data.options.{option}: {unknown('Column', given, columns)}")
        if given not in fitting:
            fit = ", ".join(fitting) or "none"
            raise ConfigError(
                f"data.options.{option}: column '{given}' cannot serve as {option}; those that can: {fit}."
            )
        return given
    if not likely:
        raise DataError(f"The data set has no column that can serve as {option}; its columns are {', '.join(columns)}.")
    if len(likely) > 1:
        raise ConfigError(f"{', '.join(likely)} can all serve as {option}; choose one with data.options.{option}.")
    return likely[0]


def _is_bytes(feature: Any) -> bool:
    """Whether a column holds files as {bytes, path}, which programs write that do not say that these are pictures."""
    return isinstance(feature, Mapping) and str(getattr(feature.get("bytes"), "dtype", "")).endswith("binary")


def _is_scalar(feature: Any) -> bool:
    return str(getattr(feature, "dtype", "")).startswith(("int", "uint", "bool", "string", "large_string"))
