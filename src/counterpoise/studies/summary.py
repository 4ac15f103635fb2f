"""What a comparison found, as plain values: a row a method, and each pair of methods beside one another."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from counterpoise import statistics
from counterpoise.studies import by_case, results, running, teachers
from counterpoise.studies.plan import Comparison
from counterpoise.studies.results import Row
from counterpoise.studies.standing import Present


@dataclass(frozen=True)
class Report:
    """The tables of a comparison, as rows.

    Attributes:
        asked: the rows of the runs that they sum up.
        over: what means are over: seeds, or 5 folds.
    """

    table: list[dict[str, Any]]
    differences: list[dict[str, Any]]
    metric: str
    notes: list[str]
    asked: list[Row]
    over: str = "seeds"


def summarize(comparison: Comparison, rows: Sequence[Row], pool: bool, present: Present) -> Report:
    """Tables of the rows that the compare file asks for; each origin apart, unless they are pooled."""
    asked = results.asked_for(rows, comparison.jobs, comparison.metric, present)
    if comparison.plan.folds is None:  # one fold of all runs, data.fold, is their data: seeds are what is counted
        asked = [{**row, "fold": ""} for row in asked]
    found = results.origins(asked)
    groups = (
        {"": results.once(asked)}
        if pool or len(found) < 2
        else {key: [r for r in asked if r["origin"] == key] for key in found}
    )
    table: list[dict[str, Any]] = []
    differences: list[dict[str, Any]] = []
    for key, group in groups.items():
        name = key or "+".join(found)
        table += [{**cell, "origin": name} for cell in _cells(comparison, group) if not key or cell["n"]]
        differences += [{**line, "origin": name} for line in _differences(comparison, group) if not key or line["n"]]
    notes = []
    if len(found) > 1:
        words = "\n".join(f"  {key}: {origin}" for key, origin in found.items())
        head = f"Runs of {len(found)} origins are pooled, as asked"
        if not pool:
            head = f"Runs are of {len(found)} origins, which are kept apart (--pool mixes them)"
        notes.append(f"{head}:\n{words}")
    if len({row["data"] for row in asked if row["data"]}) > len(comparison.plan.pairs) * (comparison.plan.folds or 1):
        notes.append("Runs of one pair were trained on different data: see the column 'data' of results.csv.")
    notes += [*_of_seeds(table), *_diverged(comparison)]
    notes += [note for group in groups.values() for note in teachers.notes(comparison, group)]
    notes += [by_case.NOTE] if any(line["over"] for line in differences) else []
    if untold := sum(row["status"] == "done" and not row["last"] for row in asked):
        notes.append(
            f"{untold} runs tell no {comparison.metric}: they were trained before it was asked for, or their data give "
            "none. Runs whose folders are moved away are trained anew."
        )
    other = len(rows) - len(asked)
    if other:
        notes.append(
            f"results.csv holds {other} runs that this compare file does not ask for, as its data and teacher are now; "
            "no table counts them."
        )
    metric = results.named(comparison.jobs, comparison.metric)
    folds = comparison.plan.folds
    return Report(table, differences, metric, notes, asked, f"{folds} folds" if folds else "seeds")


def _of_seeds(table: Sequence[dict[str, Any]]) -> Iterator[str]:
    """How far seeds spread, beside the spread over folds, where each fold has several."""
    spreads = [
        f"{row['pair']}/{row['method']} {row['last_std_seeds']:.2f}"
        for row in table
        if row["last_std_seeds"] is not None
    ]
    if spreads:
        yield (
            "Each fold is the mean over its seeds. Within a fold seeds have a standard deviation, pooled over folds, "
            f"of: {', '.join(spreads)}."
        )


def _diverged(comparison: Comparison) -> Iterator[str]:
    """Why runs diverged, as `distill` says it, where their folders are here; the same reason once."""
    reasons: dict[str, list[str]] = {}
    for job in comparison.jobs:
        why = running.note(job.folder)["diverged"]
        if why:
            reasons.setdefault(str(why), []).append(job.name)
    for why, runs in reasons.items():
        yield f"{'; '.join(runs)} diverged. {why}"


def _cells(comparison: Comparison, rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    for pair in comparison.plan.pairs:
        for method in comparison.plan.methods:
            own = [row for row in rows if row["pair"] == pair and row["method"] == method]
            last, best = (statistics.by_fold(results.by_seed(own, pair, method, when)) for when in ("last", "best"))
            means = {
                f"{when}_{name}": value
                for when, values in (("last", last), ("best", best))
                for name, value in zip(("mean", "std"), results.spread(values), strict=True)
            }
            yield {
                "pair": pair,
                "method": method,
                "n": len(last),
                "diverged": sum(row["status"] == "diverged" for row in own),
                **means,
                "last_std_seeds": statistics.over_seeds(results.by_seed(own, pair, method)),
                "params": next((row["params"] for row in own if row["params"]), ""),
                "seconds": results.spread(float(row["seconds"]) for row in own if row["seconds"])[0],
            }


def _differences(comparison: Comparison, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The claim as it is; all others of the file are corrected together, whether they are in yet or not."""
    plan = comparison.plan
    cells = [(pair, method) for pair in plan.pairs for method in plan.methods if method != plan.baseline]
    found = {
        (pair, method): statistics.paired(
            results.by_seed(rows, pair, method), results.by_seed(rows, pair, plan.baseline), plan.folds or 0
        )
        for pair, method in cells
    }
    over_cases = by_case.differences(comparison, rows, [cell for cell in cells if found[cell].count == 1])
    found |= over_cases
    others = [cell for cell in cells if cell != comparison.primary]
    corrected = dict(zip(others, statistics.holm([found[cell].p for cell in others]), strict=True))
    lines = []
    for cell in sorted(cells, key=lambda cell: cell != comparison.primary):
        difference = found[cell]
        primary, over = cell == comparison.primary, "cases" if cell in over_cases else ""
        units = over or ("folds" if plan.folds else "seeds")
        p = difference.p if primary else corrected[cell]
        numbers = {"difference": difference.mean, "low": difference.low, "high": difference.high, "p": difference.p}
        numbers["p_corrected"] = p
        lines.append(
            {
                "pair": cell[0],
                "method": cell[1],
                "baseline": plan.baseline,
                "primary": "yes" if primary else "no",
                "n": difference.count,
                **{
                    name: None if math.isnan(number) else number
                    for name, number in {**numbers, "p_corrected": p}.items()
                },
                "correction": "none" if primary else f"Holm, {len(others)}",
                "verdict": statistics.verdict(difference, p, units) + (", over cases of one seed" if over else ""),
                "over": over,
            }
        )
    return lines
