"""Curves of a run in the tools that people keep them in, each through its own client; metrics.jsonl has them all."""

from __future__ import annotations

import importlib.util
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from counterpoise import config
from counterpoise.config.keys import flatten
from counterpoise.errors import MissingExtraError, first_line
from counterpoise.system import documents
from counterpoise.system.files import write_text

if TYPE_CHECKING:
    from counterpoise.engine.run_folder import RunFolder

GROUPS = ("terms", "moving", "val", "gauge")
"""Of a line of metrics.jsonl, what is a curve."""
KNOWN = "trackers.json"
"""In the run folder: what the run is called there, so that one that goes on is still the same one."""


class Tracker(Protocol):
    """Where curves are kept."""

    def add(self, values: Mapping[str, float], step: int) -> None:
        """Keep these values, by name, of a step."""

    def close(self, whole: bool) -> None:
        """End it; `whole`: whether the run has come to its end."""


class TensorBoard:
    """Event files in the run folder."""

    needs = "tensorboard"

    def __init__(self, run: config.Run, folder: RunFolder, step: int, known: str | None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.known = None
        self.writer: Any = SummaryWriter(
            str(folder.path / "tensorboard"), purge_step=step + 1
        )  # drops that step and all after it

    def add(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def close(self, whole: bool) -> None:
        self.writer.close()


class WeightsAndBiases:
    """A run of Weights & Biases; project, entity and offline mode by its own variables, such as WANDB_PROJECT."""

    needs = "wandb"

    def __init__(self, run: config.Run, folder: RunFolder, step: int, known: str | None) -> None:
        import wandb

        self.run: Any = wandb.init(
            dir=str(folder.path.resolve()), name=folder.path.name, config=flatten(run), id=known, resume="allow"
        )
        self.known = str(self.run.id)
        self.run.define_metric(
            "*", step_metric="step"
        )  # its own count of steps must not go back, as a resumed run does

    def add(self, values: Mapping[str, float], step: int) -> None:
        self.run.log({**values, "step": step})

    def close(self, whole: bool) -> None:
        self.run.finish(exit_code=0 if whole else 1)


class MLflow:
    """A run of MLflow; where and in which experiment by its own variables, such as MLFLOW_TRACKING_URI."""

    needs = "mlflow"

    def __init__(self, run: config.Run, folder: RunFolder, step: int, known: str | None) -> None:
        import mlflow

        self.client: Any = mlflow.MlflowClient()
        if known is None:
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "Default")
            found = self.client.get_experiment_by_name(name)
            experiment = self.client.create_experiment(name) if found is None else found.experiment_id
            known = str(self.client.create_run(experiment, run_name=folder.path.name).info.run_id)
            parameters = [mlflow.entities.Param(key, str(value)) for key, value in flatten(run).items()]
            for first in range(0, len(parameters), 100):  # as many as it takes at once
                self.client.log_batch(known, params=parameters[first : first + 100])
        else:
            self.client.update_run(known, status="RUNNING")
        self.known = known
        self.metric: Callable[..., Any] = mlflow.entities.Metric

    def add(self, values: Mapping[str, float], step: int) -> None:
        now = int(1000 * time.time())
        self.client.log_batch(self.known, metrics=[self.metric(k, v, now, step) for k, v in values.items()])

    def close(self, whole: bool) -> None:
        self.client.set_terminated(self.known, "FINISHED" if whole else "KILLED")


TRACKERS: dict[str, Any] = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases, "mlflow": MLflow}
"""By the option of `train` that asks for it."""


def require(run: config.Run) -> None:
    """Raises MissingExtraError where what is to keep curves is not installed."""
    for name, kind in _wanted(run).items():
        if importlib.util.find_spec(kind.needs) is None:
            raise MissingExtraError(f"train.{name}", name)


class Trackers:
    """All that a run asks for. One that fails is said, once, and left out from then on: the run goes on.

    Args:
        run: None asks for none, as all processes but the first do.
        step: that the run goes on from.
        say: takes a sentence.
    """

    def __init__(self, run: config.Run | None, folder: RunFolder, step: int, say: Callable[[str], None]) -> None:
        self.say = say
        self.open: dict[str, Tracker] = {}
        wanted = {} if run is None else _wanted(run)
        known = _known(folder.path) if wanted else {}
        for name, kind in wanted.items():
            try:
                tracker = kind(run, folder, step, known.get(name))
            except Exception as error:  # whatever a client finds wrong with its server or its settings
                self._leave(name, error)
                continue
            self.open[name] = tracker
            if tracker.known is not None:
                known[name] = tracker.known
        if known:
            write_text(folder.path / KNOWN, json.dumps(known) + "\n")

    def add(self, line: Mapping[str, Any]) -> None:
        """Keep the curves of a line of metrics.jsonl."""
        if "step" not in line:
            return
        values = {
            f"{line['kind']}/{name}": float(value) for group in GROUPS for name, value in line.get(group, {}).items()
        }
        self._each(lambda tracker: tracker.add(values, line["step"]))

    def __enter__(self) -> Trackers:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        """End them all, as those of a run that has come to its end, or has not."""
        self._each(lambda tracker: tracker.close(kind is None))
        self.open.clear()

    def _each(self, act: Callable[[Tracker], None]) -> None:
        for name, tracker in [*self.open.items()]:
            try:
                act(tracker)
            except Exception as error:
                del self.open[name]
                self._leave(name, error)

    def _leave(self, name: str, error: Exception) -> None:
        self.say(f"train.{name}: {first_line(error)}. It gets no more curves of this sitting; metrics.jsonl has them.")


def _wanted(run: config.Run) -> dict[str, Any]:
    return {name: kind for name, kind in TRACKERS.items() if getattr(run.train, name)}


def _known(folder: Path) -> dict[str, str]:
    try:
        found = documents.read_json(folder / KNOWN, within=folder)
    except (OSError, ValueError):
        return {}
    return (
        {str(key): value for key, value in found.items() if isinstance(value, str)} if isinstance(found, dict) else {}
    )
