"""Which column of a table is what: as it was said, or as there is one reading alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from counterpoise.data.split_names import TRAIN, is_split_name
from counterpoise.data.table_file import Table, listed
from counterpoise.data.walking import is_image
from counterpoise.errors import ConfigError, DataError

_LABEL_NAMES = ("label", "labels", "class", "class_name", "classname", "category", "target", "y")
_FEW = 20
"""Parts that data are divided into, at most."""
_PART_NAMES = {"split", "fold", "kfold", "set", "subset", "partition", "phase"}
_IS_PART = re.compile(r"(is_?)?(train|val|valid|validation|test|holdout)", re.IGNORECASE)
_GROUP_NAMES = ("patient", "subject", "person", "site", "hospital", "video", "scene", "group", "case", "study")


@dataclass
class Columns:
    """Names of columns.

    Attributes:
        labels: one or several; none where nothing is labeled.
        several: whether each of them says of one class whether it is there.
        said: which were taken that nobody had named, and what else is to be known.
    """

    image: str
    labels: tuple[str, ...] = ()
    split: str | None = None
    group: str | None = None
    said: list[str] = field(default_factory=list)
    several: bool = False

    def take_several(
        self, table: Table, named: Sequence[str] | str | None, label: str | None, separator: str | None
    ) -> None:
        """Take the columns that are named, or all "others", for one class each.

        Raises ConfigError where columns are missing, or labels are said to be elsewhere, too.
        """
        if named is None:
            return
        if label is not None or separator is not None:
            raise ConfigError(
                "data.options.label_columns names a column for each label, and label or separator one for all: give "
                "either of them."
            )
        taken = {self.image, self.split, self.group}
        if isinstance(named, str):
            named = [name for name in table.names if name and name not in taken]
        for name in named:
            table.require(name, "data.options.label_columns")
        if not named or len(set(named)) < len(named) or taken & {*named}:
            raise ConfigError(
                f"data.options.label_columns: columns of labels alone are expected, each once, got {listed(named)}."
            )
        self.labels, self.several = tuple(named), True


def choose(
    table: Table, image: str | None, labels: Sequence[str] | None, split: str | None, group: str | None, suffix: str
) -> Columns:
    """The columns of a table. labels: none where that is wanted; None where it was not said.

    Raises ConfigError for a column that is not there, DataError where several may be meant.
    """
    for option, name in (("image", image), ("split", split), ("group", group)):
        if name is not None:
            table.require(name, f"data.options.{option}")
    for name in labels or ():
        table.require(name, "data.options.label")
    given = {*filter(None, (image, split, group)), *(labels or ())}
    found = Columns(image or _image(table, given, suffix), tuple(labels or ()), split, group)
    if image is None:
        found.said.append(f"pictures: column '{found.image}'")
    if split is None:
        found.split = _split(table, given | {found.image})
        if found.split is not None:
            found.said.append(f"parts: column '{found.split}'")
    taken = given | {found.image} | ({found.split} if found.split else set())
    if labels is None:
        found.labels = _labels(table, [name for name in table.names if name and name not in taken])
        what = f"labels: column '{found.labels[0]}'" if found.labels else "no column beside that of pictures: no labels"
        found.said.append(what)
    taken |= set(found.labels)
    if found.split is None:
        found.said += _unused_parts(table, taken)
    if group is None:
        found.said += _unused_groups(table, taken)
    return found


def words(name: str) -> list[str]:
    """The words of a column's name."""
    return [word for word in re.split("[-_ ]", name.casefold()) if word]


def is_part(name: str) -> bool:
    """Whether a column seems to say which part a row is of, by its name."""
    return bool(_PART_NAMES & {*words(name)} or _IS_PART.fullmatch(name))


def is_group(name: str) -> bool:
    """Whether a column seems to say what belongs together, by its name."""
    return any(word in _GROUP_NAMES for word in words(name))


def _image(table: Table, given: set[str], suffix: str) -> str:
    """The one column whose values are names of image files."""
    others = [name for name in table.names if name and name not in given]
    fitting = [name for name in others if (values := table.first(name)) and all(map(is_image, values))]
    if len(fitting) == 1:
        return fitting[0]
    masks = " Where one of them has masks: --data.source masks_table." if len(fitting) == 2 else ""
    several = f"columns {listed(fitting)} all hold names of image files" if fitting else "no column holds such names"
    ending = " Names without their ending: --data.options.suffix .jpg, too." if not (fitting or suffix) else ""
    if not fitting and table.path.suffix.lower() == ".parquet" and not all(map(table.first, others)):
        ending = f" Pictures that are in the file itself are read from its folder: --data {table.path.parent}."
    raise DataError(
        f"Which column of {table.path} has the pictures is not clear: {several}. It has: {listed(table.names)}. Say "
        f"which: --data.options.image NAME.{ending}{masks}"
    )


def _split(table: Table, taken: set[str]) -> str | None:
    """The one column that holds names of splits alone, train among them."""
    found = []
    for name in table.names:
        if name and name not in taken and (values := table.first(name)) and all(map(is_split_name, values)):
            words = {value.casefold() for value in table.text(name)} - {""}
            if len(words) > 1 and all(map(is_split_name, words)) and words & {*TRAIN}:
                found.append(name)
    if len(found) > 1:
        raise DataError(
            f"Columns {listed(found)} of {table.path} all hold names of parts such as train: say which is meant, "
            "--data.options.split NAME."
        )
    return found[0] if found else None


def _labels(table: Table, others: Sequence[str]) -> tuple[str, ...]:
    """The one column that can be meant; none where no column is left."""
    usual = [name for name in others if name.casefold() in _LABEL_NAMES]
    likely = usual or list(others)
    if len(likely) == 1:
        return (likely[0],)
    if not likely:
        return ()
    flags = [name for name in likely if _flags(table, name)]
    each = ""
    if len(flags) > 1:
        which = "others" if flags == list(likely) == list(others) else f"'[{listed(flags)}]'"
        each = f" Where each says of one label whether it is there: --data.options.label_columns {which}."
    raise DataError(
        f"Which column of {table.path} has the labels is not clear: {listed(likely)}. Say which: --data.options.label "
        f"NAME; or leave labels alone, for distill: --data.options.labeled false.{each}"
    )


def _flags(table: Table, name: str) -> bool:
    """Whether a column holds nothing but 1, 0 and -1."""
    return bool((values := table.first(name)) and {*values} <= {"1", "0", "-1", "1.0", "0.0", "-1.0"})


def _unused_parts(table: Table, taken: set[str]) -> list[str]:
    """A word where a column seems to say which part a row is of, by its name or by some of its words."""
    for name in table.names:
        if name and name not in taken and (is_part(name) or any(map(is_split_name, table.first(name)))):
            present = sorted(set(table.text(name)) - {""})
            if 1 < len(present) <= _FEW:
                return [
                    f"column '{name}' is not used: where {', '.join(present)} are parts of the data, "
                    f"--data.options.split {name} (and train_split, val_split)"
                ]
    return []


def _unused_groups(table: Table, taken: set[str]) -> list[str]:
    """A word where pictures seem to belong together and nobody said so."""
    for name in table.names:
        if name and name not in taken and is_group(name):
            values = table.first(name)
            if values and len(set(values)) < len(values):
                return [
                    f"column '{name}' is not used: where its pictures belong together and must not be on both sides, "
                    f"--data.options.group {name}"
                ]
    return []
