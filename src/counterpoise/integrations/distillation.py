"""What a run file says, for a training loop that is not ours: student, batches, what the teacher says of them, loss."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from counterpoise.data.sources.base import Splits
from counterpoise.engine import inputs, learning
from counterpoise.engine.assemble import assemble, evaluation_loader, resolve_auto
from counterpoise.engine.evaluator import score_teacher, scored, values_of
from counterpoise.engine.export_student import origins
from counterpoise.engine.gauging import EvaluationGauge, gauge_of, said
from counterpoise.engine.inputs import RunLike
from counterpoise.engine.parts import Parts
from counterpoise.engine.processes import Processes, join
from counterpoise.engine.progress import say, tell
from counterpoise.engine.student import save_student
from counterpoise.errors import ConfigError, RunError
from counterpoise.integrations.batches import Batches, TaughtBatch
from counterpoise.integrations.wrappers import bare, channels_last, in_float32, require_same
from counterpoise.models.folder import DESCRIPTION
from counterpoise.models.network import VisionModel, logits_of
from counterpoise.objectives.base import Terms
from counterpoise.objectives.composite import WeightedSum
from counterpoise.objectives.logits import kind_of
from counterpoise.outputs import Outputs


class Distillation:
    """A run for a training loop of one's own, or of another tool.

        for pixels, batch in distillation.loader:
            loss = distillation.loss(network(pixels), batch)

    The same seed gives the same batches, views and losses as `counterpoise.distill`. Of the run file data, teacher,
    student, objective, seed, train.epochs, train.batch_size and train.drop_last count; optimizer, learning rate,
    precision, averages and checkpoints are those of the loop.

    Args:
        run: a run file's path, its values, or a resolved `Run`.
        student: the network to train. Where the run names one (student.model), it must be that one, and is shipped as
            such; its weights are taken as they are. Default: what the run names.
        teacher: a module to imitate instead of `teacher.model`, with its weights.
        data: `Splits(train, val)` instead of `data.path`.
        device: where the student is; default: train.device.
        show: what was found in the data, on stderr.
        steps: how many batches `teach` is given in all of training, where the loop has images of its own and something
            of the objective follows a schedule.
        epochs: how many the loop trains, where it goes through `loader`: compared with those of the run at once.

    Attributes:
        loader: the batches, see `Batches`.
        network: what is trained: it takes the loader's pixels, and returns logits or what holds them.
        student: the network with its normalization, as it will ship.

    Raises:
        CounterpoiseError: whatever is wrong with the run, the data, the models or the store.
        ConfigError: the objective has weights of its own or looks into the network: `counterpoise.distill` trains it;
            the loop trains more epochs than the run has.
    """

    def __init__(
        self,
        run: RunLike,
        *,
        student: nn.Module | None = None,
        teacher: nn.Module | None = None,
        data: Splits | None = None,
        device: torch.device | str | None = None,
        show: bool = False,
        steps: int | None = None,
        epochs: float | None = None,
    ) -> None:
        resolved = inputs.resolve(run)
        if not dist.is_initialized() and int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ConfigError("Several processes were started, and have not met: init_process_group comes first.")
        with join(resolved.train.device if device is None else str(device)) as processes:
            self.processes = processes
        order = resolved.train.channels_last
        resolved = resolve_auto(resolved, processes.device)
        student = None if student is None else bare(student)
        if order == "auto":  # as the script has it, and else as tools expect weights that they save
            innermost = student is not None and channels_last(student)
            train = resolved.train.model_copy(update={"channels_last": innermost})
            resolved = resolved.model_copy(update={"train": train})
        named = resolved.student.model is not None
        parts = assemble(resolved, processes, student=None if named else student, teacher=teacher, data=data)
        if named and student is not None:
            _take(parts, student, processes)
        _require_plain(parts)
        say(parts.found, show and processes.first)
        self.parts = parts
        self.student: VisionModel = parts.student
        self.network: nn.Module = parts.student.net
        self.loader = Batches(parts, processes)
        self._total = len(self.loader) * parts.run.train.epochs
        self._steps = None if steps is None else inputs.positive("steps", steps)
        self._moving = _moving(parts.objective)
        self._given = 0
        self._gauge: EvaluationGauge | None = None
        self._teacher: dict[str, float] = {}
        if epochs is not None:
            self.require_epochs(epochs, f"epochs={epochs}")

    def require_epochs(self, epochs: float, option: str) -> None:
        """Compare, before the first step, how many epochs a tool will train with how many the run has.

        Fewer are said: whoever trains on later wants them. `option`: what the tool calls them.

        Raises:
            ConfigError: they are more.
        """
        own = self.parts.run.train.epochs
        if epochs == own:
            return
        plan = f"{option} makes {epochs:.4g} epochs, and the run has {own} (train.epochs)"
        if epochs > own:
            raise ConfigError(
                f"{plan}: its schedules end there, and so may its store. Give both the same number of epochs."
            )
        if self.processes.first:
            tell([f"{plan}: training ends before the schedules of the objective do"])

    def terms(self, output: Any, batch: TaughtBatch) -> Terms:
        """The loss, and the named terms that it is made of.

        Args:
            output: what the network returned: logits [B, C], or what holds them as `logits`.
            batch: from the loader, or from `teach`.

        Raises:
            ConfigError: something else stands in the place of the batch.
        """
        if not isinstance(batch, TaughtBatch):
            raise ConfigError(
                f"The loss is given a {type(batch).__name__} where a batch of distillation.loader goes. Go through "
                "that loader, or let the teacher look at other images: distillation.teach(pixels, labels)."
            )
        objective = self.parts.objective
        objective.set_progress(min(batch.step / max(batch.steps - 1, 1), 1.0))
        if batch.indices is not None:
            objective.set_batch(batch.indices)
        together = self.processes.add if self.processes.world > 1 else None
        logits = Outputs(logits_of(output, self.student.name))
        terms: Terms = objective(logits, batch.teacher, batch.labels, together=together)
        return terms

    def loss(self, output: Any, batch: TaughtBatch) -> Tensor:
        """The loss alone, a scalar; see `terms`."""
        return self.terms(output, batch).total

    def teach(self, pixels: Tensor, labels: Tensor | Sequence[int]) -> TaughtBatch:
        """What the teacher itself says of images that are not the run's views, such as a tool's own augmentations.

        Schedules move on by a step a call, of the `steps` that were given.

        Args:
            pixels: float [B, channels, H, W], normalized as for the student.
            labels: int64 [B], or probabilities float [B, C].

        Raises:
            ConfigError: pixels of another kind; the teacher is a store, which knows the run's own views alone; or the
                objective follows a schedule, and no `steps` were given.
        """
        channels = self.student.channels
        fit = isinstance(pixels, Tensor) and pixels.ndim == 4 and pixels.shape[1] == channels
        if not (fit and pixels.is_floating_point()):
            raise ConfigError(
                f"Pixels go here as the student's network takes them, normalized floats [B, {channels}, H, W], got "
                f"{kind_of(pixels)}. distillation.student.normalize(images) makes them of uint8 in [0, 255], or of "
                "float32 in [0, 1]."
            )
        teacher = self.parts.teacher
        if teacher is None and "teacher" in self.parts.objective.needs:
            raise ConfigError(
                "These images are not the run's own views, and a store knows no others: go through "
                "distillation.loader, or give the teacher itself (teacher.checkpoint or teacher.pretrained)."
            )
        if self._steps is None and self._moving:
            raise ConfigError(
                f"The objective moves with training ({', '.join(self._moving)}), and these images are not of "
                "distillation.loader: nobody knows how many batches of them there will be. Give steps=, the batches of "
                "all epochs together, such as len(loader) * epochs."
            )
        if not isinstance(labels, Tensor):
            labels = torch.as_tensor(labels, device=pixels.device)
        said = None
        if teacher is not None:
            # A teacher has a normalization of its own, and takes pixels in [0, 1].
            said = teacher(torch.addcmul(self.student.mean, pixels.float(), self.student.std))
        self._given += 1
        return TaughtBatch(labels, None, said, self._given - 1, self._steps or self._total)

    def state_dict(self) -> dict[str, Any]:
        """What training has to go on with beside network and optimizer: the averages of an objective that has some,
        and how many batches `teach` was given."""
        return {"objective": self.parts.objective.state_dict(), "given": self._given}

    def load_state_dict(self, state: Mapping[str, Any] | None) -> None:
        """Go on where `state_dict` was taken. None: of a checkpoint without; what is then lost is said.

        Raises:
            RunError: it is the state of another run.
        """
        objective = self.parts.objective
        if state is None:
            if objective.state_dict():
                tell(["the checkpoint does not have the averages that the objective keeps: they begin anew"])
            return
        try:
            objective.load_state_dict(state["objective"])
            self._given = int(state["given"])
        except (LookupError, RuntimeError, TypeError) as error:
            raise RunError(f"The state of the distillation does not fit this run: {error}") from None

    def evaluate(self, network: nn.Module | None = None) -> dict[str, float]:
        """Scores on the val images, as `counterpoise.distill` has them after an epoch; and where there is a teacher
        that answers, the gauge of both, as `gauge/forward_kl` and so on.

        Args:
            network: with the weights to score, such as their moving average; default: the one that is trained.

        Raises:
            ModelError: the teacher answers as chance would.
        """
        parts, gauge = self.parts, self._asked()
        student = self._shipped(network)
        score = scored(
            student,
            parts.val,
            parts.task,
            self.processes,
            said(gauge),
            watch=None if gauge is None else gauge.compare,
            further=parts.run.train.scores,
        )
        told = {} if gauge is None else {f"gauge/{name}": value for name, value in gauge.values().items()}
        return {**values_of(score), **told}

    def save(
        self,
        path: str | Path,
        network: nn.Module | None = None,
        by: str = "a loop of its own",
        best: tuple[float, str | None] | None = None,
    ) -> Path:
        """Write the student folder, with its scores; an older student folder there is replaced.

        Args:
            path: the folder.
            network: as for `evaluate`.
            by: who trained it, for the student's card.
            best: where the weights are those of the best epoch: after how many epochs it was, and which score of the
                val images chose it (None: others chose). Default: they are the last.

        Returns:
            The folder. Of several processes the first writes it.

        Raises:
            RunError: something else is there.
        """
        path, parts = Path(path), self.parts
        if path.exists() and not (path / DESCRIPTION).is_file() and (not path.is_dir() or any(path.iterdir())):
            raise RunError(f"{path} is there, and is no student folder: give another place.")
        student, gauge = self._shipped(network), self._asked()
        score = scored(student, parts.val, parts.task, self.processes, said(gauge), further=parts.run.train.scores)
        chosen = score.thresholds()
        ships = "last" if best is None else "best"
        number = self.loader.given / len(self.loader) if best is None else best[0]
        number = int(number) if number == int(number) else round(number, 2)
        epoch = {"ships": ships, "number": number, "of": parts.run.train.epochs}
        if best is not None and best[1] is not None:
            epoch |= {"best": number, "by": best[1]}
        if self.processes.first:
            save_student(
                student,
                path,
                classes=parts.classes,
                metrics={ships: {**values_of(score), "epoch": number}, "teacher": self._teacher},
                provenance={**origins(parts, self._teacher), "epoch": epoch, "trained_by": by},
                thresholds=None if chosen is None else {ships: chosen},
            )
        self.processes.barrier()
        return path

    def close(self) -> None:
        """End the processes that read images, where there are some."""
        self.parts.train.close()

    def _shipped(self, network: nn.Module | None) -> VisionModel:
        """The student with the weights of `network`, or its own, in the form in which it is loaded again."""
        net = in_float32(self.network if network is None else bare(network))
        student = VisionModel(**{**self.student.settings(), "net": net}).to(self.processes.device)
        if network is not None:
            require_same(self.student, net)
        return student

    def _asked(self) -> EvaluationGauge | None:
        """The gauge, with the teacher's answers on the val images, which is scored when it is first asked."""
        parts, teacher = self.parts, self.parts.judge
        if teacher is None or self._gauge is not None:
            return self._gauge
        loader = evaluation_loader(parts.val.images, teacher.model, parts.run, self.processes)
        self._gauge = gauge_of(parts, self.processes)
        if parts.labeled and parts.teacher is not None:
            self._teacher, _ = score_teacher(parts, loader, self.processes, self._gauge.remember)
        else:
            self._gauge.ask(teacher, loader)
        return self._gauge


def _moving(objective: WeightedSum) -> list[str]:
    """What of an objective changes from the first step of training to the last, as `WeightedSum.moving` calls it."""
    ends = []
    for progress in (1.0, 0.0):
        objective.set_progress(progress)
        ends.append(objective.moving())
    return [name for name in ends[0] | ends[1] if ends[0].get(name) != ends[1].get(name)]


def _take(parts: Parts, network: nn.Module, processes: Processes) -> None:
    """Put a network that a script has made in the place of the one that the run names."""
    student, section = parts.student, parts.run.student
    if section.two_heads:
        raise ConfigError("student.two_heads is of a network that is built by name, and a module was handed in.")
    network = network.to(processes.device)
    require_same(student, network)
    student.net = network.to(memory_format=student.memory_format)  # type: ignore[call-overload]
    learning.freeze(student, section.freeze)


def _require_plain(parts: Parts) -> None:
    """Raises ConfigError where the objective needs more than logits, or weights that only our own loop trains."""
    objective = parts.objective
    own = sum(parameter.requires_grad for parameter in objective.parameters())
    if not (objective.student_features or own or parts.student.companions):
        return
    terms = [name for name in objective.terms if objective.objective(name).student_features]
    raise ConfigError(
        f"{', '.join(terms) or 'The objective'} looks at features of the student or has weights of its own, which a "
        "loop of another tool does not train: use counterpoise.distill, or an objective of logits."
    )
