"""Kinds of task, one a file."""

from counterpoise.tasks.base import Evaluation, Picture, Report, Score, Share, Task, get

__all__ = ["Evaluation", "Picture", "Report", "Score", "Share", "Task", "get"]
