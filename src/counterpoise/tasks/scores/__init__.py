"""Scores of masks by picture and by case, one kind a file."""

from counterpoise.tasks.scores.base import KINDS, Kind, Seen, all_scores

__all__ = ["KINDS", "Kind", "Seen", "all_scores"]
