"""From the data section of a run file to its images: the source is found, asked, and its answer checked."""

from __future__ import annotations

import inspect
import typing
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from counterpoise import config
from counterpoise.data.problems import Problem, warning
from counterpoise.data.sources.base import Splits
from counterpoise.data.sources.division import fold, split
from counterpoise.data.sources.halves import agreed
from counterpoise.data.sources.memory import concatenate
from counterpoise.data.sources.questions import asked
from counterpoise.data.sources.registry import SOURCES, Source
from counterpoise.data.table_file import is_table, read_table
from counterpoise.data.walking import as_text, leftovers, unread
from counterpoise.errors import ConfigError, CounterpoiseError, DataError, nearest, unknown
from counterpoise.system.addresses import address_of
from counterpoise.system.files import expanded

AUTO = "auto"
OF_VOLUMES = ("nifti", "stacks")
"""Sources of slices."""
_AT_ADDRESS = "shards"  # what is taken to be at an address where no source recognizes it: the same
_DIVIDING = ("split", "group", "train_split", "val_split", "train", "val", "shared")
_NUMBERS_ARE_NAMES = ConfigDict(coerce_numbers_to_str=True)  # of a column, or of a part such as 2 of a column of folds
_FALLBACK = "image_folder"  # what a folder is taken for where no source recognizes it: its errors say what is missing


def load(data: config.Data) -> Splits:
    """The train and val images that a run file's data section speaks of; `data.unlabeled` is appended to train.

    Where `data.held_out` says so, val is a part of the training images, and the data's own val is left alone.

    Both halves have the same classes and are not empty; labels are in range, and known throughout val unless nothing is
    labeled at all (`classes` is empty).

    Raises:
        DataError: data is missing or not of the kind asked for.
        ConfigError: unknown source or option, or an option of the wrong type.
    """
    source = _find(data)
    if data.intensity is not None and data.intensity.of == "volume" and source.name not in OF_VOLUMES:
        raise ConfigError(
            f"data.intensity.of: volume is for volumes (data.source {' or '.join(OF_VOLUMES)}), and source "
            f"'{source.name}' has pictures, each by itself: leave it out, or read them as slices of their volumes."
        )
    splits = source.load(data, **_options(source, data.options))
    if data.class_order == "text" and (classes := as_text(splits.train.classes)):
        splits = Splits(*(part.in_order(classes) for part in splits))
    if data.val_fraction != config.Data.model_fields["val_fraction"].default and not splits.train.drawn:
        splits.train.notes.append("data.val_fraction says nothing here: the data have a val part of their own")
    if data.questions is not None:
        splits = Splits(*(asked(part, data.questions) for part in splits))
    if data.fold is not None:
        splits = _fold(splits, *data.fold_of, data.split_seed)
    splits = agreed(splits, f"source '{source.name}'")
    if data.held_out:
        if data.held_out >= len(splits.train):
            raise ConfigError(
                f"data.held_out must leave something to train on: {data.held_out} of {len(splits.train)} images."
            )
        aside = splits.val
        splits = split(splits.train, data.held_out, data.split_seed)
        if data.fold is not None:
            splits.train.notes.append(f"data.held_out takes the place of val; on neither side: {aside.origin}")
    if data.unlabeled is not None:
        from counterpoise.data.sources import unlabeled

        if address_of(data.unlabeled) is None and not expanded(data.unlabeled).exists():
            _folder(data.unlabeled, "data.unlabeled")  # says so, with the nearest
        for pictures in unlabeled.read(data, source.name, _options(source, data.options)):
            splits = splits._replace(train=concatenate(splits.train, pictures))
    _read_alike(splits, data)
    return splits


def _fold(splits: Splits, number: int, count: int, seed: int) -> Splits:
    """A fold of what is there to train on; a val part that the data bring is left alone, and said."""
    train, val = splits
    if train.drawn and train.split_from is not None:
        parts = fold(train.split_from, number, count, seed)
    else:
        parts = fold(train, number, count, seed)
        parts.train.notes.append(f"data.fold divides the training images; not used: {val.origin or 'val'}")
    parts.train.called, parts.val.called, parts.train.unused = train.called, val.called, train.unused
    return parts


def _read_alike(splits: Splits, data: config.Data) -> None:
    """Have both halves read as `data` says; what it leaves to be found is found in the training pictures."""
    from counterpoise.data.noticing import look

    reading = data.reading
    splits.train.read_as(reading)
    seen = look(splits.train)
    if data.alpha == "ignore" or data.channels not in (1, 3) or (data.alpha == "auto" and seen.band_is_data):
        reading = reading._replace(alpha="ignore")
    for part in splits:
        part.read_as(reading)
    splits.train.notes = [*splits.train.notes, *seen.notes(reading)]


def problems(data: config.Data) -> list[Problem]:
    """What is wrong with this data by its files and by what their source finds, without decoding.

    Raises:
        DataError, ConfigError: there is no such data, source or option.
    """
    source = _find(data)
    found = [] if source.check is None else list(source.check(data, **_options(source, data.options)))
    for folder in (expanded(path) for path in (data.path, data.unlabeled) if path is not None):
        if left := leftovers(folder):
            what = f"{len(left)} files or folders that other programs left there hold images; they are no data."
            found.append(warning(what, "", left))
        if other := unread(folder):
            what = f"{len(other):,} pictures of {folder} are of a format that is not read here, such as {other[0]}."
            found.append(warning(what, "To use them, save them as PNG or JPEG.", other))
    return found


def has_option(data: config.Data, name: str) -> bool:
    """Whether the source of this data has such an option. Raises as `load`."""
    return name in _keywords(_find(data))


def options() -> dict[str, list[str]]:
    """The names of each source's `data.options`, by the source's name."""
    return {name: list(_keywords(source)) for name, source in sorted(SOURCES.entries().items())}


def source_of(data: config.Data) -> str:
    """The name of the source that data is taken for. Raises as `load`."""
    return _find(data).name


def options_for(data: config.Data, known: config.Data) -> dict[str, Any]:
    """The options of known data that also say how another file is read, where both are of a kind; else none.

    How the known data are divided is left out.
    """
    if data.path is None or known.path is None or not all(expanded(p).is_file() for p in (data.path, known.path)):
        return {}
    if source_of(data) != source_of(known):
        return {}
    options = {key: value for key, value in known.options.items() if key not in _DIVIDING}
    several = options.get("label_columns")
    labels = {*(several if isinstance(several, list) else ()), options.get("label")} - {None}
    if labels and "labeled" in _keywords(_find(data)) and is_table(path := expanded(data.path)):
        table = read_table(path, options.get("columns"), options.get("encoding", "utf-8"))
        if not labels & {*table.names} and not any(nearest(label, table.names) for label in labels):
            options["labeled"] = False  # pictures to answer, of which nothing is known
    return options


def grouped_like(data: config.Data, known: config.Data) -> config.Data:
    """The data with the groups of known data of the same kind (`options.group`), where these find all of its groups.

    A table of groups names the known data's own pictures, and is left out. One half alone is looked at, so that groups
    may be on both sides.
    """
    group = known.options.get("group")
    if not isinstance(group, str) or "group" in data.options or is_table(Path(group)):
        return data
    if source_of(data) != source_of(known):
        return data
    shared = {"shared": True} if has_option(data, "shared") else {}
    grouped = data.model_copy(update={"options": {**data.options, "group": group, **shared}})
    try:
        load(grouped)
    except CounterpoiseError:  # which finds no group in some of the paths, or has no such column
        return data
    return grouped


def _find(data: config.Data) -> Source:
    sources = SOURCES.entries()
    if data.source != AUTO and data.source not in sources:
        raise ConfigError(unknown("Data source", data.source, [AUTO, *sources]))
    without_path = [name for name, source in sources.items() if not source.needs_path]
    if data.path is None:
        if data.source == AUTO or sources[data.source].needs_path:
            embedded = ", ".join(f"data.source: {name}" for name in sorted(without_path))
            what = "No data is given" if data.source == AUTO else f"Data source '{data.source}' needs a folder"
            raise DataError(
                f"{what}: set data.path to the folder of the data set, or choose an embedded one ({embedded})."
            )
        return sources[data.source]
    if data.source != AUTO and not sources[data.source].needs_path:
        raise ConfigError(f"Data source '{data.source}' is embedded and takes no path, got data.path: {data.path}.")
    if address_of(data.path) is not None:
        able = [name for name, source in sources.items() if source.addresses]
        if data.source == AUTO:
            return sources[_at_address(data, {name: sources[name] for name in able})]
        if data.source in able:
            return sources[data.source]
        raise ConfigError(
            f"Data source '{data.source}' reads folders, and data.path is an address, {address_of(data.path)}. What is "
            f"read from an address: data.source: {', '.join(able)}."
        )
    if data.source == AUTO and str(data.path) in without_path and not data.path.exists():
        raise DataError(f"Folder {data.path} does not exist. For the embedded data set set data.source: {data.path}.")
    if (path := expanded(data.path)).is_file():
        return _of_file(path, data.source)
    path = _folder(data.path, "data.path")
    if data.source != AUTO:
        return sources[data.source]
    kinds = [
        source for _, source in sorted(sources.items()) if source.recognizes is not None and source.recognizes(path)
    ]
    return kinds[0] if kinds else sources[_FALLBACK]


def _of_file(path: Path, wanted: str) -> Source:
    """The source of data.path where that is a file: a table, in place of a folder."""
    able = {name: source for name, source in SOURCES.entries().items() if source.files is not None}
    for name, source in sorted(able.items()):
        if name == wanted or (wanted == AUTO and source.files is not None and source.files(path)):
            return source
    if wanted != AUTO:
        raise DataError(f"data.path must be a folder for source '{wanted}', and {path} is a file.")
    raise DataError(
        f"data.path must be a folder, or a table of labels (.csv, .tsv, .jsonl, .parquet), and {path} is another file."
    )


def _at_address(data: config.Data, able: dict[str, Source]) -> str:
    """Which of these kinds is at an address. Raises DataError where nobody can say."""
    address = address_of(data.path) if data.path is not None else None
    assert address is not None
    for name, source in sorted(able.items()):
        if source.recognizes_address is not None and source.recognizes_address(address, data.options):
            return name
    return _AT_ADDRESS


def _folder(path: Path, key: str) -> Path:
    path = expanded(path)
    if not path.exists():
        siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError(
            f"{'Table' if is_table(path) else 'Folder'} {path} ({key}) does not exist.{nearest(path.name, siblings)}"
        )
    if not path.is_dir():
        raise DataError(f"{key} must be a folder, and {path} is a file.")
    return path


def _keywords(source: Source) -> dict[str, Any]:
    """The options of a source with their types."""
    hints = typing.get_type_hints(source.load)
    parameters = inspect.signature(source.load).parameters.values()
    return {item.name: hints[item.name] for item in parameters if item.kind is inspect.Parameter.KEYWORD_ONLY}


def _options(source: Source, given: dict[str, Any]) -> dict[str, Any]:
    choices = _keywords(source)
    values = {}
    for name, value in given.items():
        if name not in choices:
            known = f" Available: {', '.join(choices)}." if choices else " It has none."
            raise ConfigError(
                f"data.options.{name}: unknown option of source '{source.name}'.{nearest(name, choices)}{known}"
            )
        try:
            values[name] = TypeAdapter(choices[name], config=_NUMBERS_ARE_NAMES).validate_python(value)
        except ValidationError as error:
            wanted = error.errors()[0]["msg"]
            literals = [str(choice) for choice in typing.get_args(choices[name])]
            quoted = " Text stands in quotes: '\"true\"'." if isinstance(value, bool) and "string" in wanted else ""
            message = f"{wanted[:1].lower()}{wanted[1:]}, got {value!r}.{nearest(str(value), literals)}{quoted}"
            raise ConfigError(f"data.options.{name}: {message}") from None
    return values
