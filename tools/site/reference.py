"""Pages of reference, made of what the program itself reads: options, commands, registries and public names."""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import counterpoise
from counterpoise.commands import flags
from counterpoise.commands.app import app
from counterpoise.config import Run, keys
from counterpoise.objectives.base import entries

Schema = Mapping[str, Any]
KEYS = "* every key of the [run file](run-file.md), such as `--train.epochs 30`"


def pages() -> dict[str, str]:
    """Markdown of each page by name."""
    return {"run-file": run_file(), "commands": commands(), "objectives": objectives(), "python": python()}


def run_file() -> str:
    """A table a section: key, what it may be, its default, what it is."""
    schema = Run.model_json_schema()
    lines = [
        "# Run file",
        "",
        "Everything that a run can be told. A run file is YAML; each key is also a flag of the commands that train, "
        "such as `--train.epochs 30`. Keys with ↻ may have another value when a run goes on (`--resume`).",
    ]
    for section, rows in _sections(schema, schema, "").items():
        lines += [
            "",
            f"## {section or 'The run itself'}",
            "",
            "| key | what it may be | default | |",
            "|---|---|---|---|",
        ]
        lines += rows
    return "\n".join(lines) + "\n"


def _sections(schema: Schema, whole: Schema, prefix: str) -> dict[str, list[str]]:
    """Rows of options by section, sections within others after them."""
    found: dict[str, list[str]] = {prefix.rstrip("."): []}
    for name, given in schema["properties"].items():
        option, key = _followed(given, whole), f"{prefix}{name}"
        parts = [_followed(part, whole) for part in (option, *option.get("anyOf", ()))]
        inner = [part for part in parts if "properties" in part]
        if inner:
            found |= _sections(inner[0], whole, f"{key}.")
            if "anyOf" in option:  # it may be left out as a whole
                row = (
                    f"| `{key}` | a mapping: [its keys](#{key.replace('.', '')}) | | {option.get('description', '')} |"
                )
                found[prefix.rstrip(".")].append(row)
            continue
        default = option.get("default")
        shown = "" if default is None and "default" in option else f"`{json.dumps(default, ensure_ascii=False)}`"
        if "default" not in option:
            shown = "required" if name in schema.get("required", ()) else ""
        mark = " ↻" if keys.row(key).resume else ""
        cells = (f"`{key}`{mark}", _kind(option, whole), shown, option.get("description", ""))
        found[prefix.rstrip(".")].append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return {section: rows for section, rows in found.items() if rows}


def _followed(schema: Schema, whole: Schema) -> Schema:
    """What a schema stands for, with what is said beside the reference."""
    if "$ref" in schema:
        return {**whole["$defs"][schema["$ref"].rpartition("/")[2]], **{k: v for k, v in schema.items() if k != "$ref"}}
    return schema


def _kind(schema: Schema, whole: Schema) -> str:
    """What a value may be, in words."""
    schema = _followed(schema, whole)
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(filter(None, (_kind(part, whole) for part in schema["anyOf"]))))
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    if "properties" in schema:
        return "a mapping"
    if schema.get("type") == "array":
        inner = _kind(schema["items"], whole) if "items" in schema else "value"
        return f"a list: {inner}"
    names = {"integer": "a whole number", "number": "a number", "string": "text", "boolean": "true or false"}
    names |= {"object": "a mapping", "null": "", None: ""}
    limits = [
        f"{word} {schema[key]}"
        for key, word in (
            ("minimum", "from"),
            ("exclusiveMinimum", "above"),
            ("maximum", "up to"),
            ("exclusiveMaximum", "below"),
        )
        if key in schema and abs(schema[key]) < 2**31  # what a processor holds is no limit to tell
    ]
    kind = "a path" if schema.get("format") in ("path", "file-path") else names[schema.get("type")]
    return " ".join([kind, *limits])


def commands() -> str:
    """All commands, as their help has them; keys of the run file are told once, on its page."""
    flags.read_docstrings_once()
    text = app.generate_docs(include_hidden=False)
    sections = ("task", "seed", "data", "teacher", "student", "objective", "train")
    parts = re.split(r"(?m)^(?=##+ counterpoise )", text)
    return "".join(_without_keys(part, sections) for part in parts).replace("# counterpoise\n", "# Commands\n", 1)


def _without_keys(part: str, sections: tuple[str, ...]) -> str:
    if "`--train.epochs" not in part:
        return part
    kept = []
    for line in part.splitlines():
        flag = re.match(r"\* `--(?:no-)?([\w.]+)", line)
        if flag and flag[1].partition(".")[0] in sections:
            if KEYS not in kept:
                kept.append(KEYS)
            continue
        kept.append(line)
    return "\n".join(kept) + "\n"


def objectives() -> str:
    """Each objective of the registry, with its paper, formula and arguments."""
    lines = ["# Objectives by name", "", "What a term of a run file may be. [When to choose which](../objectives.md)."]
    for name, entry in sorted(entries().items()):
        lines += ["", f"## `{name}`", "", f"{entry.summary[0].upper()}{entry.summary[1:]}. {entry.paper}.", ""]
        lines += [f"::: {entry.kind.__module__}.{entry.kind.__qualname__}"]
        lines += ["    options: {heading_level: 3, members: [], show_root_full_path: false}"]
    return "\n".join(lines) + "\n"


def python() -> str:
    """What `import counterpoise` has."""
    lines = ["# Python", "", "What `import counterpoise` has. Errors are all `CounterpoiseError`."]
    for path in sorted(_public(), key=lambda path: path.rpartition(".")[2].lower()):
        lines += ["", f"::: {path}"]
    return "\n".join(lines) + "\n"


def _public() -> Iterator[str]:
    """Public names, by where they are defined."""
    face = Path(inspect.getfile(counterpoise)).with_suffix(".pyi")
    for node in ast.parse(face.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            module = f"counterpoise.{node.module}" if node.module else "counterpoise"
            yield from (f"{module}.{alias.name}" for alias in node.names)
