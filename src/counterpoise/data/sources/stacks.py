"""Stacks of slices with stacks of labels: TIFFs of several pages, and series of DICOM, a folder each."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from counterpoise import config
from counterpoise.data.problems import Problem
from counterpoise.data.sources.base import Splits
from counterpoise.data.sources.masks_pairing import by_key
from counterpoise.data.sources.registry import register
from counterpoise.data.sources.volume_survey import Asked, Kind, Survey
from counterpoise.data.sources.volumes import Volume
from counterpoise.data.stack_file import TIFFS, dicom_series, tiff_stack
from counterpoise.data.walking import entries, subfolders
from counterpoise.errors import ConfigError

LAYOUTS = (("images", "labels"), ("images", "masks"), ("imagesTr", "labelsTr"))


def _stem(name: str) -> str:
    return name[: -len(Path(name).suffix)] if name.lower().endswith(TIFFS) else name


def _tiffs(folder: Path) -> list[tuple[str, str]]:
    """Name of the case and file, of each TIFF."""
    files = sorted(entry.name for entry in entries(folder) if entry.is_file() and entry.name.lower().endswith(TIFFS))
    return [(_stem(file), file) for file in files]


def cases(folder: Path, problems: list[Problem]) -> dict[str, list[str]]:
    """The TIFFs in a folder, and the folders, each a case by its name."""
    every = [*_tiffs(folder), *((name, name) for name in subfolders(folder))]
    return {name: [file] for name, file in by_key(folder, every, problems).items()}


def _check(data: config.Data, **options: Any) -> list[Problem]:
    return _survey(data, **options).look_through()


def holds_stacks(folder: Path) -> bool:
    """Whether TIFFs lie in a folder, or folders of files without folders in them, such as series are."""
    inner = [folder / name for name in subfolders(folder)]
    return bool(_tiffs(folder)) or (bool(inner) and not any(map(subfolders, inner)))


def kind(data: config.Data, spacing: tuple[float, float] | None) -> Kind:
    """How stacks are found and opened. Raises ConfigError for a spacing that cannot be."""
    if spacing is not None and not all(0 < side < 1e6 for side in spacing):
        raise ConfigError(f"data.options.spacing is two numbers of millimeters above 0, got {list(spacing)}.")

    def image(path: Path) -> Volume:
        if path.is_dir():
            return dicom_series(path, data.max_megapixels)
        return tiff_stack(path, data.max_megapixels, spacing)

    return Kind(
        f"{', '.join(TIFFS)}, or folders of DICOM files",
        LAYOUTS,
        cases,
        lambda folder, problems: by_key(folder, _tiffs(folder), problems),
        image,
        lambda path: tiff_stack(path, data.max_megapixels),
        "Labels are called as their stacks, CASE.tif",
    )


def _survey(data: config.Data, spacing: tuple[float, float] | None = None, **options: Any) -> Survey:
    said = [] if spacing is None else [f"pages of TIFFs are {spacing[0]:g} x {spacing[1]:g} mm a pixel, as was said"]
    return Survey(data, kind(data, spacing), Asked(**options), said)


@register(
    "stacks",
    summary="stacks of slices: images/CASE.tif of several pages, or CASE/ of DICOM; labels/CASE.tif (extra: medical)",
    check=_check,
)
def load(
    data: config.Data,
    *,
    images: str | None = None,
    labels: str | None = None,
    classes: Path | None = None,
    ignore: int | None = None,
    group: str | None = None,
    empty: Literal["keep", "drop"] = "keep",
    spacing: tuple[float, float] | None = None,
    val_split: str | None = None,
    shared: bool = False,
) -> Splits:
    """Pages of the TIFFs in `data.path`/images, or slices of series of DICOM there, with the pages of labels/CASE.tif.

    The first page of labels is of the first page, or of the slice that lies first along the normal of its rows and
    columns. Divided as `nifti` is.

    Args:
        images, labels: names of the two folders; default: images and labels, or masks.
        classes: as for masks_folder; default: classes.txt of `data.path`, and without it the labels of dataset.json.
        ignore, group, empty, val_split, shared: as for nifti.
        spacing: millimeters of a pixel of TIFFs, from row to row and from column to column; default: not known.
    """
    given = {
        "images": images,
        "labels": labels,
        "classes": classes,
        "ignore": ignore,
        "group": group,
        "empty": empty,
        "val_split": val_split,
        "shared": shared,
    }
    return _survey(data, spacing, **given).splits()
