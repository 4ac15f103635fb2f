"""What a run is made of, once it is put together."""

from __future__ import annotations

from dataclasses import dataclass

from counterpoise import config, tasks
from counterpoise.data.epochs import Batch, Epochs, InOrder
from counterpoise.data.summary import Found
from counterpoise.engine.ensembles import chosen_by
from counterpoise.models.network import VisionModel
from counterpoise.objectives.composite import WeightedSum
from counterpoise.outputs import Outputs
from counterpoise.teachers.live import LiveTeacher
from counterpoise.teachers.stored import LoaderTeacher, Read


@dataclass
class Parts:
    """What a run is made of.

    Attributes:
        run: with what its data decided.
        identity: of the data and of the teacher; see `engine.identify`.
        teacher_identity: of the network itself; empty where there is a store alone.
        beside: the teacher as a network where its answers come from a store and the val images have no labels.
        in_arrays: whether the source of the data holds them in memory by itself.
        fast: whether its steps are those of `engine.fast`.
        obstacle: what is in the way of these, where they were looked for.
        found: what the data is, and how it is shown.
    """

    run: config.Run
    classes: tuple[str, ...]
    task: tasks.Task
    student: VisionModel
    teacher: LiveTeacher | None
    objective: WeightedSum
    stored: LoaderTeacher | None
    train: Epochs
    val: InOrder
    identity: dict[str, str]
    teacher_identity: dict[str, str]
    labeled: bool
    in_arrays: bool
    found: Found
    fast: bool = False
    obstacle: str | None = None
    beside: LiveTeacher | None = None

    @property
    def judge(self) -> LiveTeacher | None:
        """The teacher whose answers are scored, and score a student of images without labels: None where nothing of
        the run looks at its answers, which may be those of no trained classifier."""
        return None if self.objective.of_teacher_features_alone else self.teacher or self.beside

    def ask_teacher(self, batch: Batch, recorded: Read | None) -> Outputs | None:
        """What the teacher says of a batch: as recorded, or live; None where there is none."""
        with chosen_by(self.teacher, batch.target):
            if self.stored is not None and recorded is not None:
                return self.stored.answer(batch.images, recorded)
            if self.teacher is not None:
                return self.teacher(batch.images, self.objective.teacher_features)
        return None
