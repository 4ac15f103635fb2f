"""`counterpoise export` and `counterpoise verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from counterpoise.commands import flags


def export(
    student: Path,
    /,
    *,
    to: str,
    precision: str = "float32",
    batch: str = "dynamic",
    size: tuple[int, int] | None = None,
    out: Path | None = None,
    overwrite: bool = False,
    data: Path | None = None,
    images: int | None = None,
    calibration_method: str | None = None,
    calibration_images: int = 256,
    calibration_data: Path | None = None,
    keep: list[str] | None = None,
    within: float | None = None,
    min_same: float | None = None,
    opset: int | None = None,
    model: str | None = None,
    make_environment: bool = False,
    epoch: Literal["last", "best"] | None = None,
    any_size: bool | None = None,
    json: bool = False,
) -> None:
    """Export a student for a runtime, and compare it there with the PyTorch one.

    Args:
        student: student folder, or a run's folder
        to: onnx, openvino, executorch, litert or coreml
        precision: float32, float16 or int8
        batch: how many pictures it takes at once, or dynamic
        size: height and width of its pixels, where the student takes any and the data does not tell
        out: folder to write; default: exports/FORMAT-PRECISION in the run, or beside the student folder
        overwrite: replace an older export there
        data: data folder or run file; default: the data of the run that the student lies in
        images: on how many validation images at most it is compared; default: all of them
        calibration_method: of int8: minmax, percentile or entropy, as the format has them
        calibration_images: of int8: how many training images
        calibration_data: of int8: another data folder or run file to take them from
        keep: of int8: layers that stay in float
        within: of int8: keep layers in float, the most sensitive first, until at most so many points are lost
        min_same: of int8: percent of the answers that must be the student's own; default: 90
        opset: of onnx: the version of its operators; default: 20
        model: the student's network where it is code of your own, file.py:function
        make_environment: make the Python environment of its own that litert runs in, where it is not there
        epoch: of a run: the student of its last or of its best epoch; default: the one that ships
        any_size: scenes of any height and width; default: where the format can, and validation scenes differ in size
        json: print export.json
    """
    from counterpoise.commands.tables import export_table
    from counterpoise.deploy.export import export as run
    from counterpoise.errors import ConfigError

    if batch != "dynamic" and not batch.isdigit():
        raise ConfigError(f"--batch is a number of pictures or dynamic, got '{batch}'.")
    calibration: dict[str, Any] = {"images": calibration_images, "data": calibration_data, "keep": keep or []}
    if calibration_method is not None:
        calibration["method"] = calibration_method
    result = run(
        student,
        to=to,
        precision=precision,
        batch=None if batch == "dynamic" else int(batch),
        size=size,
        out=out,
        overwrite=overwrite,
        data=data,
        images=images,
        calibration=calibration,
        within=within,
        min_same=min_same,
        opset=opset,
        model=model,
        make_environment=make_environment,
        epoch=epoch,
        any_size=any_size,
        show=True,
    )
    flags.show(result, json, lambda: export_table(result))


def verify(
    what: Path,
    /,
    *,
    student: Path | None = None,
    data: Path | None = None,
    images: int | None = None,
    model: str | None = None,
    json: bool = False,
) -> None:
    """Check an export or a student again, such as on the machine that received it: hashes and answers.

    Args:
        what: export folder, student folder, or a run's folder
        student: of an export: its student folder or run, to compare with on validation images
        data: data folder or run file; default: the data of the run that the student lies in
        images: on how many validation images at most; default: all of them
        model: the student's network where it is code of your own, file.py:function
        json: print what was found as JSON
    """
    from counterpoise.commands.tables import verify_table
    from counterpoise.deploy.verify import verify as run

    result = run(what, student=student, data=data, images=images, model=model, show=True)
    flags.show(result, json, lambda: verify_table(result))


def finetune(
    student: Path,
    /,
    *,
    out: Path,
    epochs: int = 2,
    learning_rate: float = 1e-4,
    teacher: Path | None = None,
    store: Path | None = None,
    keep: list[str] | None = None,
    data: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    model: str | None = None,
    json: bool = False,
    quiet: bool = False,
) -> None:
    """Prepare a student for 8 bits: it learns from itself in float while its layers are rounded. Then export it.

    Args:
        student: student folder, or a run's folder
        out: folder of the new run
        epochs: passes over the training data
        learning_rate: of AdamW, falling as a cosine
        teacher: a student folder or run to learn from instead of itself
        store: a teacher store to learn from instead
        keep: layers that will stay in float, as for export
        data: data folder or run file; default: the data of the run that the student lies in
        resume: go on with the run in --out from its last checkpoint
        overwrite: replace an older run in --out
        model: the student's network where it is code of your own, file.py:function
        json: print the result as JSON
        quiet: no progress
    """
    from counterpoise.commands.tables import result_table
    from counterpoise.deploy.finetune import finetune as run
    from counterpoise.engine import runs
    from counterpoise.errors import ConfigError

    if teacher is not None and store is not None:
        raise ConfigError("--teacher and --store are both given: the student learns from either of them.")
    result = run(
        student,
        out=out,
        epochs=epochs,
        learning_rate=learning_rate,
        teacher={"store": str(store)} if store is not None else teacher,
        keep=keep or (),
        data=data,
        resume=resume,
        overwrite=overwrite,
        model=model,
        show=not quiet,
    )
    flags.show(runs.summary(result), json, lambda: result_table(runs.summary(result)))


def push(
    student: Path,
    /,
    *,
    to: str | None = None,
    out: Path | None = None,
    exports: list[Path] | None = None,
    measured: list[Path] | None = None,
    license: str | None = None,
    private: bool = False,
    epoch: Literal["last", "best"] | None = None,
    json: bool = False,
) -> None:
    """Put a student, its exports and a card that tells of them onto the Hugging Face Hub.

    Args:
        student: student folder, or a run's folder
        to: org/name on the Hub; made where it is not there. Log in with hf auth login
        out: instead, a new folder that is ready for huggingface_hub.upload_folder
        exports: export folders; default: those in the run, or beside the student folder
        measured: files that measure --out wrote; default: measure*.json in the run, or beside the student folder
        license: of the whole, as the Hub knows it, such as apache-2.0
        private: make the repository a private one
        epoch: of a run: the student of its last or of its best epoch; default: the one that ships
        json: print what was put where as JSON
    """
    from counterpoise.commands.tables import facts_table
    from counterpoise.deploy.publishing import push as run

    result = run(
        student,
        to=to,
        out=out,
        exports=exports,
        measured=measured,
        license_id=license,
        private=private,
        epoch=epoch,
    )
    shown = {**result, "files": "\n".join(result["files"])}
    flags.show(result, json, lambda: facts_table(shown))
