"""Kinds of task, one a file."""

from counterpoise.tasks.base import (
    AGREEMENT,
    AGREEMENT_ALONE,
    TASKS,
    Picture,
    Probabilities,
    Report,
    Score,
    Share,
    Task,
    Verdict,
    get,
    leading,
)

__all__ = [
    "AGREEMENT",
    "AGREEMENT_ALONE",
    "TASKS",
    "Picture",
    "Probabilities",
    "Report",
    "Score",
    "Share",
    "Task",
    "Verdict",
    "get",
    "leading",
]
