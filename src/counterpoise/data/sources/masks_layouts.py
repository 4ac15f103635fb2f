"""How people lay out images and masks otherwise, and how each layout is brought."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from counterpoise.data.label_map import LabelMap, read_label_map
from counterpoise.data.mask_file import contents
from counterpoise.data.problems import Problem, fault, warning
from counterpoise.data.sources.given import classes_file
from counterpoise.data.sources.masks_pairing import stem_of, suffixes
from counterpoise.data.split_names import TRAIN, is_split_name
from counterpoise.data.walking import image_files, subfolders
from counterpoise.errors import CorruptImage, DataError

_IMAGES = ("images", "image", "imgs", "img", "jpegimages", "leftimg8bit", "pictures", "photos", "frames", "inputs")
_MASKS = (
    *("1st_manual", "masks", "mask", "labels", "label", "annotations", "annotation", "annots", "segmentations"),
    *("segmentation", "segmentationclass", "gtfine", "gt", "groundtruth", "ground_truth", "manual1"),
)
_VIEW = "mask"  # of retinas: what the camera sees
_TRIED = 8  # subfolders that are looked into, and masks
_MANY = 24


def is_divided(root: Path, images: str, masks: str) -> bool:
    """Whether there are train/images and train/masks, and the like, in place of images/ and masks/."""
    if (root / images).is_dir() or (root / masks).is_dir():
        return False
    parts = [root / name for name in _folders(root) if is_split_name(name)]
    return bool(parts) and all((part / images).is_dir() and (part / masks).is_dir() for part in parts)


def described(root: Path) -> Problem | None:
    """What a folder looks like that has no images/ and masks/, and how it is brought; None where that is not known."""
    names = _folders(root)
    found = _one_folder_a_picture(root, names) or _other_names(root, names)
    halves = [name for name in names if is_split_name(name) or "train" in name.casefold()]  # stage1_train
    halves.sort(key=lambda name: (name.casefold() not in TRAIN, "train" not in name.casefold()))
    for name in halves if found is None else ():
        if (inner := described(root / name)) is not None:
            return inner
    return found


def mask_of_view(root: Path, masks: str) -> list[Problem]:
    """A word on data.options.masks: mask where masks by hand lie beside it."""
    if Path(masks).name.lower() != _VIEW or not (root / masks).with_name("1st_manual").is_dir():
        return []
    return [
        warning(
            f"{root / masks} is read, and 1st_manual is beside it: in data sets of retinas 'mask' is the field of "
            "view, the same for every picture.",
            "Vessels are in 1st_manual: --data.options.masks 1st_manual.",
        )
    ]


def meaning_of(
    masks: Path, classes: Path | None, data: Path, ignore: int | None, lossy: bool, problems: list[Problem]
) -> LabelMap | None:
    """What masks mean by the classes file; None where nobody can say: why is added to `problems`.

    Args:
        masks: their folder: what they hold is said where there is no such file.
        classes, data: as for `classes_file`.
    """
    file = None
    try:
        file = classes_file(classes, data)
        return read_label_map(file, ignore, lossy)
    except DataError as error:
        held = "" if file is None or file.exists() else found_in_masks(masks)
        problems.append(fault(str(error), held))
    return None


def found_in_masks(folder: Path) -> str:
    """The values or colors that some masks hold, as lines for a classes file; empty where none can be read."""
    files = image_files(folder) if folder.is_dir() else []
    held: Counter[tuple[int, ...]] = Counter()
    for file in files[:: max(1, len(files) // _TRIED)]:
        try:
            held.update(contents(folder / file))
        except CorruptImage:
            continue
    if not held or len(held) > _MANY:
        return ""
    every = sum(held.values())
    shown = [
        f"'NAME {' '.join(map(str, mark))}' ({100 * count / every:.2g}%)"
        for mark, count in sorted(held.items(), key=lambda item: (-item[1], item[0]))
    ]
    return f"Some masks hold these: a line for each, with its name, would be {', '.join(shown)}."


def is_picture_folder(folder: Path) -> bool:
    """Whether a folder is of one picture: images/ with it, and masks/ with a mask for each object on it."""
    both = (folder / "images").is_dir() and (folder / "masks").is_dir()
    return both and len(image_files(folder / "images", arrays=True)) == 1


def arrays_unread(folder: Path) -> str:
    """A word on pictures that are arrays, where these are not read; empty where there are none."""
    if not folder.is_dir() or not any(file.endswith(".npy") for file in image_files(folder, arrays=True)):
        return ""
    return "; .npy is read with data.channels or data.intensity"


def _one_folder_a_picture(root: Path, names: list[str]) -> Problem | None:
    tried = [root / name for name in names[:_TRIED] if not is_split_name(name)]
    if not tried or not all(map(is_picture_folder, tried)):
        return None
    return fault(
        f"{root} has a folder for each of {len(names)} pictures, with the picture and a mask for each object on it "
        f"({names[0]}/images with 1 file, {names[0]}/masks with {len(image_files(tried[0] / 'masks'))}).",
        f"Give this folder, --data.path {root}: masks of objects are merged (source instance_folders).",
    )


def _other_names(root: Path, names: list[str]) -> Problem | None:
    images = [name for name in names if name.lower() in _IMAGES]
    masks = sorted((name for name in names if name.lower() in _MASKS), key=lambda name: _MASKS.index(name.lower()))
    masks = [name for name in masks if image_files(root / name)]
    if not images or not masks or (images[0], masks[0]) == ("images", "masks"):
        return None
    chosen = {"images": images[0], "masks": masks[0]}
    stems = [[stem_of(file) for file in image_files(root / name, arrays=True)] for name in chosen.values()]
    ends = suffixes(*stems) or ("", "")
    chosen |= {"image_suffix": ends[0], "mask_suffix": ends[1]}
    given = {name: value for name, value in chosen.items() if value not in ("", name)}
    flags = " ".join(f"--data.options.{name} {value}" for name, value in given.items())
    view = [name for name in masks[1:] if name.lower() == _VIEW and masks[0] == "1st_manual"]
    said = f"; '{view[0]}' holds the field of view there, and no class" if view else ""
    return fault(
        f"{root} looks like scenes in folders of other names: pictures in '{images[0]}', masks in '{masks[0]}'{said}.",
        f"Say so: --data.path {root} --data.source masks_folder {flags}.",
    )


def _folders(root: Path) -> list[str]:
    try:
        return subfolders(root)
    except DataError:
        return []
