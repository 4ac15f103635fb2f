"""From a student to its site."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from counterpoise import tasks
from counterpoise.decoding import Reading
from counterpoise.deploy.site import runtime, samples, site
from counterpoise.deploy.site.samples import Sample
from counterpoise.engine import inputs
from counterpoise.engine.inputs import RunLike
from counterpoise.engine.student_epochs import read_epoch
from counterpoise.errors import ConfigError, CounterpoiseError, RunError
from counterpoise.models import folder

if TYPE_CHECKING:
    from counterpoise.engine.student_epochs import Epoch
    from counterpoise.models.catalog import Model


def try_(
    student: str | Path,
    *,
    out: str | Path | None = None,
    samples: Sequence[str | Path] = (),
    evaluation_pictures: int = 0,
    size: tuple[int, int] | None = None,
    data: RunLike | None = None,
    model: Model | None = None,
    overwrite: bool = False,
    epoch: Epoch | None = None,
) -> dict[str, Any]:
    """Write a static site on which the student answers in its visitors' own browsers.

    Args:
        student: student folder, or a run's folder.
        out: folder of the site; default: sites/NAME.
        samples: pictures, or folders of them, that the page offers; default: drawn ones.
        evaluation_pictures: how many pictures of the student's evaluation data the page offers.
        size: height and width of the pixels that the student is shown, where neither it nor its data says so.
        data: a folder or a run to calibrate 8 bits with; default: the data of the run which `student` lies in.
        model: the student's network, where that is code of one's own: a folder alone gets to run none.
        overwrite: replace an older site.
        epoch: of a run, "last" or "best": the student of that epoch; default: the one that ships.

    Returns:
        {"site", "bytes", "first_visit_bytes", "exports": {precision: bytes}, "notes"}; notes says why where there
        are no 8 bits.

    Raises:
        CounterpoiseError: the student cannot be exported, or onnxruntime-web is not here and cannot be fetched.
    """
    path = Path(student)
    place = folder.find(path)
    description, _ = read_epoch(place, epoch)
    name = _name(path, place)
    target = Path(out) if out is not None else Path("sites", name)
    _check_free(target, overwrite)
    pictures, note = _samples(
        path, [Path(one) for one in samples], evaluation_pictures, data, description.input.reading
    )
    runtime.files()  # before the work that would be in vain without it
    notes: list[str] = []
    with tempfile.TemporaryDirectory(prefix="counterpoise-") as temporary:
        exports: dict[str, Path] = {}
        any_size: bool | None = None
        around, outputs = None, "logits"
        for precision in ("float32", "int8"):
            try:
                file, taken = _exported(path, precision, Path(temporary), size, data, model, any_size, epoch)
            except CounterpoiseError as error:
                if precision == "float32":
                    raise
                notes.append(f"The page shows no 8 bits: {error}")
                continue
            exports[precision] = file
            given, outputs = taken["input"], taken["outputs"]
            size, any_size, around = (given["size"][0], given["size"][1]), given["any_size"], given["around"]
        assert size is not None
        task = tasks.get(description.task)
        site.write(target, description, task, name, size, exports, pictures, note, bool(any_size), around, outputs)
        sizes = {precision: file.stat().st_size for precision, file in exports.items()}
    return {
        "site": str(target),
        "bytes": sum(file.stat().st_size for file in target.rglob("*") if file.is_file()),
        "first_visit_bytes": site.first_visit(target),
        "exports": sizes,
        "notes": notes,
    }


def _exported(
    student: Path,
    precision: str,
    temporary: Path,
    size: tuple[int, int] | None,
    data: RunLike | None,
    model: Model | None,
    any_size: bool | None,
    epoch: Epoch | None,
) -> tuple[Path, dict[str, Any]]:
    """An ONNX file of the student that has been compared with it, and what export.json says."""
    from counterpoise.deploy.export import export

    out = temporary / precision
    made: dict[str, Any] = export(
        student,
        to="onnx",
        precision=precision,
        batch=1,
        size=size,
        out=out,
        data=data,
        model=model,
        any_size=any_size,
        epoch=epoch,
    )
    return out / "model.onnx", made


def _samples(
    student: Path, chosen: Sequence[Path], evaluation_pictures: int, data: RunLike | None, reading: Reading
) -> tuple[list[Sample], str]:
    """Pictures to begin with, and a sentence of where they come from."""
    if evaluation_pictures < 0 or evaluation_pictures > samples.MOST:
        raise ConfigError(f"--evaluation_pictures must be 0 to {samples.MOST}, got {evaluation_pictures}.")
    found = samples.chosen(chosen, reading) if chosen else []
    if evaluation_pictures:
        images, _ = inputs.evaluated(student, data, None, None)
        count = min(evaluation_pictures, len(images))
        found += samples.of_tensors(images.read(index * len(images) // count) for index in range(count))
    if len(found) > samples.MOST:
        raise ConfigError(f"These are {len(found)} sample pictures; a page shows {samples.MOST} at most.")
    if not found:
        return samples.drawn(), "Drawn by a program, for a first try."
    if evaluation_pictures:
        return found, "From the student's evaluation pictures." if not chosen else ""
    return found, ""


def _name(given: Path, place: Path) -> str:
    """What the site is called: the run's name, or that of the student folder."""
    run = place.parent if place.name == folder.STUDENT and (place.parent / "run.yaml").is_file() else place
    return run.resolve().name or given.name


def _check_free(target: Path, overwrite: bool) -> None:
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not site.is_site(target):
        raise RunError(f"{target} is there already and holds no site of ours: give another --out.")
    if not overwrite:
        raise RunError(f"Site {target} exists. Replace it with --overwrite, or show it: try {target} --serve")
