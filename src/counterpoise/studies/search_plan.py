"""The search file: what each method may choose, and that all have the same chances."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from counterpoise import config
from counterpoise.config import Section, Share
from counterpoise.config.keys import dotted, nested
from counterpoise.config.section import Folder
from counterpoise.config.validation_errors import validated
from counterpoise.errors import ConfigError, unknown
from counterpoise.studies import plan, ranges, results
from counterpoise.studies.halving import Rungs
from counterpoise.studies.plan import FoldersByName, Seeds, TrainingJob, Values
from counterpoise.studies.ranges import Point, Range

EVERYWHERE = ("train.optimizer.learning_rate", "train.optimizer.weight_decay")
"""Keys that every method chooses: much of what a weight seems to bring is a larger learning rate."""
OWN = ("seed", "out", "train.epochs")
"""Keys that a search gives each trial itself: what a range chose of them would never be tried."""
JUDGED_BY = ("data.path", "data.held_out", "data.fold", "data.val_fraction", "data.split_seed")
"""Keys that say on which pictures a trial is scored: other pictures are no better values."""
SHARE = (0.1, 0.9)
"""A side of a divided total has at least a tenth of it."""


class SearchMethod(Section):
    """What a method has of its own."""

    objective: dict[str, Any] = Field(description="terms, with expressions of ranges such as $total * $share")
    ranges: dict[str, Range] = Field(default_factory=dict, description="ranges beside those of all methods")


def _fresh(seeds: int | list[int]) -> int | list[int]:
    plan.check_seeds(plan.counted(seeds))
    return seeds


class Final(Section):
    """The comparison of the winners."""

    baseline: str | None = Field(None, description="default: the first method")
    primary: str | None = Field(None, description="the method whose difference is the claim")
    seeds: Annotated[int | list[int], AfterValidator(_fresh)] = Field(5, description="how many fresh ones, or a list")


class SearchFile(Section):
    """A search file."""

    out: Folder = Field(description="folder of trials and tables")
    run: Values = Field(default_factory=dict, description="what all runs have in common")
    ranges: dict[str, Range] = Field(default_factory=dict, description="ranges of all methods")
    methods: Annotated[dict[str, SearchMethod], FoldersByName] = Field(
        description="what each method has of its own, by name"
    )
    trials: int = Field(16, ge=1, le=10_000, description="points a method")
    seeds: Seeds = Field(1, validate_default=True, description="how many a trial, counted from 0, or a list")
    rungs: Rungs | None = Field(None, description="epochs at which trials are compared; default: train.epochs")
    keep: Share = Field(0.5, gt=0, description="share of the trials that goes on from each rung to the next")
    val_images: int = Field(5000, ge=1, description="training images that are held out to choose by")
    design_seed: int = Field(0, ge=0, lt=2**31, description="seed of the points")
    metric: str | None = Field(None, description="larger is better; default: the headline of the task")
    final: Final = Field(default_factory=Final, description="the comparison of the winners")


@dataclass(frozen=True)
class Search:
    """A search file, checked.

    Attributes:
        common: values of all runs, without what is chosen.
        ranges: by method and name.
        design: the points of each method.
    """

    plan: SearchFile
    common: dict[str, Any]
    metric: str
    rungs: tuple[int, ...]
    ranges: dict[str, dict[str, Range]]
    design: dict[str, list[Point]]
    origin: str

    def chosen(self, method: str, point: Point) -> dict[str, Any]:
        """The run file's values that a method has of its own at a point."""
        where = f"methods.{method}.objective in the {self.origin}"
        values = {"objective": ranges.fill(self.plan.methods[method].objective, point, where)}
        for name, choice in self.ranges[method].items():
            if choice.key is not None:
                values = config.merge(values, nested(choice.key, point[name]))
        return values

    def keys(self) -> list[str]:
        """The keys of the run file that are chosen."""
        return sorted({r.key for named in self.ranges.values() for r in named.values() if r.key is not None})

    def job(self, method: str, trial: int, epochs: int, seed: int) -> TrainingJob:
        """One run of a trial, on what is left of the training images."""
        values = config.merge(self.common, self.chosen(method, self.design[method][trial]))
        values = config.merge(plan.shortened(values, epochs), {"data": {"held_out": self.plan.val_images}})
        name = f"trial-{trial:03d}"
        run, distils = plan.complete(values, f"{name} of method {method} of the {self.origin}")
        folder = self.plan.out / "trials" / method / name / f"epochs-{epochs}" / f"seed-{seed}"
        run = plan.telling(plan.placed(run, folder, seed), self.metric)
        return TrainingJob((method, name, f"{epochs} epochs"), run, distils)

    def final(self, winners: Mapping[str, int]) -> dict[str, Any]:
        """The compare file of the winners: all training images, the data's own val, seeds that no trial has seen."""
        final = self.plan.final
        return {
            "out": str(self.plan.out / "final"),
            "run": self.common,
            "methods": {method: self.chosen(method, self.design[method][trial]) for method, trial in winners.items()},
            "seeds": self.fresh_seeds(),
            "baseline": final.baseline or next(iter(winners)),
            **({} if final.primary is None else {"primary": final.primary}),
            "differs": self.keys(),
            "metric": self.metric,
        }

    def fresh_seeds(self) -> list[int]:
        """Seeds of the final runs."""
        seeds = self.plan.final.seeds
        first = max(self.plan.seeds) + 1
        return seeds if isinstance(seeds, list) else list(range(first, first + seeds))


def read(path: Path, out: Path | None = None) -> Search:
    """A search file. Raises ConfigError for whatever is wrong with it, or where methods had unequal chances."""
    values = config.read(path)
    if out is not None:
        values = {**values, "out": out}
    origin = f"search file {path}"
    found = validated(SearchFile, values, origin)
    for key, name in (("final.baseline", found.final.baseline), ("final.primary", found.final.primary)):
        if name is not None and name not in found.methods:
            raise ConfigError(f"{key} in the {origin}: {unknown('Method', name, found.methods)}")
    common = plan.given(found.run, path.parent)
    of_method = {name: _ranges_of(name, found, origin) for name in found.methods}
    every: dict[str, Range] = {}
    for method, named in of_method.items():
        for name, chosen in named.items():
            if every.setdefault(name, chosen) != chosen:
                raise ConfigError(
                    f"ranges.{name} of method {method} in the {origin} is another than that of a method before it; "
                    "a name stands for one range, so that all have the same chances."
                )
    points = ranges.draw(every, found.trials, found.design_seed)
    design = {m: [{name: point[name] for name in named} for point in points] for m, named in of_method.items()}
    base = config.resolve(common, f"run of the {origin}")
    rungs = tuple(found.rungs or [base.train.epochs])
    metric = plan.metric_of(base, found.metric, origin, largest=True)
    search = Search(found, common, metric, rungs, of_method, design, origin)
    _check_chances(search)
    return search


def _ranges_of(method: str, found: SearchFile, origin: str) -> dict[str, Range]:
    """All ranges of a method. Raises ConfigError where one is missing or of no use."""
    own = found.methods[method]
    used = ranges.names_in(own.objective)
    named = {**ranges.STANDARD, **found.ranges, **own.ranges}
    keys = [chosen.key for chosen in named.values() if chosen.key is not None]
    for key in EVERYWHERE:
        if key not in keys:
            raise ConfigError(
                f"No range of method {method} in the {origin} chooses {key}: a larger weight is nearly a larger "
                f"learning rate, so every method chooses both. Put one under ranges: {key.rpartition('.')[2]}: "
                f"{{key: {key}, low: .., high: .., log: true}}"
            )
    for name, chosen in named.items():
        where = f"ranges.{name} of method {method} in the {origin}"
        if chosen.key is None and name not in used:
            if name in own.ranges:
                raise ConfigError(f"{where} is used nowhere: write ${name} in the objective, or give it a key.")
            continue
        if chosen.key is not None and len([key for key in keys if key == chosen.key]) > 1:
            raise ConfigError(f"{where}: two ranges choose {chosen.key}.")
        _check_key(chosen, where)
        if name.endswith("share") and not _within(chosen, *SHARE):
            raise ConfigError(f"{where} must lie within {list(SHARE)}: each side has at least a tenth of the total.")
    return {name: chosen for name, chosen in named.items() if chosen.key is not None or name in used}


def _check_key(chosen: Range, where: str) -> None:
    """Raises ConfigError where a range chooses what trials have of the search, or what they are judged by."""
    values = [] if chosen.key is None else chosen.choices or [chosen.low]
    for key in sorted(set().union(*(dotted(nested(str(chosen.key), value)) for value in values))):
        if key in OWN:
            raise ConfigError(
                f"{where} chooses {key}, which the search gives each trial itself, so that any value would do as well. "
                "Leave out this range; epochs are train.epochs of `run`, or `rungs`."
            )
        if key in JUDGED_BY:
            raise ConfigError(
                f"{where} chooses {key}, by which trials would be scored on other pictures, and their scores not be "
                "compared. Put it under `run`, for all alike; val_images says how many pictures are held out."
            )


def _within(chosen: Range, low: float, high: float) -> bool:
    values = [v for v in (chosen.low, chosen.high, *(chosen.choices or [])) if v is not None]
    return all(isinstance(value, int | float) and low <= value <= high for value in values)


def _check_chances(search: Search) -> None:
    """Raises ConfigError where a run is not right, or where methods differ in more than they declare."""
    found, origin = search.plan, search.origin
    overlap = sorted(set(search.fresh_seeds()) & set(found.seeds))
    if overlap:
        raise ConfigError(f"final.seeds in the {origin} must be fresh, and trials have seen {overlap}.")
    runs = {}
    for method in found.methods:
        for trial, point in enumerate(search.design[method]):
            job = search.job(method, trial, search.rungs[-1], found.seeds[0])
            runs[method] = job.run
            if not job.distils:
                continue
            if "total" not in point:
                raise ConfigError(
                    f"Method {method} of the {origin} listens to the teacher: its weights must be parts of $total, the "
                    "range that all such methods share."
                )
            weight = results.total_weight(job.run.objective)
            if weight is None or abs(weight - point["total"]) > 1e-6 * point["total"]:
                raise ConfigError(
                    f"The teacher's terms of method {method} in the {origin} weigh {weight} together where $total is "
                    f"{point['total']}: all of $total is to be divided among them, no more and no less."
                )
    plan.check_alike(runs, search.keys(), origin)
    plan.check_distinct(runs, origin)
