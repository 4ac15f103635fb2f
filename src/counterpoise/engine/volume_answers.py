"""Volumes that a student is asked about: which a path means, and their slices as the student is shown them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from counterpoise import config
from counterpoise.data.nifti_file import is_nifti
from counterpoise.data.problems import Problem, raise_first
from counterpoise.data.sources import nifti, stacks, volumes
from counterpoise.data.sources.volumes import Case, VolumeScenes
from counterpoise.data.stack_file import TIFFS
from counterpoise.data.walking import subfolders
from counterpoise.decoding import Reading
from counterpoise.errors import CorruptImage, DataError


class VolumeOf:
    """A volume to be asked about, opened when it is.

    Args:
        path: file, or folder of a series.
        files: those of its channels, relative to `folder`.
        axis: of NIfTI, along which slices lie.
    """

    def __init__(self, path: Path, folder: Path, files: list[str], name: str, axis: int) -> None:
        self.path, self.folder, self.files, self.name, self.axis = path, folder, files, name, axis

    def slices(self, reading: Reading) -> VolumeScenes:
        """Its slices, as a student that reads so is shown them. Raises CorruptImage."""
        intensity = None if reading.intensity is None else config.Intensity.model_validate(reading.intensity.values())
        data = config.Data(
            channels=reading.channels,
            white_level=reading.white_level,
            max_megapixels=reading.max_megapixels,
            intensity=intensity,
            alpha="ignore",
        )
        kind = nifti.kind(data, self.axis) if is_nifti(self.files[0]) else stacks.kind(data, None)
        case = Case(self.name, tuple(kind.open_image(self.folder / file) for file in self.files), None)
        cases, problems = volumes.fitting([case], data, aligned=True)
        try:
            raise_first(problems)
        except DataError as error:
            raise CorruptImage(str(self.path), str(error)) from None
        found = VolumeScenes(self.folder, cases, volumes.every_slice(cases), None, torch.zeros(1, dtype=torch.int64))
        found.read_as(reading)
        return found


def within(path: Path, told: bool, channels: int, axis: int) -> Iterator[VolumeOf]:
    """The volumes that a path means: NIfTI, and where that is told TIFFs of pages and folders of DICOM, too.

    Raises DataError where a folder has two of one name.

    Args:
        channels: of a student; a case may have a file for each.
    """
    if not path.is_dir():
        if is_nifti(path.name):
            yield _of_file(path, channels, axis)
        elif told and path.name.lower().endswith(TIFFS):
            yield VolumeOf(path, path.parent, [path.name], path.stem, axis)
        return
    problems: list[Problem] = []
    found = nifti.cases(path, problems)
    pages = stacks.cases(path, problems) if told and stacks.holds_stacks(path) else {}
    raise_first(problems)
    for name, files in [*found.items(), *pages.items()]:
        yield VolumeOf(path / files[0], path, files, name, axis)
    if told and not found and not pages and not subfolders(path):
        yield VolumeOf(path, path.parent, [path.name], path.name, axis)


def _of_file(path: Path, channels: int, axis: int) -> VolumeOf:
    """A file of NIfTI, with those of its further channels where a student has several."""
    if channels > 1:
        name, files = nifti.case_of(path)
        if len(files) == channels:
            return VolumeOf(path, path.parent, files, name, axis)
    return VolumeOf(path, path.parent, [path.name], nifti.stem(path.name), axis)
