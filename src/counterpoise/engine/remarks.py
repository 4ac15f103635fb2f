"""What is to be said, before a run starts, of its networks and of what judges the student."""

from __future__ import annotations

from collections.abc import Iterator

from counterpoise import config, tasks
from counterpoise.data import noticing
from counterpoise.data.class_weights import PRIOR, WEIGHT
from counterpoise.data.images import reading_specification
from counterpoise.data.sources.base import IGNORE, ImageSet, Splits
from counterpoise.models.network import VisionModel
from counterpoise.objectives.base import LogitObjective, needs_teacher
from counterpoise.objectives.composite import WeightedSum

FEW = 0.25
"""Share of pictures with a label below which it is said what these weigh."""


def without_labels(teacher: VisionModel | None) -> str:
    """What the student is judged by where the val images have no labels."""
    if teacher is None:
        return (
            "The images have no labels, and a store has no answers to the val images: no score is kept. Give the "
            "teacher itself beside its store to see the agreement with it."
        )
    return "The images have no labels: the student is judged by its agreement with the teacher, which is no accuracy."


def of_networks(splits: Splits, networks: list[VisionModel], teacher_fit: str | None) -> Iterator[str]:
    """What is to be said of the networks beside the data; teacher_fit: how it fitted pictures before this run."""
    for model in networks:
        yield from model.notes
    if any(tasks.get(one.task).whole and one.fit == "crop" and one.input_size is not None for one in networks):
        yield from noticing.cut_off(splits.train)
    for teacher in networks[1:]:
        if teacher_fit not in ("crop", teacher.fit):
            yield (
                f"The teacher was trained with data.fit {teacher_fit}, and these pictures are shown to it with "
                f"{teacher.fit}."
            )
        if teacher.by_position and teacher.classes:
            names = teacher.classes
            shown = names if len(names) <= 12 else [*names[:11], "...", names[-1]]
            yield (
                f"The teacher does not name its classes: its outputs 0 to {len(names) - 1} are taken for "
                f"{', '.join(shown)}, in this order (teacher.classes gives another)."
            )
        readings = teacher.reading, splits.train.reading
        if reading_specification(readings[0]) != reading_specification(readings[1]):
            own, given = map(noticing.said_of_reading, readings)
            yield f"The teacher was trained on pictures that were read with {own}, and these are read with {given}."


def of_photos_without_labels(run: config.Run, taught: bool) -> Iterator[str]:
    """What is to be said where photos without labels are trained on and no teacher says anything of them."""
    if run.data.unlabeled is not None and not taught:
        yield (
            "data.unlabeled: without a teacher these photos teach nothing, and take their places in every batch: leave "
            "them out, or distil (counterpoise distill)."
        )
    silent = [name for name, term in run.objective.items() if _passes_over_void(name, term)]
    if run.data.unlabeled is not None and taught and not tasks.get(run.task).whole and silent:
        yield (
            f"objective.{silent[0]}.ignore_index leaves out what is void, and so all of data.unlabeled: by "
            f"{', '.join(silent)} these pictures teach nothing. Leave it out, and the teacher is listened to there."
        )


OF_CHOICES: dict[str, tuple[str, dict[str, tuple[str, ...]]]] = {
    "data.views": ("crop", {"padding": ("pad",), "scale": ("resized",), "ratio": ("resized",)}),
    "train.optimizer": ("name", {"momentum": ("sgd",), "nesterov": ("sgd",), "betas": ("adamw",)}),
    "train.schedule": (
        "name",
        {
            "milestones": ("multistep",),
            "gamma": ("multistep",),
            "warmup_epochs": ("constant", "multistep", "cosine", "poly"),
            "rise": ("one_cycle",),
            "power": ("poly",),
            "final": ("cosine", "one_cycle", "poly"),
        },
    ),
}
"""Keys by section that mean something under some choices alone: the key of the choice, and under which."""


def of_keys_without_effect(run: config.Run) -> Iterator[str]:
    """What is to be said of keys that change nothing under what was chosen, or was decided by the data."""
    sections = {
        "data.views": run.data.views,
        "train.optimizer": run.train.optimizer,
        "train.schedule": run.train.schedule,
    }
    for place, (by, meant) in OF_CHOICES.items():
        section = sections[place]
        choice = getattr(section, by)
        for key in section.changed():
            if choice not in (under := meant.get(key, (choice,))):
                yield f"{place}.{key} changes nothing: it is of {by} {' or '.join(under)}, and {by} is {choice}."


def of_few_labels(run: config.Run, images: ImageSet, objective: WeightedSum) -> Iterator[str]:
    """What is to be said where labels are so few that each of them outweighs the teacher's word of many pictures."""
    known = 1 - images.unlabeled / len(images)
    needs = {name: objective.objective(name).needs for name in objective.terms}
    if not 0 < known < FEW or not any("teacher" in needed for needed in needs.values()):
        return
    share = max(known, 1 / run.train.batch_size)
    for name, needed in needs.items():
        weight = run.objective[name].weight
        if "teacher" not in needed and "labels" in needed and isinstance(weight, float) and weight * FEW > share:
            yield (
                f"{100 * known:.2g}% of the training pictures have a label: of a batch of {run.train.batch_size} "
                f"about {known * run.train.batch_size:.2g}. {name} is the mean over these, so that one label weighs as "
                f"much as the teacher's word of {1 / share:.0f} pictures; with --objective.{name}.weight "
                f"{weight * share:.2g} as much as that of one."
            )


def _passes_over_void(name: str, term: config.Term) -> bool:
    """Whether a term that listens to the teacher does not where masks are void."""
    return term.arguments.get("ignore_index") == IGNORE and needs_teacher(term.objective or name)


def of_balance(run: config.Run) -> Iterator[str]:
    """What is to be said where rare classes are shown more often, and count more as well."""
    for name, term in run.objective.items() if run.data.balance else ():
        for key in (WEIGHT, PRIOR):
            if term.arguments.get(key) is not None:
                yield (
                    f"data.balance shows rare classes more often, and objective.{name}.{key} goes by how many images "
                    "there are, not by how often they are shown: together they make up for it twice."
                )


def of_weighed_labels(run: config.Run, objective: WeightedSum) -> Iterator[str]:
    """What is to be said where the labels of pixels are weighed by class, and what the teacher says of them is not."""
    weighed = [name for name, term in run.objective.items() if term.arguments.get(WEIGHT) is not None]
    if tasks.get(run.task).whole or not weighed:
        return
    for name in objective.terms:
        one, term = objective.objective(name), run.objective[name]
        everywhere = term.arguments.get("ignore_index", IGNORE) == IGNORE  # else the common class may be left out
        if isinstance(one, LogitObjective) and "teacher" in one.needs and name not in weighed and everywhere:
            yield (
                f"objective.{weighed[0]}.{WEIGHT} weighs classes, and {name} is a mean over all pixels, so that common "
                f"classes count most in it: it takes back a part of that. To weigh it too: objective.{name}: "
                f"{{objective: class_weighted, of: {term.objective or name}, class_weight: ...}}."
            )


def of_resized_views(run: config.Run, student: VisionModel) -> Iterator[str]:
    """What is to be said where the edge that is asked for is another one than the student takes in."""
    edge, taken = run.data.size, student.input_size
    if edge is None or taken is None or edge == taken or run.data.views.crop != "resized":
        return
    way = "enlarged" if edge < taken else "reduced"
    cost = ", and computes as little" if edge < taken else ""
    yield (
        f"data.size {edge}: training views are made {edge} x {edge} and {way} to {taken} x {taken}, which the student "
        f"takes, while evaluation shows pictures at {taken} x {taken}. For a network that sees {edge} x {edge} "
        f"pixels{cost}: --student.input_size {edge} instead."
    )
