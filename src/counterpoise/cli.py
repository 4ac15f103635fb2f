"""The command line: one function a command, which parses, calls and prints."""

from __future__ import annotations

import json as json_format
import os
import re
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import yaml
from cyclopts import App, CycloptsError, Parameter
from pydantic import ValidationError

from counterpoise import __version__, config
from counterpoise.errors import CounterpoiseError

# Flags are spelled as the run file spells its keys.
app = App(
    name="counterpoise",
    help="Distil a large vision model into a small one with Balance Divergence, and ship the small one.",
    version=__version__,
    default_parameter=Parameter(name_transform=lambda name: name.strip("_"), negative_iterable=(), negative_none=()),
    suppress_keyboard_interrupt=False,
)

Options = Annotated[config.Run | None, Parameter(name="*")]


@app.command
def demo(*, out: Path = Path("runs/demo"), seeds: int = 5, overwrite: bool = False, json: bool = False) -> None:
    """See it work on embedded images: a teacher, and a student alone, with plain distillation and with Balance.

    Parameters
    ----------
    out: folder for the runs and summary.json
    seeds: students of each kind
    overwrite: replace an older demo in that folder
    json: print the summary as JSON
    """
    from counterpoise.demos import demo as run_demo
    from counterpoise.tables import demo_table

    summary = run_demo(out, seeds=seeds, overwrite=overwrite, show=True)
    _show(summary, json, lambda: demo_table(summary, out))


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

    Parameters
    ----------
    run_file: YAML run file; flags override it
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

    Parameters
    ----------
    run_file: YAML run file; flags override it
    resume: go on with the run in --out from its last checkpoint
    overwrite: replace the run in --out
    json: print the result as JSON
    quiet: no progress
    """
    _fit("distill", run_file, options, resume, overwrite, json, quiet)


@app.command
def evaluate(
    student: Path,
    /,
    *,
    data: Path | None = None,
    model: str | None = None,
    batch_size: int = 250,
    device: str = "auto",
    json: bool = False,
) -> None:
    """Score a student on the validation part of a data set.

    Parameters
    ----------
    student: student folder, or a run's folder
    data: data folder or run file; default: the data of the run that the student lies in
    model: the student's network where it is code of your own, file.py:function
    batch_size: images at once
    device: auto, cpu, cuda, cuda:1 or mps
    json: print the report as JSON
    """
    from counterpoise import api
    from counterpoise.tables import report_tables

    report = api.evaluate(student, data, model=model, batch_size=batch_size, device=device)
    _show(report, json, lambda: report_tables(report))


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
    out: Path | None = None,
    json: bool = False,
) -> None:
    """See whether a student misses what its teacher believes, or believes what its teacher rules out.

    Parameters
    ----------
    student: student folder, or a run's folder
    data: data folder or run file; default: the data of the run that the student lies in
    teacher: as in a run file; default: the teacher of the run that the student lies in
    model: the student's network where it is code of your own, file.py:function
    temperature: of both softmaxes
    batch_size: images at once
    device: auto, cpu, cuda, cuda:1 or mps
    out: file to write the gauge to, as JSON
    json: print the gauge as JSON
    """
    from counterpoise import api
    from counterpoise.tables import gauge_table

    result = api.gauge(
        student, data, teacher=teacher, model=model, temperature=temperature, batch_size=batch_size, device=device
    )
    if out is not None:
        from counterpoise.files import write_text

        write_text(out, json_format.dumps(result, indent=2) + "\n")
    _show(result, json, lambda: gauge_table(result))


@app.command
def predict(*images: Path, student: Path, model: str | None = None, json: bool = False) -> None:
    """Say what is on pictures.

    Parameters
    ----------
    images: picture files
    student: student folder, or a run's folder
    model: the student's network where it is code of your own, file.py:function
    json: print the answers as JSON
    """
    from counterpoise import api
    from counterpoise.tables import prediction_table

    if not images:
        raise CounterpoiseError(
            "predict needs at least one picture: counterpoise predict PHOTO.jpg --student runs/mine"
        )
    answers = [
        {"image": str(path), **answer}
        for path, answer in zip(images, api.predict(images, student, model=model), strict=True)
    ]
    _show(answers, json, lambda: prediction_table(answers))


@app.command(name="list")
def list_(what: str, /, *, json: bool = False) -> None:
    """Show what there is to choose from.

    Parameters
    ----------
    what: objectives, models or sources
    json: print JSON
    """
    from counterpoise import api
    from counterpoise.tables import listing_table

    rows = api.listing(what)
    _show(rows, json, lambda: listing_table(what, rows))


def main() -> NoReturn:
    """Entry point. Exit codes: 0 done, 2 something to mend, 130 interrupted."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run a command line and return its exit code."""
    if arguments[:1] in (["train"], ["distill"]):  # --data PATH is short for --data.path PATH, as in the run file
        arguments = [re.sub(r"^--data(?==|$)", "--data.path", argument) for argument in arguments]
    try:
        app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        return _fail(_explain(error))
    except CounterpoiseError as error:
        return _fail(str(error))
    except KeyboardInterrupt as stop:
        return _fail(str(stop) or "Stopped.", code=130)
    except BrokenPipeError:  # the reader, head for instance, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _fit(
    verb: str, run_file: Path | None, options: config.Run | None, resume: bool, overwrite: bool, json: bool, quiet: bool
) -> None:
    values = config.read(run_file) if run_file is not None else {}
    flags = _from_text(options.model_dump(exclude_unset=True)) if options is not None else {}
    out = flags.get("out") or values.get("out")
    if resume and run_file is None and out is not None and Path(out, "run.yaml").is_file():
        values = config.read(Path(out) / "run.yaml")
    if "objective" in flags and "objective" not in values:
        values = {
            **values,
            "objective": {name: {"weight": term.weight} for name, term in config.default_objective().items()},
        }
    origin = f"run file {run_file}" if run_file is not None else "command line"
    resolved = config.resolve(config.merge(values, flags), origin)

    from counterpoise import api
    from counterpoise.tables import result_table

    result = getattr(api, verb)(resolved, resume=resume, overwrite=overwrite, show=not quiet and _first())
    if _first():
        _show(api.summary(result), json, lambda: result_table(api.summary(result)))


def _from_text(values: Any) -> Any:
    """Values under free keys (arguments of an objective, say) arrive as text, and mean what they do in a run file."""
    if isinstance(values, dict):
        return {key: _from_text(value) for key, value in values.items()}
    return yaml.safe_load(values) if isinstance(values, str) and values else values


def _explain(error: CycloptsError) -> str:
    cause = error.__cause__
    if isinstance(cause, ValidationError):
        return config.explain(cause, "command line")
    return str(error)


def _show(values: Any, as_json: bool, table: Any) -> None:
    if as_json:
        print(json_format.dumps(values, indent=2, default=str))
        return
    from rich.console import Console

    for renderable in table():
        Console().print(renderable)


def _first() -> bool:
    return os.environ.get("RANK", "0") == "0"


def _fail(message: str, code: int = 2) -> int:
    if _first():
        print(f"Error: {message}" if code == 2 else message, file=sys.stderr)
    return code
