"""The command line: its verbs put together, and what ends them said."""

from __future__ import annotations

import json as json_format
import os
import re
import sys

from cyclopts import App, CycloptsError, Parameter

from counterpoise.commands import (
    advise,
    answers,
    cascade,
    compare,
    demo,
    deploy,
    fit,
    flags,
    init,
    listing,
    pack,
    pages,
    probe,
    promise,
    store,
    train,
)
from counterpoise.errors import CounterpoiseError, RunFileError, of_memory

# Flags are spelled as the run file spells its keys.
app = App(
    name="counterpoise",
    help="Distil a large vision model into a small one with Balance Divergence, and ship the small one.",
    default_parameter=Parameter(
        name_transform=lambda name: name.strip("_"), negative_iterable=(), negative_none=(), consume_multiple=True
    ),
    suppress_keyboard_interrupt=False,
)

app.command(store.app)
for verb in (
    compare.compare, compare.search, deploy.export, deploy.finetune, deploy.verify, deploy.receipt, deploy.push,
    deploy.measure, init.init, advise.advise, fit.fit, demo.demo, pack.pack, train.train, train.distill, probe.probe,
    store.record, answers.evaluate, answers.check, answers.gauge, answers.predict, promise.promise,
    cascade.cascade, pages.report, pages.watch,
):  # fmt: skip
    app.command(verb)
app.command(pages.try_, name="try")
app.command(listing.list_, name="list")


def run(arguments: list[str]) -> int:
    """Run a command line and return its exit code."""
    if arguments[:1] in (["train"], ["distill"], ["record"], ["probe"]) or arguments[:2] == ["store", "extend"]:
        # --data PATH is short for --data.path PATH, as in the run file
        arguments = [re.sub(r"^--data(?==|$)", "--data.path", argument) for argument in arguments]
    if not {"--help", "-h"}.isdisjoint(arguments):
        flags.read_docstrings_once()
    arguments = flags.with_mappings(flags.with_truth_values(arguments))
    code = None
    try:
        code = app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        return flags.fail(flags.explain(error))
    except json_format.JSONDecodeError as error:  # of a mapping for a section, which cyclopts takes as JSON
        return flags.fail(flags.no_mapping(error))
    except RunFileError as error:
        return flags.fail(f"{error}{flags.why_taken(str(error.path), arguments)}")
    except CounterpoiseError as error:
        return flags.fail(str(error))
    except KeyboardInterrupt as stop:
        return flags.fail(str(stop) or "Stopped.", code=130)
    except BrokenPipeError:  # the reader, head for instance, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (MemoryError, RuntimeError, ValueError) as error:
        if not (said := of_memory(error)):
            raise
        return flags.fail(said)
    except OSError as error:  # a folder that may not be read or written, a name that is too long
        return flags.fail(f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error))
    return code if isinstance(code, int) else 0
