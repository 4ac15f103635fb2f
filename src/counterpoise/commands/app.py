"""The command line: one function a command, which parses, calls and prints."""

from __future__ import annotations

import json as json_format
import os
import re
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Literal, NoReturn

from cyclopts import App, CycloptsError, Parameter

from counterpoise import config
from counterpoise.commands import flags
from counterpoise.commands.compare import compare, search
from counterpoise.commands.deploy import export, finetune, push, verify
from counterpoise.commands.fit import fit
from counterpoise.commands.flags import Options
from counterpoise.commands.measure import measure
from counterpoise.commands.report import report
from counterpoise.commands.site import try_
from counterpoise.commands.store import app as store_app
from counterpoise.commands.watch import watch
from counterpoise.errors import CounterpoiseError, RunFileError

# Flags are spelled as the run file spells its keys.
app = App(
    name="counterpoise",
    help="Distil a large vision model into a small one with Balance Divergence, and ship the small one.",
    version=version("counterpoise"),
    default_parameter=Parameter(
        name_transform=lambda name: name.strip("_"), negative_iterable=(), negative_none=(), consume_multiple=True
    ),
    suppress_keyboard_interrupt=False,
)

app.command(store_app)
app.command(compare)
app.command(search)
app.command(export)
app.command(finetune)
app.command(verify)
app.command(push)
app.command(try_, name="try")
app.command(report)
app.command(measure)
app.command(fit)
app.command(watch)


@app.command
def demo(
    what: str = "digits",
    /,
    *,
    out: Path | None = None,
    seeds: int | None = None,
    overwrite: bool = False,
    json: bool = False,
) -> None:
    """See it work on embedded images: a teacher, and a student alone, with plain distillation and with Balance.

    Args:
        what: digits, or segmentation: digits on photographs
        out: folder for the runs, summary.json, report.html and overlays; default: runs/demo or runs/demo-segmentation
        seeds: students of each kind; default: 5, for segmentation 3
        overwrite: replace an older demo in that folder
        json: print the summary as JSON
    """
    from counterpoise import demos
    from counterpoise.commands.tables import demo_table

    chosen = demos.find(what)
    folder = Path(chosen.out) if out is None else out
    summary = demos.demo(what, out=folder, seeds=seeds, overwrite=overwrite, show=True)
    flags.show(summary, json, lambda: demo_table(summary, folder, chosen.title, chosen.unit))


@app.command
def train(
    run_file: Path | None = None,
    /,
    *,
    options: Options = None,
    resume: bool = False,
    overwrite: bool = False,
    json: bool = False,
    quiet: bool = False,
) -> None:
    """Train a network on labels alone: a teacher, or a student to compare with.

    Args:
        run_file: YAML run file, written before the flags, which override it
        resume: go on with the run in --out from its last checkpoint
        overwrite: replace the run in --out
        json: print the result as JSON
        quiet: no progress
    """
    _fit("train", run_file, options, resume, overwrite, json, quiet)


@app.command
def distill(
    run_file: Path | None = None,
    /,
    *,
    options: Options = None,
    resume: bool = False,
    overwrite: bool = False,
    json: bool = False,
    quiet: bool = False,
) -> None:
    """Train a student that imitates a teacher.

    Flags of the objective are laid over the run file's terms. Where it has none, the terms that flags name are all
    there are; without any, cross_entropy and balance, each with weight 1.

    Args:
        run_file: YAML run file, written before the flags, which override it
        resume: go on with the run in --out from its last checkpoint
        overwrite: replace the run in --out
        json: print the result as JSON
        quiet: no progress
    """
    _fit("distill", run_file, options, resume, overwrite, json, quiet)


@app.command
def record(
    run_file: Path | None = None,
    /,
    *,
    options: Options = None,
    views: Literal["auto", "complete", "epochs", "plain"] = "auto",
    epochs: int | None = None,
    precision: str = "float16",
    part: str | None = None,
    json: bool = False,
    quiet: bool = False,
) -> None:
    """Record what a teacher says of the views that students will see; train from it with --teacher.store.

    The same command goes on with a recording that was stopped. --out is the folder of the store.

    Args:
        run_file: YAML run file, written before the flags, which override it
        views: complete, every view where they can be counted; epochs, those of some epochs; plain, images as they are
        epochs: of how many epochs views are recorded; default: train.epochs
        precision: float16, int8, int4, float32, or topK for the K largest logits
        part: which of several parts to record, such as 2/8; merge folders with `counterpoise store merge`
        json: print what was recorded as JSON
        quiet: no progress
    """
    flags.record(run_file, options, views, epochs, precision, part, json, quiet)


@app.command
def evaluate(
    student: Path,
    /,
    *,
    data: Path | None = None,
    split: str | None = None,
    model: str | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    epoch: Literal["last", "best"] | None = None,
    json: bool = False,
) -> None:
    """Score a student on the validation part of a data set.

    Args:
        student: student folder, or a run's folder
        data: data folder or run file; default: the data of the run that the student lies in
        split: which split to score on where the data has several, such as test
        model: the student's network where it is code of your own, file.py:function
        batch_size: images at once; default: as in the run that the student lies in, else 250
        device: auto, cpu, cuda, cuda:1 or mps
        epoch: of a run: the student of its last or of its best epoch; default: the one that ships
        json: print the report as JSON
    """
    import counterpoise
    from counterpoise.commands.tables import report_tables

    report = counterpoise.evaluate(
        student, data, model=model, batch_size=batch_size, device=device, split=split, epoch=epoch, show=True
    )
    flags.show(report, json, lambda: report_tables(report))


@app.command
def check(data: Path, /, *, options: Options = None, json: bool = False) -> int:
    """Look a data set through before training: all that is wrong with it, and the way out of each.

    The exit code is 2 where something stops training.

    Args:
        data: data folder or run file; flags of the data section override it
        json: print what was found as JSON
    """
    import counterpoise
    from counterpoise.commands.tables import check_lines

    checked = counterpoise.check(flags.data_of(data, options))
    flags.show(checked, json, lambda: check_lines(checked))
    return 2 if checked["errors"] else 0


@app.command
def gauge(
    student: Path,
    /,
    *,
    data: Path | None = None,
    teacher: config.Teacher | None = None,
    model: str | None = None,
    temperature: float = 1.0,
    batch_size: int = 250,
    device: str = "auto",
    epoch: Literal["last", "best"] | None = None,
    out: Path | None = None,
    json: bool = False,
) -> None:
    """See whether a student misses what its teacher believes, or believes what its teacher rules out.

    Args:
        student: student folder, or a run's folder
        data: data folder or run file; default: the data of the run that the student lies in
        teacher: as in a run file; default: the teacher of the run that the student lies in
        model: the student's network where it is code of your own, file.py:function
        temperature: of both softmaxes
        batch_size: images at once
        device: auto, cpu, cuda, cuda:1 or mps
        epoch: of a run: the student of its last or of its best epoch; default: the one that ships
        out: file to write the gauge to, as JSON
        json: print the gauge as JSON
    """
    import counterpoise
    from counterpoise.commands.tables import gauge_table

    if teacher is not None and teacher.arguments:
        teacher = teacher.model_copy(update={"arguments": flags.parse(teacher.arguments)})
    result = counterpoise.gauge(
        student,
        data,
        teacher=teacher,
        model=model,
        temperature=temperature,
        batch_size=batch_size,
        device=device,
        epoch=epoch,
        show=True,
    )
    if out is not None:
        from counterpoise.system.files import write_text

        write_text(out, json_format.dumps(result, indent=2) + "\n")
    flags.show(result, json, lambda: gauge_table(result))


@app.command
def predict(
    *images: Path,
    student: Path,
    out: Path | None = None,
    beside: dict[str, Path] | None = None,
    data: Path | None = None,
    split: str | None = None,
    first: int | None = None,
    model: str | None = None,
    overwrite: bool = False,
    max_megapixels: float | None = None,
    epoch: Literal["last", "best"] | None = None,
    csv: bool = False,
    json: bool = False,
) -> int:
    """Say what is on pictures, or paint it.

    Args:
        images: picture files, or folders of them
        student: student folder, or a run's folder
        out: folder for colored masks, and for sheets of picture, truth and answers side by side (segmentation)
        beside: further students for those sheets, by title: --beside.teacher runs/teacher
        data: data folder or run file to take pictures and their classes or masks from
        split: which split of it, where there are several
        first: how many of them; default: all, and 8 with --out
        model: the student's network where it is code of your own, file.py:function
        overwrite: replace files in --out
        max_megapixels: larger pictures are refused; default: 179
        epoch: of a run: the student of its last or of its best epoch; default: the one that ships
        csv: print the answers as CSV
        json: print the answers as JSON
    """
    import counterpoise
    from counterpoise.commands.tables import prediction_table
    from counterpoise.data.noticing import look_at
    from counterpoise.engine import predictions
    from counterpoise.engine.inputs import reading_of
    from counterpoise.engine.progress import tell

    if not images and data is None:
        raise CounterpoiseError(
            "predict needs pictures: counterpoise predict PHOTO.jpg --student runs/mine, a folder, or --data PATH"
        )
    if csv and json:
        raise CounterpoiseError("--csv and --json are both given: the answers are printed as one of them.")
    found = counterpoise.predict(
        images,
        student,
        model=model,
        out=out,
        beside=beside,
        data=data,
        split=split,
        first=first,
        overwrite=overwrite,
        max_megapixels=max_megapixels,
        epoch=epoch,
    )
    answered = [answer for answer in found if "error" not in answer]
    if data is None:
        reading = reading_of(student)
        tell(look_at([answer["image"] for answer in answered], reading).notes(reading))
    if csv:
        flags.print_csv(predictions.as_rows(found))
    else:
        flags.show(found, json, lambda: prediction_table(answered))
    if len(answered) == len(found):
        return 0
    lines = "".join(f"\n  {answer['image']}: {answer['error']}" for answer in found if "error" in answer)
    return flags.fail(f"{len(found) - len(answered)} of {len(found)} pictures cannot be read:{lines}")


@app.command(name="list")
def list_(what: str, /, *, json: bool = False) -> None:
    """Show what there is to choose from.

    Args:
        what: objectives, models or sources
        json: print JSON
    """
    import counterpoise
    from counterpoise.commands.tables import listing_table

    rows = counterpoise.list(what)
    flags.show(rows, json, lambda: listing_table(what, rows))


def main() -> NoReturn:
    """Entry point. Exit codes: 0 done, 2 something to mend, 3 time is up and work is left, 130 interrupted."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run a command line and return its exit code."""
    if arguments[:1] in (["train"], ["distill"], ["record"]) or arguments[:2] == ["store", "extend"]:
        # --data PATH is short for --data.path PATH, as in the run file
        arguments = [re.sub(r"^--data(?==|$)", "--data.path", argument) for argument in arguments]
    arguments = flags.with_truth_values(arguments)
    code = None
    try:
        code = app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        return flags.fail(flags.explain(error))
    except json_format.JSONDecodeError as error:  # of a mapping for a section, which cyclopts takes as JSON
        return flags.fail(
            f"{error.doc[:80]!r} is no JSON, which a flag with a whole mapping takes: {error}. Put names and texts in "
            "double quotes, or give each key its own flag, such as --data.views.crop none."
        )
    except RunFileError as error:
        return flags.fail(f"{error}{flags.why_taken(str(error.path), arguments)}")
    except CounterpoiseError as error:
        return flags.fail(str(error))
    except KeyboardInterrupt as stop:
        return flags.fail(str(stop) or "Stopped.", code=130)
    except BrokenPipeError:  # the reader, head for instance, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:  # a folder that may not be read or written, a name that is too long
        return flags.fail(f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error))
    return code if isinstance(code, int) else 0


def _fit(
    verb: str, run_file: Path | None, options: config.Run | None, resume: bool, overwrite: bool, json: bool, quiet: bool
) -> None:
    resolved = flags.resolved(run_file, options, resume)

    from counterpoise.commands.tables import result_table
    from counterpoise.engine import runs

    result = getattr(runs, verb)(resolved, resume=resume, overwrite=overwrite, show=not quiet and flags.is_first())
    if flags.is_first():
        flags.show(runs.summary(result), json, lambda: result_table(runs.summary(result)))
