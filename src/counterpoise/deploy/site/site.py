"""A student as a static site: its exports, the runtime for them, a page, and what makes it work offline."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageDraw

from counterpoise.deploy.site import runtime

if TYPE_CHECKING:  # a site is served without waiting for torch
    from counterpoise.deploy.site.samples import Sample
    from counterpoise.models.folder import Description
    from counterpoise.tasks.base import Task

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' blob:; "
    "media-src 'self' blob:; connect-src 'self'; worker-src 'self'; manifest-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
DESCRIPTION = "site.json"
_TITLES = {"float32": "Float", "int8": "8 bits"}
_WORKER = "service-worker.js"
_TAKEN = ("size", "any_size", "crop_share", "fit", "alpha", "white_level", "reduction", "around")
_PAPER = "#faf9f7"


def write(
    path: Path,
    student: Description,
    task: Task,
    name: str,
    given: Mapping[str, Any],
    exports: Mapping[str, Path],
    samples: Sequence[Sample],
    note: str,
    outputs: str = "logits",
    promises: Mapping[str, Any] | None = None,
) -> None:
    """Write the site, whole or not at all; an older one at `path` goes when the new one is on disk.

    Args:
        path: of the folder.
        student: what its student.json says.
        task: of the student.
        name: what the page calls it.
        given: what pictures the exports take, all of them: `input` of export.json.
        exports: ONNX files by precision, float32 first: uint8 [1, 3, height, width] to logits.
        samples: pictures to begin with.
        note: says where they come from.
        outputs: whether exports answer logits or probabilities.
        promises: of each export, when it answers and when it is not sure.

    Raises:
        RunError: it cannot be written.
        RuntimeMissingError: see `runtime.files`.
    """
    from counterpoise.system.files import replacing_folder

    engines = {f"runtime/{file}": place for file, place in runtime.files().items()}
    texts: dict[str, bytes] = {
        item.name: item.read_bytes() for item in resources.files("counterpoise.deploy.site").joinpath("page").iterdir()
    }
    worker = texts.pop(_WORKER)
    texts["runtime/LICENSE.txt"] = texts.pop("LICENSE.onnxruntime.txt")
    models = {f"{precision}.onnx": place for precision, place in exports.items()}
    pictures = {f"samples/{number:02d}.{sample.ending}": sample for number, sample in enumerate(samples, 1)}
    texts |= {file: sample.content for file, sample in pictures.items()}
    texts |= {f"icon-{edge}.png": _icon(edge) for edge in (192, 512)}
    texts["manifest.webmanifest"] = _json(_manifest(name))
    texts[DESCRIPTION] = _json(
        {
            "name": name,
            "task": task.name,
            "classes": student.classes,
            "outputs": outputs,
            "sigmoid": task.sigmoid,
            "dense": not task.whole,
            "thresholds": student.own_thresholds,
            "facts": _facts(student, task, None if given["any_size"] or given.get("window") else given["size"]),
            "input": {
                **{name: given[name] for name in _TAKEN},
                "window": student.input.window,
                "sliding": given.get("window"),
            },
            "colors": _colors(student, task),
            "models": [
                {
                    "name": precision,
                    "title": _TITLES.get(precision, precision),
                    "file": f"{precision}.onnx",
                    "bytes": place.stat().st_size,
                    "promise": (promises or {}).get(precision),
                }
                for precision, place in exports.items()
            ],
            "samples": [
                {"file": file, "width": sample.width, "height": sample.height} for file, sample in pictures.items()
            ],
            "samples_note": note,
        }
    )
    later = [f"runtime/{file}" for file in runtime.FOR_GPUS]
    files = sorted({*texts, *models, *engines} - set(later))
    texts[_WORKER] = _worker_head(files, later, texts, {**models, **engines}) + worker
    with replacing_folder(path) as new:
        for file, content in texts.items():
            _place(new, file).write_bytes(content)
        for file, place in {**models, **engines}.items():
            shutil.copyfile(place, _place(new, file))


def is_site(path: Path) -> bool:
    """Whether a folder holds a site of ours."""
    from counterpoise.system.files import standing

    path = standing(path)
    return (path / DESCRIPTION).is_file() and (path / _WORKER).is_file()


def first_visit(path: Path) -> int:
    """Bytes that a browser fetches from a site, once."""
    later = {path / "runtime" / name for name in runtime.FOR_GPUS}
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file() and file not in later)


def version(path: Path) -> str:
    """The hash of all files of a site, from its service worker."""
    first = (path / _WORKER).read_text(encoding="utf-8").partition("\n")[0]
    return first.split('"')[1]


def _place(folder: Path, name: str) -> Path:
    place = folder / name
    place.parent.mkdir(exist_ok=True)
    return place


def _worker_head(files: list[str], later: list[str], texts: Mapping[str, bytes], large: Mapping[str, Path]) -> bytes:
    total = hashlib.sha256()
    for name in sorted({*texts, *large}):
        content = texts[name] if name in texts else large[name].read_bytes()
        total.update(f"{name} {len(content)} ".encode() + content)
    lines = (
        f'const VERSION = "{total.hexdigest()[:32]}";',
        f"const FILES = {json.dumps(files)};",
        f"const LATER = {json.dumps(later)};",
    )
    return ("\n".join(lines) + "\n\n").encode()


def _colors(student: Description, task: Task) -> list[list[int]]:
    """Of the classes; a question has no color of its own for no, so that the first is not black."""
    from counterpoise.tasks.overlays import palette

    first = int(task.sigmoid)
    colors: list[list[int]] = palette()[first : first + len(student.classes)].tolist()
    return colors


def _facts(student: Description, task: Task, size: tuple[int, int] | None) -> list[str]:
    """What the page says of the student in one line."""
    pixels = "any size" if size is None else f"{size[1]} x {size[0]} pixels"
    facts = [student.architecture, f"{len(student.classes)} classes", pixels]
    from counterpoise.models.folder import shipped_epoch
    from counterpoise.tasks import leading

    own = student.metrics.get(shipped_epoch(student.provenance))
    name = leading(task.headline, own) if isinstance(own, dict) else task.headline
    score = own.get(name) if isinstance(own, dict) else None
    if isinstance(score, int | float):
        metric = {"top1": "top-1", "miou": "mIoU", "map": "mAP"}.get(task.headline, task.headline)
        metric = metric if name == task.headline else f"agreement with its teacher ({metric})"
        facts.append(f"{score:.1f}\u00a0% {metric} on its evaluation set")
    return facts


def _manifest(name: str) -> dict[str, Any]:
    return {
        "name": f"{name}: try it",
        "short_name": name[:24],
        "start_url": "./",
        "scope": "./",
        "display": "standalone",
        "background_color": _PAPER,
        "theme_color": _PAPER,
        "icons": [
            {"src": f"icon-{edge}.png", "sizes": f"{edge}x{edge}", "type": "image/png", "purpose": purpose}
            for edge in (192, 512)
            for purpose in ("any", "maskable")
        ],
    }


def _icon(edge: int) -> bytes:
    """page/icon.svg as a PNG, drawn four times as large and reduced."""
    picture = Image.new("RGB", (2048, 2048), "#1f5f9e")
    pen = ImageDraw.Draw(picture)
    pen.ellipse([(192 - 76) * 4, (236 - 76) * 4, (192 + 76) * 4, (236 + 76) * 4], fill="white")
    pen.ellipse([(352 - 52) * 4, (260 - 52) * 4, (352 + 52) * 4, (260 + 52) * 4], fill="#f0a46c")
    pen.rounded_rectangle([112 * 4, 324 * 4, 400 * 4, 344 * 4], radius=40, fill="white")
    pen.polygon([(256 * 4, 336 * 4), (292 * 4, 404 * 4), (220 * 4, 404 * 4)], fill="white")
    file = io.BytesIO()
    picture.resize((edge, edge), Image.Resampling.LANCZOS).save(file, format="PNG", optimize=True)
    return file.getvalue()


def _json(values: Mapping[str, Any]) -> bytes:
    return (json.dumps(values, indent=1, ensure_ascii=False) + "\n").encode()
