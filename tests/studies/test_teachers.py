"""Teachers that are hardly better than students without one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from counterpoise.studies import teachers


def rows(teacher: dict[int, float], alone: dict[int, float], folds: bool = False) -> list[dict[str, str]]:
    """Of one pair, a method without a teacher and one with."""
    common = {"pair": "all", "status": "done", "task": "classification"}
    found = []
    for unit in alone:
        seed = {"seed": "0", "fold": f"{unit}/5"} if folds else {"seed": str(unit), "fold": ""}
        own = {"method": "alone", "teacher": "", "teacher_metric": "", "last": str(alone[unit])}
        taught = {"method": "kd", "teacher": "runs/t", "teacher_metric": str(teacher[unit]), "last": "99"}
        found += [{**common, **seed, **own}, {**common, **seed, **taught}]
    return found


def comparison(metric: str = "top1", folds: int | None = None) -> Any:
    return SimpleNamespace(metric=metric, plan=SimpleNamespace(pairs=["all"], methods=["alone", "kd"], folds=folds))


@pytest.mark.parametrize(
    ("teacher", "alone", "said"),
    [
        (80.0, [70.0, 71.0, 72.0], ""),
        (72.5, [70.0, 71.0, 75.0], "leads by +0.50 (-6.07 to +7.07, 95%) on the val images, over 3 seeds"),
        (72.0, [71.0, 71.1, 71.2], ""),  # little, and told apart
        (71.0, [75.0, 75.1, 75.2], "leads by -4.10 (-4.35 to -3.85, 95%)"),
        (71.0, [70.5], ""),
        (71.0, [71.5], "leads by -0.50 on the val images, over 1 seeds"),
    ],
)
def test_it_is_said_of_one_that_does_not_lead_by_more_than_seeds_spread(
    teacher: float, alone: list[float], said: str
) -> None:
    given = rows(dict.fromkeys(range(3), teacher), dict(enumerate(alone)))
    notes = list(teachers.notes(cast("Any", comparison()), given))
    assert len(notes) == bool(said)
    assert all(said in note and "all: the teacher is hardly better than alone" in note for note in notes)
    assert not list(teachers.notes(comparison("top5"), given))  # of which nobody says that more is better


def test_of_folds_each_has_the_teachers_score_of_its_own() -> None:
    given = rows({1: 70.0, 2: 80.0}, {1: 69.0, 2: 81.0}, folds=True)
    (note,) = teachers.notes(comparison(folds=5), given)
    assert "over 2 folds" in note
    differing = [{**row, "teacher_metric": row["teacher_metric"] and str(index)} for index, row in enumerate(given)]
    assert not list(teachers.notes(comparison(folds=5), [*given, *differing]))
