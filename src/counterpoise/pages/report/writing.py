"""From paths to report.html."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from counterpoise.config.options import keywords_after
from counterpoise.engine.run_folder import REPORT
from counterpoise.errors import ConfigError, nearest
from counterpoise.pages.report import comparison, deployment, reading
from counterpoise.pages.report.options import Report
from counterpoise.pages.report.page import render, subject
from counterpoise.system.files import new_file, write_text

if TYPE_CHECKING:
    from counterpoise.engine.student_epochs import Epoch
    from counterpoise.models.catalog import Model
    from counterpoise.pages.report.methods import Claim


@keywords_after("out", Report)
def report(paths: str | Path | Sequence[str | Path], options: Report) -> Path:
    """Write the page of runs.

    `paths`, one or several, are run folders, folders of runs such as those of `compare` or a demo, exports, files of
    `measure` and `fit`.

    Returns:
        The file.

    Raises:
        ConfigError: a path that holds no run; the file exists, and not `overwrite`. RunError: it cannot be written.
    """
    out, images, epoch = options.out, options.images, options.epoch
    paths = [paths] if isinstance(paths, str | Path) else paths
    given = [Path(path) for path in paths]
    if not given:
        raise ConfigError("report needs a run: counterpoise report runs/mine")
    folder = given[0] if len(given) == 1 and given[0].is_dir() else Path()
    target = folder / REPORT if out is None else Path(out)
    target = new_file(target, options.overwrite)
    if not options.predictions:
        for name in {"images", "device", "model"} & options.model_fields_set:
            raise ConfigError(
                f"--{name} is of asking student and teacher, and --no-predictions asks neither: leave it out."
            )
    if images is not None and images < 1:
        raise ConfigError(f"--images must be at least 1, got {images}.")
    folders, shipped, compared = _sorted(given)
    findings = (
        _findings(folders, comparison.claim(compared), images, options.device, options.model, epoch)
        if options.predictions
        else None
    )
    command = ["counterpoise", "report", *map(str, paths), *(["--no-predictions"] if not options.predictions else [])]
    command += ["--images", str(images)] if images is not None else []
    command += ["--epoch", epoch] if epoch is not None else []
    command += ["--out", str(out)] if out is not None else []
    page = render(
        folders, findings=findings, compared=compared, shipped=shipped, command=shlex.join(command), epoch=epoch
    )
    write_text(target, page)
    return target


def _sorted(paths: Sequence[Path]) -> tuple[list[Path], list[Path], Path | None]:
    """Run folders, files about what is shipped, and a comparison's folder. Raises ConfigError where there is no run."""
    folders: list[Path] = []
    shipped: list[Path] = []
    compared = None
    for path in paths:
        if not path.exists():
            beside = [child.name for child in path.parent.iterdir()] if path.parent.is_dir() else []
            raise ConfigError(f"{path} does not exist.{nearest(path.name, beside)}")
        runs, files = reading.find(path), deployment.find(path)
        if not runs and not files:
            raise ConfigError(f"{path} holds no run: expected a folder with run.yaml, or a folder of such folders.")
        folders += [run for run in runs if run not in folders]
        shipped += [file for file in files if file not in shipped]
        compared = comparison.find(path) or compared
    if not folders:
        raise ConfigError(f"{paths[0]} tells of exports alone: give the run that they come from, too.")
    return folders, shipped, compared


def _findings(
    folders: Sequence[Path],
    claimed: Claim,
    images: int | None,
    device: str,
    model: Model | None,
    epoch: Epoch | None,
) -> dict[str, Any]:
    from counterpoise.pages.report.findings.gather import gather

    methods, chosen, run, metric = subject(folders, claimed, epoch)
    own = (run.student or {}).get("architecture")
    beside = {}
    for method in methods:
        other = method.typical(metric)
        same = (other.student or {}).get("architecture") == own
        if method is not chosen and method.role in ("alone", "kd") and other.student is not None and same:
            beside[method.name] = other
    return gather(run, beside, images, device, model)
