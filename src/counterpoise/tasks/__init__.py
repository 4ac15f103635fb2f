"""Kinds of task, one a file."""

from counterpoise.tasks.base import Picture, Report, Score, Share, Task, get

__all__ = ["Picture", "Report", "Score", "Share", "Task", "get"]
