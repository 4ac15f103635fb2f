"""run.py beside an export: pictures in, answers out, by numpy, Pillow and the runtime alone.

What reading.py, bands.py and decoding.py hold, and the functions here up to `main`, go into run.py as they stand: what
is tested here is what runs there.
"""

from __future__ import annotations

import argparse
import inspect
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from counterpoise import bands, decoding
from counterpoise import reading as readings
from counterpoise.decoding import cut, extent_of, known_formats, letterbox, pages_of, read, show
from counterpoise.deploy import folder
from counterpoise.deploy.base import Format
from counterpoise.deploy.windows import begins, slid, through_window, weight_of
from counterpoise.reading import Reading, Unreadable, said

MODULES = (readings, bands, decoding)
_OURS = r"^from counterpoise\.\S+ import (?:\([^)]*\)|[^\n]*)\n"
_SLIDING = (begins, weight_of, through_window, slid)
_TEMPLATE = '''"""What a student says of pictures: python run.py PICTURE_OR_FOLDER ... (--help tells the rest).

Needs numpy, Pillow and {runtime}.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
{decoding}

{functions}

if __name__ == "__main__":
    sys.exit(main(Path(__file__).parent, "{description}", "{file}", {answer}, load))
'''


def asked(about: Any, arguments: Any) -> Any:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        prog="run.py",
        description=f"What a student ({about['architecture']}, {len(about['classes'])} classes) says of pictures.",
    )
    parser.add_argument("pictures", nargs="+", type=Path, help="picture files, or folders of them")
    parser.add_argument(
        "--max_megapixels", type=float, default=Reading().max_megapixels, help="larger ones are refused"
    )
    if about["task"].endswith("segmentation"):
        parser.add_argument("--out", type=Path, help="file of the mask, PNG; of several pictures, folder of the masks")
        parser.add_argument("--overwrite", action="store_true", help="replace masks that are there")
        parser.add_argument("--probabilities", action="store_true", help="write them, too: PNG of 16 bits, 65535 is 1")
    return parser.parse_args(arguments)


def pictures_in(given: Any, arrays: bool = False) -> Any:
    """The picture files among paths and in folders, at any depth, hidden ones left out; each with a name of its own."""
    Image.init()
    endings = {ending for ending, kind in Image.registered_extensions().items() if kind in known_formats()}
    endings |= {".dcm", ".dicom", *([".npy"] if arrays else [])}
    found, names = [], set()
    for path in given:
        files = [path]
        if path.is_dir():
            inside = (file for file in sorted(path.rglob("*")) if file.is_file() and file.suffix.lower() in endings)
            files = [file for file in inside if not any(part[0] == "." for part in file.relative_to(path).parts)]
            if not files:
                print(f"{path} holds no pictures", file=sys.stderr)
        for file in files:
            name = "-".join(file.relative_to(path).with_suffix("").parts) if path.is_dir() else file.stem
            while name in names:
                name += "-"
            names.add(name)
            found.append((file, name))
    return found


def loaded(path: Any, reading: Any) -> Any:
    """A picture as `read` gives it; further pages are said. Raises Unreadable."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise Unreadable("the file does not exist") from None
    except OSError as error:
        raise Unreadable(error.strerror or str(error)) from None
    picture = read(content, reading)
    count = pages_of(content, reading)
    if count > 1:
        print(f"{path} has {count} pages or frames: only the first is read", file=sys.stderr)
    return picture


def pixels_of(picture: Any, about: Any) -> Any:
    """uint8 [1, C, H, W], as the network takes them, and height and width of the part that the picture covers."""
    size, reduction = tuple(about["size"]), about.get("reduction", 1)
    own = tuple(max(1, round(side / reduction)) for side in extent_of(picture))
    if about.get("any_size"):
        size = own
    if about.get("around") is None or own == size:
        shown, covered = show(picture, size, about["crop_share"], about.get("fit", "crop")), size
    else:
        shown, covered = letterbox(picture, size, tuple(about["around"]), reduction)
    return np.ascontiguousarray(np.asarray(shown).transpose(2, 0, 1)[None]), covered


def top_five(logits: Any, about: Any, picture: Any, out: Any) -> Any:
    """The five likeliest classes with their probabilities, a line each; before them that it is not sure, where so."""
    shares, promise = logits, about.get("promise")
    if about.get("outputs", "logits") == "logits":
        shares = (logits - logits.max()) / (1.0 if promise is None else promise["temperature"])
        shares = np.exp(shares)
        shares = shares / shares.sum()
    best = np.argsort(-logits, kind="stable")
    lines = [f"{shares[index]:8.4f}  {about['classes'][index]}" for index in best[:5]]
    if promise is not None and shares[best[0]] < promise["threshold"]:
        named = [about["classes"][index] for index in best if shares[index] >= promise["least"]]
        lines.insert(0, f"not sure: {', '.join(named or [about['classes'][best[0]]])}?")
    return lines


def labels_there(logits: Any, about: Any, picture: Any, out: Any) -> Any:
    """The labels at or above their thresholds with their probabilities, the likeliest first, a line each."""
    shares = 0.5 * (1 + np.tanh(0.5 * logits))
    least = about.get("thresholds") or [0.5] * len(shares)
    best = np.argsort(-shares, kind="stable")
    lines = [f"{shares[index]:8.4f}  {about['classes'][index]}" for index in best if shares[index] >= least[index]]
    likeliest = f"{about['classes'][best[0]]}, {shares[best[0]]:.4f} where {least[best[0]]:.4f} are needed"
    return lines or [f"          none of the labels; the likeliest is {likeliest}"]


def files_of(out: Any, about: Any, soft: Any) -> Any:
    """The files of one picture: its mask, or one for each question, and those of probabilities where wanted."""
    parts: Any = []
    for name in about["classes"]:
        part = "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in name).strip("-.") or "class"
        while part.lower() in [one.lower() for one in parts]:
            part += "-"
        parts.append(part)
    stem = out.stem[:-4] if out.stem.endswith("mask") else f"{out.stem}-"
    several = about["task"] != "segmentation"
    masks = [out.with_name(f"{stem}{part}-mask.png") for part in parts] if several else [out]
    return masks, [out.with_name(f"{stem}{part}-probability.png") for part in parts] if soft else []


def write_mask(logits: Any, about: Any, picture: Any, out: Any) -> Any:
    """Write the class of every pixel of the picture, as the values of a PNG; the share of each, a line each."""
    (file, *_), soft = out
    size = extent_of(picture)[::-1]
    mask, shares = np.empty(size[::-1], np.uint8), []
    for first, end, layers in enlarged(logits, size):
        mask[first:end] = decided(layers, about)
        if soft:
            some = np.stack(layers)
            if about.get("outputs", "logits") == "logits":
                some = np.exp(some - some.max(0))
                some = some / some.sum(0)
            shares.append(some)
    lines = write_classes(mask, about, file)
    if soft:
        write_soft(soft, np.concatenate(shares, 1))
    return lines


def decided(layers: Any, about: Any) -> Any:
    """The class of every pixel by its logits [C, ...]; 255 where a student with a promise is not sure."""
    found, promise = np.argmax(layers, axis=0).astype(np.uint8), about.get("scene_promise")
    if promise is not None:
        largest = np.max(layers, axis=0)
        surest = 1 / sum(np.exp((layer - largest) / promise["temperature"]) for layer in layers)
        found[surest < promise["threshold"]] = 255
    return found


def enlarged(logits: Any, size: Any, most: int = 2**25) -> Any:
    """Logits [C, h, w] at a picture's width and height: at once or, where those are many, some rows at a time.

    The first row, that behind the last, and a layer a class.
    """
    (width, height), (_, rows, columns) = size, logits.shape
    step = height if len(logits) * width * height <= most else max(1, most // (8 * len(logits) * width))
    for first in range(0, height, step):
        end = min(first + step, height)
        part = (0, first * rows / height, columns, end * rows / height)
        shape, images = (width, end - first), (Image.fromarray(layer) for layer in logits)
        yield first, end, [np.asarray(one.resize(shape, Image.Resampling.BILINEAR, part)) for one in images]


def write_classes(mask: Any, about: Any, out: Any) -> Any:
    """Write a mask as the values of a PNG; the share of each class, a line each, and of what is not sure."""
    out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(out, format="PNG")
    rows = max(1, 2**22 // mask.shape[1])
    parts = (mask[first : first + rows].ravel() for first in range(0, len(mask), rows))
    counts = sum((np.bincount(part, minlength=256) for part in parts), np.zeros(256, np.int64))
    names = dict(enumerate(about["classes"])) | {255: "not sure"}
    return [f"{counts[index] / mask.size:8.4f}  {names[index]}" for index in np.flatnonzero(counts).tolist()]


def write_by_window(picture: Any, about: Any, run: Any, answer: Any, out: Any) -> Any:
    """What `answer` writes of a picture of any size that is answered window by window.

    Masks of one class a pixel are made as logits come; else, and where scenes are reduced, logits are held at the
    size of the scene as shown.
    """
    size, reduction = extent_of(picture), about["input"].get("reduction", 1)
    own = tuple(max(1, round(side / reduction)) for side in size)
    if own == size and answer is write_mask and not out[1]:
        mask = np.empty(size, np.uint8)
        for top, left, part in slid(picture, about["input"], run):
            mask[top : top + part.shape[1], left : left + part.shape[2]] = decided(part, about)
        return write_classes(mask, about, out[0][0])
    logits = np.empty((len(about["classes"]), *own), np.float32)
    for top, left, part in slid(picture if own == size else show(picture, own, None), about["input"], run):
        logits[:, top : top + part.shape[1], left : left + part.shape[2]] = part
    return answer(logits, about, picture, out)


def write_yes(logits: Any, about: Any, picture: Any, out: Any) -> Any:
    """Write where each question is answered by yes, a PNG each of 255 and 0; the share of each, a line each."""
    files, soft = out
    size = extent_of(picture)[::-1]
    layers = [np.asarray(Image.fromarray(layer).resize(size, Image.Resampling.BILINEAR)) for layer in logits]
    there = yes_of(layers, about)
    files[0].parent.mkdir(parents=True, exist_ok=True)
    for file, layer in zip(files, there, strict=True):
        Image.fromarray(255 * layer.astype(np.uint8)).save(file, format="PNG")
    if soft:
        write_soft(soft, 0.5 * (1 + np.tanh(0.5 * np.stack(layers))))
    return [f"{layer.mean():8.4f}  {name}" for name, layer in zip(about["classes"], there, strict=True)]


def yes_of(layers: Any, about: Any) -> Any:
    """Where each question is answered by yes, bool [Q, ...]: by the logit of its threshold, as float32."""
    least = np.asarray(about.get("thresholds") or [0.5] * len(layers), dtype=np.float64)
    with np.errstate(divide="ignore"):
        least = np.log(least / (1 - least)).astype(np.float32)
    return np.stack(layers) >= least[:, None, None]


def write_soft(files: Any, shares: Any) -> None:
    """Write probabilities, a PNG of 16 bits for each class, into a folder that is there."""
    for file, layer in zip(files, shares, strict=True):
        Image.fromarray(np.rint(65535 * layer).astype(np.uint16)).save(file, format="PNG")


def main(here: Any, description: str, file: str, answer: Any, load: Any, arguments: Any = None) -> int:
    """Answer every picture; one that cannot be read is named, and the others are answered. The exit code."""
    try:
        about = json.loads((here / description).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        print(f"Error: {here / description} cannot be read: {error}", file=sys.stderr)
        return 2
    given, takes = asked(about, arguments), about["input"]
    channels = takes.get("channels", "RGB")
    channels = 3 if channels == "RGB" else channels
    intensity = said(takes["intensity"]) if "intensity" in takes else None
    reading = Reading(takes.get("alpha", "white"), takes.get("white_level"), given.max_megapixels, channels, intensity)
    found, dense, failed = pictures_in(given.pictures, reading.arrays), about["task"].endswith("segmentation"), 0
    several = len(found) > 1 or any(path.is_dir() for path in given.pictures)
    try:
        run = load(str(here / file), None)
    except Exception as error:  # each runtime has errors of its own
        print(f"Error: {here / file} cannot be opened: {type(error).__name__}: {error}", file=sys.stderr)
        return 2
    for path, name in found:
        out = None
        try:
            if dense:
                out = (given.out or Path("masks")) / f"{name}-mask.png" if several else given.out or Path("mask.png")
                out = files_of(out, about, given.probabilities)
                there = [file for kind in out for file in kind if file.exists()]
                if there and not given.overwrite:
                    raise FileExistsError(f"{there[0]} is there already: give --overwrite, or another --out")
            picture = loaded(path, reading)
            if takes.get("window"):
                lines = write_by_window(picture, about, run, answer, out)
            else:
                pixels, covered = pixels_of(picture, takes)
                logits = run(np.repeat(pixels, takes["batch"] or 1, 0))[0]
                if covered != pixels.shape[2:]:
                    logits = cut(logits, covered, pixels.shape[2:])
                lines = answer(logits, about, picture, out)
        except Exception as error:  # each runtime has errors of its own, and the other pictures are answered
            failed += 1
            print(f"Error: {path} is not answered: {error}", file=sys.stderr)
            continue
        print("\n".join([f"{path}"] * several + lines))
    return 2 if failed or not found else 0


def answer_of(dense: bool, sigmoid: bool) -> Callable[..., Any]:
    """What is made of logits: where these are masks, where each class is a question of its own, and else."""
    if dense:
        return write_yes if sigmoid else write_mask
    return labels_there if sigmoid else top_five


def source(chosen: Format, answer: Callable[..., Any]) -> str:
    """The text of run.py."""
    needed: list[Callable[..., Any]] = [type(chosen).load, asked, pictures_in, loaded, pixels_of]
    needed += [files_of, write_soft, yes_of, decided, enlarged, write_classes, write_mask, *_SLIDING, write_by_window]
    functions = [*needed, *([] if answer is write_mask else [answer]), main]
    texts = [inspect.getsource(module).partition("from __future__ import annotations\n")[2] for module in MODULES]
    text = re.sub(_OURS, "", "\n".join(text.strip() for text in texts), flags=re.MULTILINE)
    return _TEMPLATE.format(
        runtime=chosen.packages[-1],
        decoding=text.strip(),
        functions="\n\n".join(inspect.getsource(function) for function in functions).rstrip() + "\n",
        description=folder.DESCRIPTION,
        file=chosen.files[0],
        answer=answer.__name__,
    )
