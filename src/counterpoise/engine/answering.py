"""Whether a network answers what a task asks, and its weights were trained to answer so."""

from __future__ import annotations

from counterpoise import tasks
from counterpoise.errors import ConfigError
from counterpoise.models import catalog
from counterpoise.models.classmap import ClassSelection
from counterpoise.models.network import VisionModel
from counterpoise.models.prompts.network import by_prompts


def answer_for(task: tasks.Task, model: VisionModel, imitated: bool = False) -> None:
    """Have a network answer for a task.

    Raises:
        ConfigError: it cannot; or, where it is imitated, its weights were trained to answer otherwise.
    """
    if catalog.is_code(model.name) or model.task == task.network:  # one's own says nothing of its task
        model.task = task.name
    if model.task != task.name:
        raise ConfigError(
            f"{model.name} is a network for {model.task}, and the run is for {task.name} (set task: {model.task})."
        )
    trained = tasks.TASKS.entries().get(model.trained_for or "")
    if imitated and trained is not None and trained.sigmoid != task.sigmoid:
        raise ConfigError(
            f"The teacher {model.name} was trained for {trained.name}, and the run is for {task.name}: one label a "
            "picture is answered by a softmax, several by a sigmoid each, so that its logits mean something else."
        )
    if imitated and task.sigmoid and any(isinstance(one, ClassSelection) and one.joins for one in model.modules()):
        raise ConfigError(
            "teacher.classes takes several of the teacher's classes as one, which adds up the shares of a softmax. Of "
            "several labels a picture give one of the teacher's for each."
        )
    if imitated and task.sigmoid and by_prompts(model) is not None:
        raise ConfigError(
            "teacher.prompts compares the prompts with one another, by a softmax, and of several labels a picture each "
            "is a question of its own: give a teacher that was trained on them, or set task: classification."
        )
    if imitated and task.sigmoid and model.outputs == "probabilities":
        raise ConfigError(
            "teacher.outputs: probabilities is for those of a softmax, whose logarithm is taken. For several labels "
            "a picture the teacher must answer logits: leave the sigmoid out of its network."
        )
