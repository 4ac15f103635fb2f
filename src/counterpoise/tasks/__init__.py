"""Kinds of task, one a file."""

from counterpoise.tasks.base import Report, Score, Task, get

__all__ = ["Report", "Score", "Task", "get"]
