"""What `data.unlabeled` names: pictures of which nothing is known, to be learned from by the teacher's word alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from counterpoise import config
from counterpoise.data.nifti_file import holds_volumes, is_nifti
from counterpoise.data.problems import raise_first
from counterpoise.data.sources import nifti, photos, shards, stacks, table_columns, table_files, table_parts
from counterpoise.data.sources.base import UNLABELED, ImageSet
from counterpoise.data.sources.files import FileSet
from counterpoise.data.sources.registry import SOURCES
from counterpoise.data.sources.volume_survey import without_labels
from counterpoise.data.table_file import is_table, read_table
from counterpoise.data.walking import entries
from counterpoise.errors import DataError
from counterpoise.system.addresses import address_of
from counterpoise.system.files import expanded

_WITH_MASKS = ("instance_folders", "mask_folders", "masks_folder")
_OF_TABLES = ("image", "root", "suffix", "encoding")


def read(data: config.Data, source: str, options: Mapping[str, Any]) -> list[ImageSet]:
    """All pictures that `data.unlabeled` names; what is said there of them, in labels or masks, is left alone.

    Args:
        source: the kind of the data beside them, whose options say how volumes and tables are read here, too.
        options: of that source, of the right types.

    Raises:
        DataError: there is nothing of use, or masks lie among the pictures.
    """
    assert data.unlabeled is not None
    if address_of(data.unlabeled) is not None:
        return [*(shards.all_images(data.unlabeled) or ())]
    path = expanded(data.unlabeled)
    if path.is_file() and is_table(path):
        own = {name: options[name] for name in _OF_TABLES if options.get(name)} if SOURCES.get(source).files else {}
        return [_of_table(path, data.on_corrupt, own)]
    if not path.is_dir():
        raise DataError(
            f"data.unlabeled must be a folder, a pack or a table (.csv, .tsv, .jsonl, .parquet), and {path} is another "
            "file."
        )
    if any(is_nifti(entry.name) for entry in entries(path)):
        return [without_labels(path, nifti.kind(data, int(options.get("axis", 2))), data)]
    if source == "stacks" and stacks.holds_stacks(path):
        return [without_labels(path, stacks.kind(data, options.get("spacing")), data)]
    _require_no_masks(path)
    return [*(shards.all_images(path) or [photos.collect(path, data.reading.arrays)])]


def _require_no_masks(path: Path) -> None:
    """Raises DataError for a folder whose masks would be taken for pictures, or which has volumes of labels."""
    kinds = [SOURCES.get(name) for name in _WITH_MASKS]
    if any(kind.recognizes is not None and kind.recognizes(path) for kind in kinds) or holds_volumes(path):
        below = sorted(entry.name for entry in entries(path) if entry.is_dir() and entry.name.startswith("images"))
        example = f", such as {path / below[-1]}" if below else ""
        raise DataError(
            f"data.unlabeled is for pictures alone, and {path} has masks or other folders beside them: name the folder "
            f"of the pictures or volumes themselves{example}."
        )


def _of_table(path: Path, on_corrupt: str, options: Mapping[str, Any]) -> FileSet:
    """The pictures of all rows, once each, in the order of their paths."""
    table = read_table(path, None, options.get("encoding", "utf-8"))
    image = options.get("image") if options.get("image") in table.names else None
    suffix = options.get("suffix", "")
    columns = table_columns.choose(table, image, [], None, None, suffix)
    names = table.text(columns.image)
    files = table_files.find(path, names, options.get("root"), suffix)
    rows, problems = table_parts.there(range(len(names)), files, names, columns.image, on_corrupt, str(path))
    raise_first(problems)
    paths = list(dict.fromkeys(files.paths[row] for row in rows))
    if not paths:
        raise DataError(f"No row of {path} (data.unlabeled) is of use.")
    images = FileSet(files.root, paths, torch.full((len(paths),), UNLABELED), ())
    images.origin = str(path)
    parts = f", of every part in column '{columns.split}'" if columns.split is not None else ""
    images.notes = [
        f"data.unlabeled: all {len(paths):,} pictures in column '{columns.image}' of {path}{parts}",
        *files.said,
        *(problem.sentence for problem in problems),
    ]
    return images
