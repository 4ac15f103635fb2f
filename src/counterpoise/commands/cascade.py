"""`counterpoise cascade`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from counterpoise.commands import flags
from counterpoise.commands.flags import EACH
from counterpoise.engine.options import Cascaded


def cascade(
    student: Path,
    teacher: Path,
    /,
    *,
    options: Annotated[Cascaded | None, EACH] = None,
    measure: bool = True,
    seconds: float = 0.2,
    json: bool = False,
) -> None:
    """See how many pictures a student may answer by itself, with its teacher for the others and nothing lost.

    On one half of labeled pictures the threshold is chosen, on the other it is tried. Latency is measured, of both on
    this machine, on one thread.

    Args:
        student: student folder, or a run's folder
        teacher: the same, of what answers the others
        measure: measure latency and, where the machine tells, energy
        seconds: of calls in a turn, where it is measured
        json: print what was found as JSON
    """
    from counterpoise.engine import cascades

    found = cascades.cascade(student, teacher, **flags.given(options))
    if measure:
        from counterpoise.deploy.measuring.measure import measure as measuring

        cases = [row["cases"][0] for row in measuring([student, teacher], threads=(1,), seconds=seconds)["measured"]]
        for name, key in (("milliseconds", "median_ms"), ("millijoules", "millijoules")):
            found[name] = dict(zip(("student", "teacher"), (case[key] for case in cases), strict=True))
    flags.show(found, json, lambda: _lines(found))


def _lines(found: dict[str, Any]) -> list[str]:
    chosen, told_on = found["chosen"], found["told_on"]
    lines = [
        f"top-1 of {told_on:,} pictures: student {found['student_top1']:.2f}, teacher {found['teacher_top1']:.2f}",
        "answered by the student   top-1   minus teacher (95% interval)",
    ]
    for row in found["table"]:
        lines.append(f"{row['share']:>23.1%}   {row['top1']:5.2f}   {_beside(row)}")
    if found["groups"] is not None:
        lines.append(
            f"Pictures of one group err together: intervals are over groups, {found['groups']:,} in both halves."
        )
    lines += found["notes"]
    if any(map(_few, found["table"])):
        lines.append(
            "*: so few differ from the teacher alone that the interval is from the most that is lost to the most that "
            "is gained, by exact bounds (Clopper and Pearson); other intervals are Student's t, paired."
        )
    if chosen is None:
        return [*lines, "No threshold keeps the teacher's top-1 on the first half: give points away with --give."]
    lines.append(
        f"Chosen on the other {found['pictures'] - told_on:,}: the student answers where its largest probability is at "
        f"least {chosen['threshold']:.4f}, with logits divided by {found['temperature']:.3f}. That is "
        f"{chosen['share']:.1%}, and {_beside(chosen)} points beside the teacher alone."
    )
    for unit, word in (("milliseconds", "ms"), ("millijoules", "mJ")):
        cost = found.get(unit, {})
        if cost and None not in cost.values():
            both = cost["student"] + (1 - chosen["share"]) * cost["teacher"]
            lines.append(
                f"A picture takes {both:.2f} {word} on average instead of {cost['teacher']:.2f}: "
                f"{1 - both / cost['teacher']:.0%} less (student {cost['student']:.2f})."
            )
    return lines


def _beside(row: dict[str, Any]) -> str:
    return f"{row['difference']:+.2f} ({row['low']:+.2f} to {row['high']:+.2f}){'*' * _few(row)}"


def _few(row: dict[str, Any]) -> bool:
    """Whether few differ; where the teacher answers all, none can."""
    return bool(row["interval"] == "exact" and row["threshold"] < float("inf"))
