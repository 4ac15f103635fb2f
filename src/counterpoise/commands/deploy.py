"""`counterpoise export`, `verify`, `finetune`, `push` and `measure`."""

from __future__ import annotations

import json as json_format
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from counterpoise.commands import flags
from counterpoise.commands.flags import EACH
from counterpoise.deploy.options import Export, Finetune, Measure, Push, Verify
from counterpoise.errors import ConfigError


def export(student: Path, /, *, options: Annotated[Export, EACH], json: bool = False) -> None:
    """Export a student for a runtime, and compare it there with the PyTorch one.

    Args:
        student: student folder, or a run's folder
        json: print export.json
    """
    from counterpoise.commands.tables import export_table
    from counterpoise.deploy.export import export as run

    result = run(student, **flags.given(options), show=True)
    flags.show(result, json, lambda: export_table(result))


def verify(what: Path, /, *, options: Annotated[Verify | None, EACH] = None, json: bool = False) -> None:
    """Check an export, a student, a pack or a receipt again, such as on the machine that received it.

    Args:
        what: export folder, student folder, a run's folder, a pack, or a receipt
        json: print what was found as JSON
    """
    from counterpoise.commands.tables import facts_table, verify_table
    from counterpoise.deploy.verify import verify as run

    result = run(what, **flags.given(options), show=True)
    if "receipt" in result:
        flags.show(result, json, lambda: [f"{row['state']:9} {row['what']}" for row in result["items"]])
        return
    flags.show(result, json, lambda: facts_table(result) if "pack" in result else verify_table(result))


def receipt(run: Path, /, *, json: bool = False) -> None:
    """Write what a run was made of and what came of it, with hashes: receipt.json, which `verify` checks.

    Args:
        run: folder of a finished run
        json: print the receipt as JSON
    """
    from counterpoise.deploy import receipts
    from counterpoise.engine.run_folder import RECEIPT

    found = receipts.receipt(run)
    flags.show(found, json, lambda: [found["paragraph"], f"Written to {run / RECEIPT}"])


def finetune(student: Path, /, *, options: Annotated[Finetune, EACH], json: bool = False, quiet: bool = False) -> None:
    """Prepare a student for 8 bits: it learns from itself in float while its layers are rounded. Then export it.

    Args:
        student: student folder, or a run's folder
        json: print the result as JSON
        quiet: no progress
    """
    from counterpoise.commands.tables import result_table
    from counterpoise.deploy.finetune import finetune as run
    from counterpoise.engine import runs

    result = runs.summary(run(student, **flags.given(options), show=not quiet))
    flags.show(result, json, lambda: result_table(result))


def push(student: Path, /, *, options: Annotated[Push | None, EACH] = None, json: bool = False) -> None:
    """Put a student, its exports and a card that tells of them onto the Hugging Face Hub.

    Args:
        student: student folder, or a run's folder
        json: print what was put where as JSON
    """
    from counterpoise.commands.tables import facts_table
    from counterpoise.deploy.publishing import push as run

    result = run(student, **flags.given(options))
    flags.show(result, json, lambda: facts_table({**result, "files": "\n".join(result["files"])}))


def measure(
    *paths: Path,
    options: Annotated[Measure | None, EACH] = None,
    bundle: Path | None = None,
    from_: Annotated[Path | None, Parameter(name="--from")] = None,
    out: Path | None = None,
    overwrite: bool = False,
    json: bool = False,
    quiet: bool = False,
) -> None:
    """See what students and exports cost: bytes, parameters, multiply-adds, memory and latency.

    All are measured in turn, each in a fresh process of its own runtime; a student folder by PyTorch.

    Args:
        paths: student folders, runs, exports, or ONNX files of any origin
        bundle: instead, write a folder to take to an Android phone: exports, and the commands that measure them there
        from_: instead, read what ExecuTorch's executor_runner or LiteRT's benchmark_model has printed
        out: file to write the result to, as JSON
        overwrite: replace that file
        json: print the result as JSON
        quiet: no progress
    """
    from counterpoise.deploy.measuring import measure as measuring
    from counterpoise.deploy.measuring import phones
    from counterpoise.system.files import new_file, write_text

    given = flags.given(options)
    if from_ is not None and (bundle is not None or paths):
        raise ConfigError("measure takes things to measure, or --from FILE; --bundle goes with the former.")
    of_others = set(given) - ({"threads", "rounds"} if bundle is not None else set())
    if (bundle is not None or from_ is not None) and of_others:
        what = "--bundle" if bundle is not None else "--from"
        raise ConfigError(f"--{min(of_others)} is of what is measured here: leave it out with {what}.")
    if bundle is not None and out is not None:
        raise ConfigError("--out is for a result, and --bundle measures nothing yet: leave it out.")
    out = None if out is None else new_file(out, overwrite)
    if bundle is not None:
        files = measuring.bundle(paths, bundle, **{key: given[key] for key in ("threads", "rounds") if key in given})
        written = {"bundle": bundle, "files": [file.name for file in files], "command": f"sh {bundle}/measure.sh"}
        flags.show(written, json, lambda: phones.way_on(bundle))
        return
    if from_ is not None:
        result = phones.read_output(from_)
    else:
        result = measuring.measure(paths, **given, tell=_progress(quiet))
    if out is not None:
        write_text(out, json_format.dumps(result, indent=2) + "\n")
    flags.show(result, json, lambda: measuring.tables(result))


def _progress(quiet: bool) -> Callable[[str], None]:
    return lambda text: None if quiet else print(text, file=sys.stderr)
