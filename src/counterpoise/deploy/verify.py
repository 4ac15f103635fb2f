"""Whether a student or an export is, on this machine, what it was where it was made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from counterpoise.config.options import keywords
from counterpoise.data.packs.places import is_pack
from counterpoise.data.packs.verifying import verify as verify_pack
from counterpoise.deploy import agreement, base, folder, pictures, promised, receipts
from counterpoise.deploy.job import ExportJob, compared, prepare
from counterpoise.deploy.options import Export, Verify
from counterpoise.engine.evaluator import full_report
from counterpoise.engine.student import load_student
from counterpoise.engine.student_epochs import epoch_of_weights
from counterpoise.engine.trained_on import trained_on
from counterpoise.errors import ConfigError, ExportError, ModelError
from counterpoise.models import folder as student_folder
from counterpoise.system.addresses import address_of
from counterpoise.system.files import regular


@keywords(Verify)
def verify(what: str | Path, asked: Verify) -> dict[str, Any]:
    """Check hashes and answers again, such as on the machine that received a folder. Of a pack, every byte.

    An export answers generated pictures and must agree with the logits that lie beside it, of the student and of itself
    where it was made; with `student` and data it is compared on validation images, too. A student is loaded, and scored
    where there is data.

    Args:
        what: an export folder, a student folder, a run's folder, a pack, also at an address, or a run's receipt.

    Returns:
        What was found: `files` and their hashes, `reference` and `agreement` of an export, `report` of a student;
        what a pack holds; of a receipt `receipt` and what it states, `items`.

    Raises:
        DataError: a pack is damaged.
        ModelError: a file is missing, changed or damaged; the student is another one.
        ExportError: the answers are not those that they were.
    """
    directory = Path(what)
    if receipts.is_receipt(directory):
        if asked.model_fields_set - {"show"}:
            raise ConfigError(f"{directory} is a receipt: it is compared with what it names, and with nothing else.")
        return {"receipt": str(directory), "items": receipts.check(directory)}
    if address_of(directory) is not None or is_pack(directory):
        if asked.model_fields_set - {"show"}:
            raise ConfigError(f"{directory} is a pack: it is compared with nothing but its own checksums.")
        return verify_pack(directory)
    if not folder.is_export(directory):
        if asked.student is not None:
            raise ConfigError(f"{directory} is no export, which alone is compared with a student: leave out student.")
        return _verify_student(directory, asked)
    if asked.student is None and (given := [name for name in WITH_STUDENT if getattr(asked, name) is not None]):
        raise ConfigError(
            f"{given[0]} is of the comparison with the student: give it, --student RUN, or leave that out."
        )
    described = folder.read(directory)
    chosen = base.find(described.format)
    reason = chosen.unavailable()
    if reason:
        raise ExportError(f"{directory} is intact, and its answers cannot be checked here: {reason}")
    runtime = chosen.open(directory)
    found: dict[str, Any] = {
        "folder": str(directory),
        "format": described.format,
        "precision": described.precision,
        "files": {name: file.model_dump() for name, file in described.files.items()},
        "reference": _against_reference(directory, described, runtime),
    }
    if not described.verified:  # made where its runtime does not run
        folder.describe(directory, described.model_copy(update={"verified": True}))
    if asked.student is not None:
        job, found["agreement"] = _against_student(directory, described, chosen, Path(asked.student), asked)
        if other := promised.differs(job.student.scene_promise or job.student.promise, described):
            found["notes"] = [f"{directory} was made before its student's promise: {other}. Export it again."]
    return found


WITH_STUDENT = ("data", "data_set", "images", "model")
"""What says nothing where an export is compared with its own answers alone."""


def _against_reference(directory: Path, described: folder.Description, runtime: base.Runtime) -> dict[str, float]:
    """Differences to the remembered logits, of the student and of the export where it was made."""
    try:
        remembered = load_file(regular(directory / folder.REFERENCE, within=directory))
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{directory / folder.REFERENCE} cannot be read: {error}.") from None
    if "student" not in remembered or remembered["student"].ndim < 2:
        raise ModelError(f"{directory / folder.REFERENCE} is damaged: it holds no logits of the student.")
    shown = pictures.generated(len(remembered["student"]), described.input.size, described.input.count)
    try:
        answered = torch.from_numpy(agreement.answer(runtime, shown.numpy(), described.input.batch)).float()
    except Exception as error:  # each runtime has errors of its own
        raise ExportError(
            f"{directory} does not answer pictures of {described.input.size[0]} x {described.input.size[1]}: "
            f"{base.kind_and_line(error)}"
        ) from error
    differences = {whose: agreement.difference(answered, logits) for whose, logits in remembered.items()}
    scale = float(remembered["student"].abs().max())
    for whose, difference in differences.items():
        bound = agreement.rounding(described.precision, scale)
        if bound is None:
            # In 8 bits processors round unlike each other, and a student's logits are no bound for its export's.
            bound = max(1.0, scale) * (0.25 if whose == "export" else 1.0)
        if not difference <= bound:
            there = "the student's" if whose == "student" else "its own where it was made"
            raise ExportError(
                f"{directory} answers generated pictures otherwise than {there}: logits differ by up to "
                f"{difference:.3g} (at most {bound:.3g} for {described.precision})."
            )
    return differences


def _against_student(
    directory: Path, described: folder.Description, chosen: base.Format, student: Path, asked: Verify
) -> tuple[ExportJob, dict[str, Any] | None]:
    given = described.input
    wanted = Export(
        to=described.format,
        precision=described.precision,
        batch=given.batch,
        epoch=epoch_of_weights(student, described.student_sha256),
        **{name: getattr(asked, name) for name in ("data", "data_set", "images", "model", "show")},
    )
    job = prepare(student, chosen, wanted)
    folder.check_student(directory, described, student, job.student.weights_hash())
    request = base.Request(
        described.precision,
        given.size,
        given.batch,
        any_size=given.any_size,
        around=given.around,
        channels=given.count,
        window=None if given.window is None else base.Window(given.window.stride, given.window.blend),
    )
    job = job._replace(request=request)
    found = compared(job, job.opened(directory), directory)
    return job, None if found is None else found.values()


def _verify_student(directory: Path, asked: Verify) -> dict[str, Any]:
    loaded = load_student(directory, model=asked.model)
    own = student_folder.find(directory)
    found: dict[str, Any] = {
        "folder": str(own),
        "architecture": loaded.name,
        "files": {
            name: file.model_dump()
            for name, file in folder.measured(own, (student_folder.WEIGHTS, student_folder.DESCRIPTION)).items()
        },
        "stated": loaded.description.metrics,
    }
    splits, section = pictures.data_of(directory, asked.data, asked.data_set)
    if splits is not None:
        scored = pictures.spread(splits.val, asked.images)
        report = full_report(loaded, scored, section, torch.device("cpu"), 64)
        found["report"] = {key: value for key, value in report.items() if isinstance(value, int | float)}
        if "notes" in report:
            found["notes"] = report["notes"]
        seen = 0 if asked.data_set is not None else trained_on(directory, scored, section)
        if seen:
            found["trained_on"] = seen
    return found
