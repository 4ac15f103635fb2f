"""Runs that stop once they get no better."""

from __future__ import annotations

from counterpoise import config
from counterpoise.engine.state import Progress


def stopped_early(run: config.Run, progress: Progress, steps_per_epoch: int) -> str:
    """What is to be said of a run that has ended before all of its epochs; empty where it has not.

    It ends once as many evaluations as `train.patience` have found nothing better than the best.
    """
    train, best = run.train, progress.best.get("epoch")
    if train.patience is None or best is None:
        return ""
    since = progress.last.get("epoch", 0.0) - best
    done = progress.step // steps_per_epoch
    if done == train.epochs or since < train.patience * train.evaluate_every:
        return ""
    return (
        f"Stopped after epoch {done} of {train.epochs}: the val images found none better than epoch {best} "
        f"(train.patience {train.patience})"
    )
