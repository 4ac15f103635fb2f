"""Whether the teachers of a comparison are any better than its students that have none."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from counterpoise import statistics, tasks
from counterpoise.engine.beside import MARGIN
from counterpoise.statistics import Unit
from counterpoise.studies import results
from counterpoise.studies.plan import Comparison
from counterpoise.studies.results import Row


def notes(comparison: Comparison, rows: Sequence[Row]) -> Iterator[str]:
    """A note for each method without a teacher that a teacher of its pair is hardly better than.

    That is one which leads its mean by less than two points, where the 95% interval of the lead over seeds or folds
    holds 0; of one run each, one that does not lead. By the headline of a task, of which more is better.
    """
    over = "folds" if comparison.plan.folds else "seeds"
    for pair in comparison.plan.pairs:
        own = [row for row in rows if row["pair"] == pair and row["status"] == "done"]
        if not own or comparison.metric != tasks.get(own[0]["task"]).headline:
            continue
        scores = _by_unit(own)
        for method in comparison.plan.methods:
            alone = results.by_seed((row for row in own if not row["teacher"]), pair, method)
            lead = statistics.paired(scores, alone, comparison.plan.folds or 0)
            known = not math.isnan(lead.low)
            if not lead.count or lead.mean >= MARGIN or (lead.low > 0 if known else lead.mean > 0):
                continue
            between = f" ({lead.low:+.2f} to {lead.high:+.2f}, 95%)" if known else ""
            yield (
                f"{pair}: the teacher is hardly better than {method}, which has none: its {comparison.metric} leads by "
                f"{lead.mean:+.2f}{between} on the val images, over {lead.count} {over}. There is little "
                "that such a teacher could teach: a better one would."
            )


def _by_unit(rows: Sequence[Row]) -> dict[Unit, float]:
    """The teacher's score of each seed, or fold and seed, where its runs tell one and the same."""
    found: dict[Unit, set[float]] = {}
    for row in rows:
        if row["teacher_metric"]:
            found.setdefault(results.unit(row), set()).add(float(row["teacher_metric"]))
    return {unit: max(scores) for unit, scores in found.items() if max(scores) - min(scores) < MARGIN / 10}
