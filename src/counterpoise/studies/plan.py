"""The compare file: which methods are trained, on which pairs, over which seeds, and what is claimed of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from counterpoise import config
from counterpoise.config.keys import flatten
from counterpoise.config.section import Folder
from counterpoise.config.validation_errors import validated
from counterpoise.errors import ConfigError, CounterpoiseError, UnfitFileError, nearest, unknown
from counterpoise.objectives.base import needs_teacher
from counterpoise.system import own_code
from counterpoise.system.files import expanded

ONLY_PAIR = "all"
SHARE_HELD_OUT = 0.1
Values = dict[str, Any] | str
"""Values of a run file, or the path of one, beside the file that names it."""


MOST_SEEDS = 10_000
"""Of one comparison."""


def check_seeds(seeds: list[int]) -> list[int]:
    """Raises ValueError where there is none, or one twice."""
    if not seeds:
        raise ValueError("needs at least one seed")
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"names a seed twice: {seeds}")
    if not all(0 <= seed < 2**63 for seed in seeds):
        raise ValueError(f"seeds are 0 or more, got {seeds}")
    return seeds


def _folders(named: dict[str, Any]) -> dict[str, Any]:
    """Raises ValueError unless each name can be that of a folder, and there is one."""
    if not named:
        raise ValueError("needs at least one entry")
    for name in named:
        if re.fullmatch(r"[A-Za-z0-9_][\w.+-]*", name, re.ASCII) is None:
            raise ValueError(f"names become folders: letters, digits and _ . + - only, got {name!r}")
    return named


def counted(seeds: Any) -> Any:
    """5 as 0, 1, 2, 3, 4. Raises ValueError for more than anybody runs, which would fill the memory."""
    if not isinstance(seeds, int) or isinstance(seeds, bool):
        return seeds
    if seeds > MOST_SEEDS:
        raise ValueError(f"at most {MOST_SEEDS:,} seeds")
    return list(range(seeds))


Seeds = Annotated[list[int], BeforeValidator(counted), AfterValidator(check_seeds)]
FoldersByName = AfterValidator(_folders)


class CompareFile(config.Section):
    """A compare file."""

    out: Folder = Field(description="folder of the runs and of the tables")
    run: Values = Field(default_factory=dict, description="what all runs have in common")
    pairs: Annotated[dict[str, Values], FoldersByName] = Field(
        {ONLY_PAIR: {}}, description="teacher, student and whatever goes with them, by name"
    )
    methods: Annotated[dict[str, Values], FoldersByName] = Field(description="what each method has of its own, by name")
    seeds: Seeds = Field(
        5,
        validate_default=True,
        description="how many, counted from 0, or a list; default: 5, or 1 where there are folds",
    )
    folds: int | None = Field(
        None, ge=2, le=1000, description="how many folds of the training images are held out in turn"
    )
    baseline: str = Field(description="the method that others are compared with")
    primary: str | None = Field(None, description="the one method whose difference is the claim; others are corrected")
    primary_pair: str | None = Field(None, description="the pair of that claim; default: the first")
    differs: list[str] = Field(default_factory=list, description="keys, beside objective, in which methods may differ")
    metric: str | None = Field(None, description="default: the headline of the task")

    @model_validator(mode="before")
    @classmethod
    def _a_seed_a_fold(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("folds") is not None and "seeds" not in values:
            return {**values, "seeds": 1}
        return values


@dataclass(frozen=True)
class TrainingJob:
    """One run: a cell of a table and its seed.

    Attributes:
        cell: the names that lead to it, such as (pair, method).
        run: complete; `run.out` is its folder.
        distils: whether a term listens to the teacher.
    """

    cell: tuple[str, ...]
    run: config.Run
    distils: bool

    @property
    def name(self) -> str:
        """What a person calls it."""
        fold = f", fold {self.run.data.fold}" if self.run.data.fold else ""
        return f"{'/'.join(self.cell)}, seed {self.run.seed}{fold}"

    @property
    def folder(self) -> Path:
        """Of its run."""
        assert self.run.out is not None
        return self.run.out


@dataclass(frozen=True)
class Comparison:
    """A compare file, checked: every run that it asks for, all methods on seed after seed."""

    plan: CompareFile
    metric: str
    jobs: tuple[TrainingJob, ...]

    @property
    def primary(self) -> tuple[str, str] | None:
        """Pair and method of the claim."""
        plan = self.plan
        return None if plan.primary is None else (plan.primary_pair or next(iter(plan.pairs)), plan.primary)


def read(path: Path, out: Path | None = None) -> Comparison:
    """A compare file as the runs it asks for; `out` instead of the file's.

    Raises ConfigError for whatever is wrong with it, or where methods differ in more than is compared.
    """
    values = config.read(path)
    if out is not None:
        values = {**values, "out": out}
    return resolve(values, f"compare file {path}", path.parent)


def resolve(values: Mapping[str, Any], origin: str, beside: Path) -> Comparison:
    """The same from its values; run files in it are looked for in the folder `beside`."""
    plan = validated(CompareFile, values, origin)
    for key, name, choices in (
        ("baseline", plan.baseline, plan.methods),
        ("primary", plan.primary, plan.methods),
        ("primary_pair", plan.primary_pair, plan.pairs),
    ):
        if name is not None and name not in choices:
            raise ConfigError(f"{key} in the {origin}: {unknown('Pair' if 'pair' in key else 'Method', name, choices)}")
    if plan.primary == plan.baseline:
        raise ConfigError(f"primary in the {origin} is the baseline itself, '{plan.baseline}': name another method.")
    common = given(plan.run, beside)
    pairs = {name: config.merge(common, given(own, beside)) for name, own in plan.pairs.items()}
    methods = {name: given(own, beside) for name, own in plan.methods.items()}
    cells = {
        (pair, method): complete(config.merge(base, own), f"run {pair}/{method} of the {origin}")
        for pair, base in pairs.items()
        for method, own in methods.items()
    }
    check_one_task({"/".join(cell): run for cell, (run, _) in cells.items()}, origin)
    for pair in pairs:
        runs = {method: cells[pair, method][0] for method in methods}
        check_alike(runs, plan.differs, origin)
        check_distinct(runs, origin)
    metric = metric_of(next(iter(cells.values()))[0], plan.metric, origin)
    cells = {cell: (telling(run, metric), distils) for cell, (run, distils) in cells.items()}
    folds = [None] if plan.folds is None else [f"{number}/{plan.folds}" for number in range(1, plan.folds + 1)]
    jobs = tuple(
        TrainingJob(cell, _in_fold(run, plan.out / "runs" / cell[0] / cell[1], seed, fold, origin), distils)
        for seed in plan.seeds
        for fold in folds
        for cell, (run, distils) in cells.items()
    )
    return Comparison(plan, metric, jobs)


def check_one_task(runs: Mapping[str, config.Run], origin: str) -> None:
    """Raises ConfigError where runs are of several tasks: no metric compares them."""
    first, *others = runs
    for name in others:
        if runs[name].task != runs[first].task:
            raise ConfigError(
                f"The {origin} has runs of several tasks: {runs[first].task} ({first}) and {runs[name].task} ({name}). "
                "No metric compares them: write a compare file for each task."
            )


def check_distinct(runs: Mapping[str, config.Run], origin: str) -> None:
    """Raises ConfigError where two methods are one and the same."""
    asked: dict[str, str] = {}
    for method, run in runs.items():
        if (same := asked.setdefault(run.model_dump_json(exclude={"out"}), method)) != method:
            raise ConfigError(
                f"Methods '{same}' and '{method}' of the {origin} are the same run. What a method names is laid over "
                "what `run` has: terms of the objective of `run` are those of all methods."
            )


def given(values: Values, beside: Path) -> dict[str, Any]:
    """The values themselves, laid over their `base` where they name one, or those of the run file that is named."""
    if isinstance(values, str):
        if "\0" in values:
            raise ConfigError(f"{values!r:.80} has a null character, which no name of a file can have.")
        try:
            return config.read(beside / expanded(Path(values)))
        except UnfitFileError as error:
            raise ConfigError(f"{error}.") from None
    return config.over_base(values, beside, "run, a pair or a method")


def complete(values: Mapping[str, Any], origin: str) -> tuple[config.Run, bool]:
    """A run, and whether a term of it listens to the teacher; one that does not loses its teacher.

    Raises ConfigError.
    """
    from counterpoise import tasks

    run = config.resolve(values, origin)
    own_code.name(run)
    try:
        distils = any(needs_teacher(term.objective or name) for name, term in run.objective.items())
        tasks.get(run.task).objective(run, None)
    except CounterpoiseError as error:
        raise ConfigError(f"The {origin}: {error}") from None
    if not distils:
        run = run.model_copy(update={"teacher": None})
    elif run.teacher is None:
        raise ConfigError(f"The {origin} has terms that listen to a teacher, and no teacher.")
    # As a run file, so that all keys count as given.
    return config.resolve(run.model_dump()), distils


def shortened(values: Mapping[str, Any], epochs: int) -> dict[str, Any]:
    """The values of a run of so many epochs instead: what its schedule has in epochs keeps its part of the run."""
    given = values.get("train") or {}
    schedule = given.get("schedule") or {}
    milestones, warmup = schedule.get("milestones") or (), schedule.get("warmup_epochs")
    whole = given.get("epochs", config.Train().epochs)
    shorter: dict[str, Any] = {}
    if epochs != whole and any(milestone >= 1 for milestone in milestones):
        shorter["milestones"] = [milestone / whole for milestone in milestones]
    if epochs != whole and warmup:
        shorter["warmup_epochs"] = warmup * epochs / whole
    return config.merge(values, {"train": {"epochs": epochs, **({"schedule": shorter} if shorter else {})}})


def held_out(run: config.Run, val_images: int | None) -> int:
    """How many training images are held out to choose by: as many as asked for, else a tenth.

    Raises ConfigError unless some are held out and some are left.
    """
    from counterpoise.data import sources

    images = len(sources.load(run.data).train)
    found = val_images if val_images is not None else max(1, round(SHARE_HELD_OUT * images))
    if not 1 <= found < images:
        raise ConfigError(f"val_images must be 1 or more, and fewer than the {images} training images, got {found}.")
    return found


def held_out_instead(run: config.Run, count: int) -> Iterator[str]:
    """What is said where the run file holds out training images itself, which `count` others take the place of."""
    if run.data.held_out not in (0, count):
        yield (
            f"data.held_out of the run file is {run.data.held_out}: to choose by, {count} training images are held out "
            "instead, and those of the run file may be among them or be trained on."
        )


def placed(run: config.Run, folder: Path, seed: int) -> config.Run:
    """The run with this seed, in this folder."""
    return run.model_copy(update={"out": folder, "seed": seed})


def _in_fold(run: config.Run, folder: Path, seed: int, fold: str | None, origin: str) -> config.Run:
    """The run with this seed and this fold, in a folder of its own."""
    if fold is None:
        return placed(run, folder / f"seed-{seed}", seed)
    if run.data.fold is not None:
        raise ConfigError(f"The {origin} asks for folds, and so does data.fold of its runs: leave out one.")
    if run.data.held_out:
        raise ConfigError(
            f"The {origin} asks for folds, and data.held_out of its runs holds out {run.data.held_out} training images "
            "instead, so that no fold would be scored: leave out one."
        )
    run = run.model_copy(update={"data": run.data.model_copy(update={"fold": fold})})
    return placed(run, folder / f"seed-{seed}-fold-{fold.replace('/', '-of-')}", seed)


def metric_of(run: config.Run, wanted: str | None, origin: str, largest: bool = False) -> str:
    """The metric that is compared: as wanted, else the headline of the task.

    Raises ConfigError where the task has no such metric or, with `largest`, where the best of it is not the largest.
    """
    from counterpoise import tasks

    task = tasks.get(run.task)
    if wanted is None:
        return task.headline
    try:
        task.check_metric(wanted)
    except ConfigError as error:
        raise ConfigError(f"metric in the {origin}: {error}") from None
    if largest and task.less_is_better(wanted):
        known = [name for name in task.metrics if not task.less_is_better(name)]
        raise ConfigError(
            f"metric in the {origin}: {unknown(f'Metric of {run.task}', wanted, known)} A search keeps what is largest."
        )
    return wanted


def telling(run: config.Run, metric: str) -> config.Run:
    """The run with this metric among those that it tells."""
    from counterpoise import tasks

    if metric in (*tasks.get(run.task).metrics, *run.train.scores):
        return run
    return run.model_copy(update={"train": run.train.model_copy(update={"scores": (*run.train.scores, metric)})})


def check_alike(runs: Mapping[str, config.Run], allowed: Sequence[str], origin: str) -> None:
    """Raises ConfigError where methods differ in other keys than `allowed` ones and the objective."""
    flat = {method: flatten(run) for method, run in runs.items()}
    every = sorted(set().union(*flat.values()))
    known = {".".join(key.split(".")[:depth]) for key in every for depth in range(1, key.count(".") + 2)}
    for key in allowed:
        if key not in known:
            raise ConfigError(f"differs in the {origin}: no run has a key '{key}'.{nearest(key, known)}")
    lines = []
    for key in every:
        section = key.partition(".")[0]
        if section in {"objective", "out", "seed"} or any(f"{key}.".startswith(f"{other}.") for other in allowed):
            continue
        # A method without a teacher has none of its keys.
        values = {
            method: keys.get(key)
            for method, keys in flat.items()
            if section != "teacher" or runs[method].teacher is not None
        }
        if len({repr(value) for value in values.values()}) > 1:
            lines.append(f"  {key}: " + ", ".join(f"{value!r} ({method})" for method, value in values.items()))
    if lines:
        raise ConfigError(
            f"The methods of the {origin} differ in more than what is compared:\n"
            + "\n".join(lines)
            + "\nMake them equal, or name these keys under 'differs'."
        )
