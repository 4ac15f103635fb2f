"""Volumes that are written: NIfTI that lies in the patient as the volume that was answered, and TIFF stacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from counterpoise.data.nifti_file import header_of
from counterpoise.data.sources.nifti import Along
from counterpoise.data.sources.volumes import Volume
from counterpoise.data.stack_file import DicomSeries
from counterpoise.errors import MissingExtraError
from counterpoise.system.files import replacing


def ending_of(like: Volume) -> str:
    """How a volume that is written beside `like` ends."""
    return ".nii.gz" if isinstance(like, Along | DicomSeries) else ".tif"


def write(path: Path, values: NDArray[Any], like: Volume) -> None:
    """Write slices [N, H, W] as `like` has them: of its kind, turned and spaced as it is.

    Args:
        path: ends as `ending_of` says.
        values: uint8 or float32.
    """
    if isinstance(like, Along):
        # A slice has rows along the later of the other two axes.
        _write_nifti(path, np.moveaxis(values.transpose(0, 2, 1), 0, like.axis), header_of(like.path))
    elif isinstance(like, DicomSeries):
        _write_nifti(path, values.transpose(2, 1, 0), like)
    else:
        _write_tiff(path, values)


def _write_nifti(path: Path, volume: NDArray[Any], like: Any) -> None:
    """like: the header of a file, or a series."""
    try:
        import nibabel
    except ImportError:
        raise MissingExtraError("A volume of NIfTI", "medical") from None
    library: Any = nibabel
    if isinstance(like, DicomSeries):
        image = library.Nifti1Image(volume, np.eye(4) if like.affine is None else np.reshape(like.affine, (4, 4)))
        image.header.set_xyzt_units("mm")
        if like.affine is not None:
            image.set_qform(image.affine, code="scanner")
            image.set_sform(image.affine, code="scanner")
    else:
        kind = library.Nifti2Image if isinstance(like, library.Nifti2Header) else library.Nifti1Image
        header = like.copy()
        header.set_data_dtype(volume.dtype)
        header.set_slope_inter(1, 0)
        header["cal_min"] = header["cal_max"] = 0  # of the values of the picture
        header["intent_code"] = 0
        image = kind(volume, None, header)
    with replacing(path) as temporary:
        whole = temporary.with_name(f"{temporary.name}.nii.gz")
        try:
            library.save(image, whole)
            whole.replace(temporary)
        finally:
            whole.unlink(missing_ok=True)


def _write_tiff(path: Path, values: NDArray[Any]) -> None:
    try:
        import tifffile
    except ImportError:
        raise MissingExtraError("A stack of TIFF pages", "medical") from None
    with replacing(path) as temporary, temporary.open("wb") as file:
        tifffile.imwrite(file, values, photometric="minisblack", compression="zlib")
