"""`counterpoise evaluate`, `check`, `gauge` and `predict`."""

from __future__ import annotations

import json as json_format
import sys
from csv import DictWriter
from pathlib import Path
from typing import Annotated

from counterpoise import config
from counterpoise.commands import flags
from counterpoise.commands.flags import EACH, Options
from counterpoise.engine.options import Evaluate, Gauge, Predict
from counterpoise.errors import CounterpoiseError


def evaluate(student: Path, /, *, options: Annotated[Evaluate | None, EACH] = None, json: bool = False) -> None:
    """Score a student on the validation part of a data set.

    Args:
        student: student folder, or a run's folder
        json: print the report as JSON
    """
    from counterpoise.commands.tables import report_tables
    from counterpoise.engine import answers

    report = answers.evaluate(student, **flags.given(options), show=True)
    flags.show(report, json, lambda: report_tables(report))


def check(
    data: Path, /, *, options: Options = None, sheet: Path | None = None, overwrite: bool = False, json: bool = False
) -> int:
    """Look a data set through before training: all that is wrong with it, and the way out of each.

    Of a run file with a student a batch is tried, too: learned by heart and timed, with nothing kept of it. The exit
    code is 2 where something stops training.

    Args:
        data: data folder or run file; flags of the data section override it
        sheet: PNG to write of that batch: its views, their labels and what the teacher says of them
        overwrite: replace that file
        json: print what was found as JSON
    """
    from counterpoise.commands.tables import check_lines
    from counterpoise.engine import answers

    checked = answers.check(flags.data_of(data, options), sheet=sheet, overwrite=overwrite)
    flags.show(checked, json, lambda: check_lines(checked))
    return 2 if checked["errors"] else 0


def gauge(
    student: Path,
    /,
    *,
    options: Annotated[Gauge | None, EACH] = None,
    out: Path | None = None,
    overwrite: bool = False,
    json: bool = False,
) -> None:
    """See whether a student misses what its teacher believes, or believes what its teacher rules out.

    Args:
        student: student folder, or a run's folder
        out: file to write the gauge to, as JSON
        overwrite: replace that file
        json: print the gauge as JSON
    """
    from counterpoise.commands.tables import gauge_table
    from counterpoise.engine import answers
    from counterpoise.system.files import new_file, write_text

    out = None if out is None else new_file(out, overwrite)
    given = flags.given(options)
    teacher = given.get("teacher")
    if isinstance(teacher, config.Teacher) and teacher.arguments:  # else its model alone is laid over the run's
        given["teacher"] = teacher.model_copy(update={"arguments": flags.parse(teacher.arguments)})
    result = answers.gauge(student, **given, show=True)
    if out is not None:
        write_text(out, json_format.dumps(result, indent=2) + "\n")
    flags.show(result, json, lambda: gauge_table(result))


def predict(
    *images: Path, options: Annotated[Predict | None, EACH] = None, csv: bool = False, json: bool = False
) -> int:
    """Say what is on pictures, or paint it.

    Args:
        images: picture files or volumes of NIfTI, or folders of them
        csv: print the answers as CSV
        json: print the answers as JSON
    """
    from counterpoise.commands.tables import prediction_table
    from counterpoise.data.noticing import look_at
    from counterpoise.engine import answers, predictions
    from counterpoise.engine.inputs import reading_of
    from counterpoise.engine.progress import tell

    options = options or Predict()
    if not images and options.data is None:
        raise CounterpoiseError(
            "predict needs pictures: counterpoise predict PHOTO.jpg --student runs/mine, a folder, or --data PATH"
        )
    if csv and json:
        raise CounterpoiseError("--csv and --json are both given: the answers are printed as one of them.")
    found = answers.predict(images, **flags.given(options))
    answered = [answer for answer in found if "error" not in answer]
    if options.data is None:
        assert options.student is not None  # predict has refused that
        reading = reading_of(Path(options.student))
        pictures = [answer["image"] for answer in answered if not {"slices", "level"} & set(answer)]
        tell(look_at(pictures, reading).notes(reading))
    if csv:
        rows = predictions.as_rows(found)
        writer = DictWriter(sys.stdout, list(rows[0]) if rows else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    else:
        flags.show(found, json, lambda: prediction_table(answered))
    if len(answered) == len(found):
        return 0
    lines = "".join(f"\n  {answer['image']}: {answer['error']}" for answer in found if "error" in answer)
    return flags.fail(f"{len(found) - len(answered)} of {len(found)} pictures cannot be read:{lines}")
