"""The command line: one function a command, which parses, calls and prints."""

from __future__ import annotations

import json as json_format
import os
import re
import sys
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import yaml
from cyclopts import App, CycloptsError, Parameter
from pydantic import ValidationError

from counterpoise import __version__, config
from counterpoise.errors import ConfigError, CounterpoiseError
from counterpoise.store_cli import app as store_app

# Flags are spelled as the run file spells its keys.
app = App(
    name="counterpoise",
    help="Distil a large vision model into a small one with Balance Divergence, and ship the small one.",
    version=__version__,
    default_parameter=Parameter(
        name_transform=lambda name: name.strip("_"), negative_iterable=(), negative_none=(), consume_multiple=True
    ),
    suppress_keyboard_interrupt=False,
)

app.command(store_app)
Options = Annotated[config.Run | None, Parameter(name="*")]


@app.command
def demo(*, out: Path = Path("runs/demo"), seeds: int = 5, overwrite: bool = False, json: bool = False) -> None:
    """See it work on embedded images: a teacher, and a student alone, with plain distillation and with Balance.

    Args:
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

    Flags of the objective are laid over the run file's terms or, where it has none, over the default ones:
    cross_entropy and balance, each with weight 1.

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
    _record(run_file, options, views, epochs, precision, part, json, quiet)


@app.command
def evaluate(
    student: Path,
    /,
    *,
    data: Path | None = None,
    split: str | None = None,
    model: str | None = None,
    batch_size: int = 250,
    device: str = "auto",
    json: bool = False,
) -> None:
    """Score a student on the validation part of a data set.

    Args:
        student: student folder, or a run's folder
        data: data folder or run file; default: the data of the run that the student lies in
        split: which split to score on where the data has several, such as test in a masks folder
        model: the student's network where it is code of your own, file.py:function
        batch_size: images at once
        device: auto, cpu, cuda, cuda:1 or mps
        json: print the report as JSON
    """
    from counterpoise import api
    from counterpoise.tables import report_tables

    report = api.evaluate(student, data, model=model, batch_size=batch_size, device=device, split=split)
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

    Args:
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

    if teacher is not None:
        teacher = teacher.model_copy(update={"arguments": _read(teacher.arguments)})
    result = api.gauge(
        student, data, teacher=teacher, model=model, temperature=temperature, batch_size=batch_size, device=device
    )
    if out is not None:
        from counterpoise.files import write_text

        write_text(out, json_format.dumps(result, indent=2) + "\n")
    _show(result, json, lambda: gauge_table(result))


@app.command
def predict(
    *images: Path,
    student: Path,
    out: Path | None = None,
    beside: dict[str, Path] | None = None,
    data: Path | None = None,
    split: str | None = None,
    first: int = 8,
    model: str | None = None,
    overwrite: bool = False,
    json: bool = False,
) -> None:
    """Say what is on pictures, or paint it.

    Args:
        images: picture files
        student: student folder, or a run's folder
        out: folder for colored masks, and for sheets of picture, truth and answers side by side (segmentation)
        beside: further students for those sheets, by title: --beside.teacher runs/teacher
        data: data folder or run file to take pictures and their masks from
        split: which split of it, where there are several
        first: how many of them
        model: the student's network where it is code of your own, file.py:function
        overwrite: replace files in --out
        json: print the answers as JSON
    """
    from counterpoise import api
    from counterpoise.tables import prediction_table

    if not images and data is None:
        raise CounterpoiseError(
            "predict needs at least one picture: counterpoise predict PHOTO.jpg --student runs/mine"
        )
    found = api.predict(
        images,
        student,
        model=model,
        out=out,
        beside=beside,
        data=data,
        split=split,
        first=first,
        overwrite=overwrite,
    )
    names = [str(path) for path in images] or [answer["overlay"] for answer in found]
    answers = [{"image": name, **answer} for name, answer in zip(names, found, strict=True)]
    _show(answers, json, lambda: prediction_table(answers))


@app.command(name="list")
def list_(what: str, /, *, json: bool = False) -> None:
    """Show what there is to choose from.

    Args:
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
    if arguments[:1] in (["train"], ["distill"], ["record"]) or arguments[:2] == [
        "store",
        "extend",
    ]:  # --data PATH is short for --data.path PATH, as in the run file
        arguments = [re.sub(r"^--data(?==|$)", "--data.path", argument) for argument in arguments]
    arguments = _with_truth_values(arguments)
    try:
        app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        return _fail(_explain(error))
    except _RunFileError as error:
        return _fail(f"{error}{_why_taken(str(error.path), arguments)}")
    except CounterpoiseError as error:
        return _fail(str(error))
    except KeyboardInterrupt as stop:
        return _fail(str(stop) or "Stopped.", code=130)
    except BrokenPipeError:  # the reader, head for instance, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:  # a folder that may not be read or written, a name that is too long
        return _fail(f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error))
    return 0


def _resolved(verb: str, run_file: Path | None, options: config.Run | None, resume: bool = False) -> config.Run:
    """The run file with the flags laid over it."""
    flags = _flags(options) if options is not None else {}
    if resume and run_file is None and "out" in flags and Path(flags["out"], "run.yaml").is_file():
        run_file = Path(flags["out"], "run.yaml")
    if run_file is not None and run_file.suffix not in {".yaml", ".yml"} and not run_file.exists():
        raise _RunFileError(run_file)
    values = config.read(run_file) if run_file is not None else {}
    if "objective" in flags and "objective" not in values:
        terms = ["cross_entropy"] if verb == "train" else config.default_objective()
        values = {**values, "objective": {name: {"weight": 1.0} for name in terms}}
    origin = f"run file {run_file}" if run_file is not None else "command line"
    return config.resolve(config.merge(values, flags), origin)


class _RunFileError(ConfigError):
    """What stands in the place of the run file is neither there nor named like one."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"Run file {path} does not exist.")
        self.path = path


def _with_truth_values(arguments: list[str]) -> list[str]:
    """`--flag false` as `--flag=false`: a switch would leave the word to the run file."""
    joined: list[str] = []
    for argument in arguments:
        if joined and argument.lower() in {"true", "false", "yes", "no"} and re.fullmatch(r"--[^=]+", joined[-1]):
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


def _why_taken(word: str, arguments: list[str]) -> str:
    """Why a word behind a flag was taken for the run file."""
    at = arguments.index(word) if arguments.count(word) == 1 else 0
    flag_at = next((i for i in reversed(range(at)) if arguments[i].startswith("--")), None)
    if flag_at is None:
        return ""
    flag, _, value = arguments[flag_at].partition("=")
    follows = f" '{word}' follows {' '.join(arguments[flag_at:at])}"
    if value or flag_at < at - 1:
        free = re.match(r"--(objective|data\.options|(student|teacher)\.arguments)\.", flag)
        return f"{follows}, complete without it{'; a list is one value there: [1, 2]' if free else ''}."
    section, dot, name = flag.removeprefix("--").rpartition(".")
    return f"{follows}{'' if name.startswith('no-') else f', which is switched off with --{section}{dot}no-{name}'}."


def _record(
    run_file: Path | None,
    options: config.Run | None,
    views: Literal["auto", "complete", "epochs", "plain"],
    epochs: int | None,
    precision: str,
    part: str | None,
    json: bool,
    quiet: bool,
) -> None:
    from counterpoise import api
    from counterpoise.tables import facts_table

    run = _resolved("distill", run_file, options)
    found = api.record(
        run,
        views=views,
        epochs=epochs,
        precision=precision,
        part=None if part is None else _part(part),
        show=not quiet and _first(),
    )
    if _first():
        _show(found, json, lambda: facts_table(found))


def _part(text: str) -> tuple[int, int]:
    """2/8 as (1, 8)."""
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise ConfigError(f"--part is such as 2/8, the second of eight parts, got '{text}'.")
    return int(found[1]) - 1, int(found[2])


@store_app.command
def extend(
    run_file: Path,
    /,
    *,
    options: Options = None,
    epochs: int | None = None,
    json: bool = False,
    quiet: bool = False,
) -> None:
    """Record further epochs into the store in --out, as many as --epochs in all.

    Args:
        run_file: the YAML run file that the store was recorded for
        epochs: of how many epochs views are there in the end; default: train.epochs
        json: print what the store holds as JSON
        quiet: no progress
    """
    from counterpoise.teachers.store import Store

    run = _resolved("distill", run_file, options)
    if run.out is None:
        raise ConfigError("extend needs --out: the folder of the store.")
    header = Store.open(run.out).header
    _record(run_file, options, header.kind, epochs, header.precision, None, json, quiet)


def _fit(
    verb: str, run_file: Path | None, options: config.Run | None, resume: bool, overwrite: bool, json: bool, quiet: bool
) -> None:
    resolved = _resolved(verb, run_file, options, resume)

    from counterpoise import api
    from counterpoise.tables import result_table

    result = getattr(api, verb)(resolved, resume=resume, overwrite=overwrite, show=not quiet and _first())
    if _first():
        _show(api.summary(result), json, lambda: result_table(api.summary(result)))


def _flags(options: config.Run) -> dict[str, Any]:
    """The options that were given. Those under free keys arrive as text, and mean what they do in a run file."""
    flags = options.model_dump(exclude_unset=True)
    for section, key in (("data", "options"), ("student", "arguments"), ("teacher", "arguments")):
        if key in (flags.get(section) or {}):
            flags[section][key] = _read(flags[section][key])
    for term in flags.get("objective", {}).values():
        term |= {key: _read(value) for key, value in term.items() if key not in config.Term.model_fields}
    return flags


def _read(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _read(item) for key, item in value.items()}
    if not isinstance(value, str) or not value:
        return value
    try:
        return yaml.safe_load(value)
    except (yaml.YAMLError, ValueError):  # '@x', or a date that does not exist: text
        return value


def _explain(error: CycloptsError) -> str:
    cause = error.__cause__
    if isinstance(cause, ValidationError):
        section = error.argument.name.strip("-*") if error.argument is not None else ""
        return config.explain(cause, "command line", section)
    return str(error)


def _show(values: Any, as_json: bool, table: Any) -> None:
    if as_json:
        print(json_format.dumps(values, indent=2, default=str))
        return
    from counterpoise.tables import print_all

    print_all(table())


def _first() -> bool:
    return os.environ.get("RANK", "0") == "0"


def _fail(message: str, code: int = 2) -> int:
    if _first():
        print(f"Error: {message}" if code == 2 else message, file=sys.stderr)
    return code
