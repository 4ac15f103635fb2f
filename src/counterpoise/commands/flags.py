"""Between a command line and the library's functions: what flags mean, what was wrong with them, what is printed."""

from __future__ import annotations

import functools
import json as json_format
import os
import re
import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import CycloptsError, Parameter, UnknownOptionError
from pydantic import ValidationError

from counterpoise import config
from counterpoise.config import validation_errors
from counterpoise.data.table_file import is_table
from counterpoise.errors import ConfigError, DocumentError, RunFileError, job_of, nearest, shortened
from counterpoise.system import documents, own_code

EACH = Parameter(name="*")
"""Of a section: each of its fields is a flag, and the field's description its help."""
Options = Annotated[config.Run | None, EACH]
RunFile = Annotated[Path | None, Parameter(help="YAML run file, written before the flags, which override it")]


@EACH
class Flags(config.Section):
    """Base of the flags of a verb, by the names that its Python function has for them."""


def resolved(
    run_file: Path | None, options: config.Run | None, resume: bool = False, extend: Path | None = None
) -> config.Run:
    """The run file with the flags laid over it. A term that is named by flag replaces the default, as in a file.

    Without a run file, that of the run counts which is resumed or extended.
    """
    flags = values_of(options)
    own_code.name(flags)
    of_run = extend or (flags.get("out") if resume else None)
    if run_file is None and of_run is not None and (kept := Path(of_run, "run.yaml")).is_file():
        values = config.kept_values(kept)
        if extend is not None:
            values.pop("out", None)
            values.get("train", {}).pop("extends", None)
        run = config.resolve(config.merge(values, flags), f"run file {kept}")
        own_code.require(run, str(kept))
        return run
    if run_file is not None and (run_file / "run.yaml").is_file():
        raise ConfigError(
            f"{run_file} is the folder of a run, where a run file is expected. `--out {run_file} --resume` goes on "
            f"with that run; for another run with its options give {run_file / 'run.yaml'}."
        )
    if run_file is not None and run_file.exists() and (run_file.is_dir() or is_table(run_file)):
        raise ConfigError(f"{run_file} is no run file. Is it the data? --data {run_file}.")
    if run_file is not None and run_file.suffix not in {".yaml", ".yml"} and not run_file.exists():
        raise RunFileError(run_file)
    values = config.read(run_file) if run_file is not None else {}
    own_code.name(values)
    origin = f"run file {run_file}" if run_file is not None else "command line"
    return config.resolve(config.merge(values, flags), origin)


def data_of(data: Path, options: config.Run | None) -> config.Run:
    """A run of a data folder, or a run file, with the flags laid over it."""
    values = config.read(data) if data.suffix in {".yaml", ".yml"} else {"data": {"path": data}}
    flags = values_of(options)
    return config.resolve(config.merge(values, flags), "command line")


def with_truth_values(arguments: list[str]) -> list[str]:
    """`--flag false` as `--flag=false`: a switch would leave the word to the run file."""
    joined: list[str] = []
    for argument in arguments:
        if joined and argument.lower() in {"true", "false", "yes", "no"} and re.fullmatch(r"--[^=]+", joined[-1]):
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


def with_mappings(arguments: list[str]) -> list[str]:
    """`--data.views '{crop: none}'`, a mapping as a run file has it, as the JSON that is taken."""
    found = []
    for argument in arguments:
        flag, text = re.fullmatch(r"(--[^={]+=)?(.*)", argument, re.DOTALL).groups("")  # type: ignore[union-attr]
        try:
            values = documents.parse_yaml(text) if text[:1] + text[-1:] == "{}" and not _is_json(text) else None
        except DocumentError:
            values = None
        whole = isinstance(values, dict) and None not in values.values()  # {a} is a text, and no mapping
        found.append(f"{flag}{json_format.dumps(values, default=str)}" if whole else argument)
    return found


def _is_json(text: str) -> bool:
    try:
        json_format.loads(text)
    except ValueError:
        return False
    return True


def why_taken(word: str, arguments: list[str]) -> str:
    """Why a word behind a flag was taken for the run file."""
    at = arguments.index(word) if arguments.count(word) == 1 else 0
    flag_at = next((i for i in reversed(range(at)) if arguments[i].startswith("--")), None)
    if flag_at is None:
        return ""
    flag, _, value = arguments[flag_at].partition("=")
    follows = f" '{word}' follows {' '.join(arguments[flag_at:at])}"
    if value or flag_at < at - 1:
        free = re.match(r"--(objective|data\.options|data\.questions|(student|teacher)\.arguments)\.", flag)
        return f"{follows}, complete without it{'; a list is one value there: [1, 2]' if free else ''}."
    section, dot, name = flag.removeprefix("--").rpartition(".")
    return f"{follows}{'' if name.startswith('no-') else f', which is switched off with --{section}{dot}no-{name}'}."


def given(options: config.Section | None) -> dict[str, Any]:
    """The flags that were given, by name. What the others are is said by the function that takes them."""
    return {} if options is None else {name: getattr(options, name) for name in options.model_fields_set}


def values_of(options: config.Run | None) -> dict[str, Any]:
    """The values of a run that were given. Those of free keys arrive as text, and mean what they do in a run file."""
    values = {} if options is None else options.model_dump(exclude_unset=True)
    for section, key in (("data", "options"), ("student", "arguments"), ("teacher", "arguments")):
        if key in (values.get(section) or {}):
            values[section][key] = parse(values[section][key])
    if questions := (values.get("data") or {}).get("questions"):  # each of one word so far
        values["data"]["questions"] = {name: parse(word) for name, (word,) in questions.items()}
    for term in values.get("objective", {}).values():
        term |= {key: parse(value) for key, value in term.items() if key not in config.Term.model_fields}
    return values


def parse(value: Any) -> Any:
    """Text of a free key as YAML has it, at any depth; a sign that stands alone, such as | or #, is itself."""
    if isinstance(value, dict):
        return {key: parse(item) for key, item in value.items()}
    if not isinstance(value, str) or not value or (len(value) == 1 and not value.isalnum() and value != "~"):
        return value
    try:
        return documents.parse_yaml(value)
    except DocumentError:  # '@x', or a date that does not exist: text
        return value


def explain(error: CycloptsError) -> str:
    """What is wrong with a command line, in the words that a run file gets."""
    if isinstance(error, UnknownOptionError):
        return _unknown_flag(error)
    cause = error.__cause__
    if isinstance(cause, json_format.JSONDecodeError):
        return no_mapping(cause)
    if isinstance(cause, ValidationError):
        section = error.argument.name.strip("-*") if error.argument is not None else ""
        if section in {item["loc"][:1] and item["loc"][0] for item in cause.errors()}:  # a flag that is no section
            section = ""
        return validation_errors.explain(cause, "command line", config.Run, section)
    return str(error)


def no_mapping(error: json_format.JSONDecodeError) -> str:
    """What is said of a text that should be a mapping."""
    return (
        f"{error.doc[:80]!r} is no mapping: write it as in a run file, such as --data.views '{{crop: none}}', or give "
        "each key its own flag, such as --data.views.crop none."
    )


def _unknown_flag(error: UnknownOptionError) -> str:
    """What does the job of a flag that is known from elsewhere, or the flag whose last part is nearest."""
    flag = (error.token.keyword or error.token.value).partition("=")[0]
    section, _, name = flag.lstrip("-").rpartition(".")
    said = f"Unknown option: {flag}."
    if job := job_of(name):
        return f"{said} {job}"
    known = [name for argument in error.argument_collection for name in argument.names if name.startswith("--")]
    by_name: dict[str, str] = {}
    # Last, and so kept, are the flags of the section that was meant.
    for other in sorted(known, key=lambda other: other.lstrip("-").rpartition(".")[0] == section):
        by_name[other.lstrip("-").rpartition(".")[2]] = other
    near = nearest(name.replace("-", "_"), by_name)
    return said + re.sub(r"'(.*)'", lambda found: by_name[found[1]], near)


@functools.cache
def read_docstrings_once() -> None:
    """Help comes in half the time: cyclopts has the source of a class parsed anew for each option of that class."""
    import docstring_parser

    docstring_parser.parse_from_object = functools.cache(docstring_parser.parse_from_object)


def show(values: Any, as_json: bool, table: Any) -> None:
    """Print values as JSON, or what `table` makes of them."""
    if as_json:
        print(json_format.dumps(values, indent=2, default=str))
        return
    from counterpoise.commands.tables import print_all

    print_all(table())


def is_first() -> bool:
    """Whether this is the process that speaks, of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def fail(message: str, code: int = 2) -> int:
    """Say why, on stderr; the exit code."""
    message = shortened(message)
    if is_first():
        print(f"Error: {message}" if code == 2 else message, file=sys.stderr)
    return code
