"""Which terms of an objective fit a task whose classes are questions of their own."""

from __future__ import annotations

from counterpoise.errors import ConfigError
from counterpoise.objectives.base import Objective
from counterpoise.objectives.class_weighted import ClassWeighted
from counterpoise.objectives.regions import RegionObjective
from counterpoise.objectives.wrappers import Wrapper


def check_term(name: str, term: Objective, task: str, labels: tuple[type[Objective], ...], maps: bool = False) -> None:
    """Raises ConfigError for a term that takes the classes for alternatives, of which there is one.

    Args:
        labels: kinds of terms on labels that fit, where they answer by sigmoids.
        maps: whether terms that compare the positions of each class's map fit, too.
    """
    inner = term
    while isinstance(inner, Wrapper) and not isinstance(inner, ClassWeighted):
        inner = inner.host
    own = not type(inner).__module__.startswith("counterpoise.")  # of which nothing is known
    if own or ("labels" not in inner.needs and {"features", *(["maps"] if maps else [])} & inner.needs):
        return
    if inner.sigmoid and (isinstance(inner, labels) or "labels" not in inner.needs):
        return
    if maps and isinstance(inner, RegionObjective) and not inner.sigmoid:
        raise ConfigError(
            f"objective.{name}: sigmoid: false takes the classes for alternatives, of which a pixel has one, and in "
            f"task {task} each is a question of its own: leave sigmoid out, it is true here."
        )
    instead = "binary_cross_entropy (its pos_weight makes rare labels count)"
    instead += ", dice, focal or lovasz_hinge" if maps else ""
    if "teacher" in inner.needs:
        instead = "binary_balance (with reverse_weight 0 it is plain distillation)"
    what, each = ("pixel", "class") if maps else ("picture", "label")
    raise ConfigError(
        f"objective.{name}: it takes the classes for alternatives, of which a {what} has one, and in task {task} "
        f"each {each} is a question of its own. Instead: {instead}."
    )
