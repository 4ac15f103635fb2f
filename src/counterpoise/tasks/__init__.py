"""Kinds of task, one a file."""

from counterpoise.tasks.base import TASKS, Picture, Report, Score, Share, Task, Verdict, get

__all__ = ["TASKS", "Picture", "Report", "Score", "Share", "Task", "Verdict", "get"]
