"""Which scores a run is judged by, looked at before its first step."""

from __future__ import annotations

from counterpoise import config, tasks
from counterpoise.data.sources.base import ImageSet
from counterpoise.errors import ConfigError
from counterpoise.models.network import VisionModel


def check(run: config.Run, task: tasks.Task, student: VisionModel, val: ImageSet) -> None:
    """Raises ConfigError for scores that these images do not have, or a best epoch by one that is not told."""
    train = run.train
    try:
        task.score_on(student, val, train.scores)
    except ConfigError as error:
        raise ConfigError(f"train.scores: {error}") from None
    if train.best_by is not None and train.best_by not in (*task.metrics, *train.scores):
        raise ConfigError(
            f"train.best_by: {train.best_by} is not told at evaluations: it is one of {', '.join(task.metrics)}, or of "
            "train.scores."
        )
