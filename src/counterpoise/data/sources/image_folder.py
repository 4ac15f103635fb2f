"""A folder of image files sorted into class folders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from counterpoise import config
from counterpoise.data.problems import SHOWN, Problem, fault, raise_first, warning
from counterpoise.data.sources.base import Splits
from counterpoise.data.sources.division import divided, not_used
from counterpoise.data.sources.files import FileSet
from counterpoise.data.sources.grouping import Asked, give_groups
from counterpoise.data.sources.registry import register
from counterpoise.data.split_names import TEST, VAL, Halves, find, is_split_name, named
from counterpoise.data.table_file import is_table
from counterpoise.data.walking import entries, image_files, loose_images, of_links, ordered, subfolders
from counterpoise.errors import DataError, nearest
from counterpoise.system.files import expanded


@register(
    "image_folder",
    summary="PATH/train and PATH/val with a folder a class, or class folders alone, split by val_fraction",
    check=lambda data, **options: _survey(data, **options)[1],
)
def load(
    data: config.Data,
    *,
    train_split: str | None = None,
    val_split: str | None = None,
    nested: bool = False,
    group: str | None = None,
    shared: bool = False,
) -> Splits:
    """Class folders below `data.path`, or below its train/ and val/ (or valid/, validation/, test/), in any case.

    Classes whose names are all whole numbers are in the order of numbers, others in that of text.

    Args:
        train_split: folder to train on, below `data.path`; default: train or training, where it is there.
        val_split: folder to evaluate on; default: the first of val, valid, validation, dev, test, testing.
        nested: whether images may lie in folders within a class folder that holds nothing else.
        group: what belongs together, such as the pictures of a patient, and is on one side of a division alone: a
            regular expression with what names it in parentheses, such as (patient[0-9]+)_, looked for in paths below
            class folders; or a table with columns file and group.
        shared: let groups be on both sides.
    """
    splits, problems = _survey(data, train_split, val_split, nested, group, shared)
    raise_first(problems)
    assert splits is not None
    splits.train.notes += [problem.sentence for problem in problems]
    return splits


def find_folders(root: Path, train_split: str | None = None, val_split: str | None = None) -> Halves:
    """The folders of train and val images below `root`; that alone (train "") where it is not divided.

    A folder 'train' beside others is a class (CIFAR-100 has one) where images lie directly in it, unless the user has
    called it a split.
    """
    given = [name for name in (train_split, val_split) if name is not None and "/" in name]
    for name in given:
        if not (root / name).is_dir():
            raise DataError(f"{root} has no folder '{name}'.")
    names = sorted({*subfolders(root), *given})
    halves = find(names, str(root), train_split, val_split)
    if halves is None:
        if val_split is not None or (names and all(map(is_split_name, names))):
            first = next((name for word in (*VAL, *TEST) for name in names if name.casefold() == word), "")
            there = first if val_split is None else named(val_split, names, str(root))
            raise DataError(
                f"{root} has a folder '{there}', but no folder 'train'. To take it as a whole, give its own path, "
                f"{root / there}; or name the folder to train on, --data.options.train_split NAME."
            )
        return Halves("", None, "", ())
    apart = [name for name in names if not is_split_name(name)]
    if train_split is None and val_split is None and apart and loose_images(root / halves.train):
        return Halves("", None, "", ())
    unused = [name for name in halves.unused if not any(part.startswith(f"{name}/") for part in given)]
    return replace(halves, unused=tuple(name for name in unused if image_files(root / name)))


def _survey(
    data: config.Data,
    train_split: str | None = None,
    val_split: str | None = None,
    nested: bool = False,
    group: str | None = None,
    shared: bool = False,
) -> tuple[Splits | None, list[Problem]]:
    """The splits of a folder as it is, and all that is wrong with it; errors are in the way of splits."""
    assert data.path is not None  # the registry has seen to it
    root = expanded(data.path)
    try:
        halves = find_folders(root, train_split, val_split)
    except DataError as error:
        return None, [fault(str(error))]
    folders = [root / name for name in halves.names]
    problems: list[Problem] = []
    images = {half: _in_classes(half, data.reading.arrays, problems) for half in dict.fromkeys(folders)}
    for half, found in images.items():
        deep = {name: files for name, files in found.items() if _only_folders(files)}
        if deep and not nested:
            problems.append(_meaning(root, half, deep, len(found)))
    train, val = folders[0], folders[-1]
    problems += _of_classes(train, images[train])
    if val != train and images[train]:
        problems += _of_val(train, val, images)
    if any(problem.severity == "error" for problem in problems):
        return None, problems
    # Images lie in the order of their paths, whatever the order of the classes.
    names = sorted(images[train])
    parts = {half: _collected(half, images[half], names) for half in folders}
    below = [[file.partition("/")[2] for file in part.files] for part in parts.values()]
    problems += give_groups([*parts.values()], below, Asked(group, shared), root, halves)
    if any(problem.severity == "error" for problem in problems):
        return None, problems
    for half in parts:
        loose = [half / name for name in loose_images(half)]
        parts[train].notes += not_used((), loose, "class folders")
    splits = divided(data, root, halves, parts.__getitem__)
    return Splits(*(part.in_order(ordered(names)) for part in splits)), problems


def _in_classes(half: Path, arrays: bool, problems: list[Problem]) -> dict[str, list[str]]:
    """The images of each class folder; what is left out is added to `problems`."""
    found = {}
    for name in subfolders(half):
        twice: list[str] = []
        found[name] = image_files(half / name, arrays, twice)
        problems += map(warning, of_links(half / name, twice))
    return found


def _of_classes(folder: Path, files: Mapping[str, list[str]]) -> Iterator[Problem]:
    """What is wrong with the class folders of the training half."""
    if not files:
        loose = " It holds images without labels: source 'photos' is for those." if loose_images(folder) else ""
        tables = sorted(entry.name for entry in entries(folder) if is_table(Path(entry.name)))
        table = f" A table of labels is data, too: --data {folder / tables[0]}." if tables else ""
        yield fault(f"{folder} has no class folders; expected one folder of images for each class.{loose}{table}")
    elif len(files) == 1:
        yield fault(f"{folder} has one class only, '{next(iter(files))}'; a classifier needs at least 2 class folders.")
    for name, found in files.items():
        if not found:
            yield fault(
                f"Class '{name}' is empty: {folder / name} holds no images.{_others(folder / name)}",
                "Put images there, or remove the folder.",
                [str(folder / name)],
            )


def _of_val(train: Path, val: Path, images: Mapping[Path, Mapping[str, list[str]]]) -> Iterator[Problem]:
    """What is wrong with the class folders of the val half, beside those of training."""
    files, others = images[train], images[val]
    for name in others:
        if name not in files and others[name]:
            yield fault(
                f"Class '{name}' of {val} is unknown to {train}.{nearest(name, files)}",
                "Call both alike, or remove one.",
                [f"{val}/{name}"],
            )
    if not any(others.get(name) for name in files):
        yield fault(f"{val} holds no images in class folders such as '{next(iter(files))}'.")


def _collected(folder: Path, files: Mapping[str, list[str]], names: Sequence[str]) -> FileSet:
    paths = [f"{name}/{file}" for name in names for file in files.get(name, ())]
    labels = [label for label, name in enumerate(names) for _ in files.get(name, ())]
    return FileSet(folder, paths, torch.tensor(labels, dtype=torch.int64), names)


def _only_folders(files: Sequence[str]) -> bool:
    """Whether images lie in folders alone, and not all of them directly in one (as in Tiny ImageNet's CLASS/images)."""
    if not files or any("/" not in file for file in files):
        return False
    return len({file.partition("/")[0] for file in files}) > 1 or any(file.count("/") > 1 for file in files)


def _meaning(root: Path, half: Path, deep: Mapping[str, list[str]], classes: int) -> Problem:
    """Class folders that hold only folders: what they probably are, and how to say it."""
    inside = {name: sorted({file.partition("/")[0] for file in files}) for name, files in deep.items()}
    named = ", ".join(f"'{name}'" for name in list(deep)[:SHOWN]) + (", ..." if len(deep) > SHOWN else "")
    hold = "holds" if len(deep) == 1 else "hold"
    first = next(iter(inside.values()))
    some = ", ".join(first[:3]) + (", ..." if len(first) > 3 else "")
    what = f"{named} in {half} {hold} no images, only folders ({some})."
    nested = "If all images below such a folder are of one class: --data.options.nested true."
    where = [str(half / name) for name in deep]
    if classes == 1:
        below = half / next(iter(deep))
        return fault(what, f"If those are the classes, give their folder, data.path: {below}. {nested}", where)
    likely = _likely_halves(list(deep)) if half == root else None
    if likely is not None and len(set.intersection(*(set(names) for names in inside.values()))) > 0:
        train, val = likely
        options = f"--data.options.train_split {train} --data.options.val_split {val}"
        return fault(what, f"They look like the halves of a data set, not like classes: {options}. {nested}", where)
    return fault(
        what,
        f"{nested} If they are parts of a data set: --data.options.train_split NAME --data.options.val_split NAME. If "
        "the classes are the folders inside: move them one level up.",
        where,
    )


def _likely_halves(names: Sequence[str]) -> tuple[str, str] | None:
    """Which of the names speak of training and of evaluation."""
    train = [name for name in names if "train" in name.casefold()]
    rest = [name for name in names if name not in train]
    val = [name for word in ("val", "test") for name in rest if word in name.casefold()]
    return (train[0], val[0]) if train and val else None


def _others(folder: Path) -> str:
    others = sorted(entry.name for entry in entries(folder) if entry.is_file())
    return f" Its {len(others)} files, such as {others[0]}, are of no known image format." if others else ""
