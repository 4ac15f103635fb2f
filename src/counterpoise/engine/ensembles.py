"""A teacher of several networks, or of several views, as one network, so that stores and objectives know no other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from counterpoise import config
from counterpoise.errors import ConfigError
from counterpoise.models import several_views
from counterpoise.models.classmap import map_teacher, partly
from counterpoise.models.ensemble import Ensemble, require_shared
from counterpoise.models.network import VisionModel
from counterpoise.teachers import identity
from counterpoise.teachers.live import LiveTeacher

Build = Callable[[config.Teacher], VisionModel]


def build(section: config.Teacher, classes: Sequence[str], one: Build, sigmoid: bool) -> VisionModel:
    """The members of a section as one network that answers in `classes`; empty: in those of the first.

    Args:
        one: builds a member, in its own classes.
        sigmoid: whether each logit is a question of its own.

    Raises:
        ConfigError: options that are said by member, or of which there is no such combination.
        ModelError: a member that is wrong, members that share no class.
    """
    require_members_say_it(section, sigmoid)
    models = [one(_as_teacher(member)) for member in section.members]
    if not classes:
        classes = models[0].classes or tuple(str(index) for index in range(models[0].num_classes))
    mapped, known = [], []
    for member, model in zip(section.members, models, strict=True):
        some = None
        if section.combine == "probabilities" and member.classes is None and not sigmoid:
            some = partly(model, classes)
        mapped.append(map_teacher(model, classes, member.classes) if some is None else some[0])
        known.append(None if some is None else some[1])
    every = tuple(range(len(classes)))
    require_shared([model.name for model in mapped], [every if some is None else some for some in known])
    lost = set(every).difference(*(every if some is None else some for some in known))
    if lost:
        raise ConfigError(f"No teacher knows {', '.join(classes[index] for index in sorted(lost)[:5])}.")
    weights = [member.weight for member in section.members]
    net = Ensemble([model.eval() for model in mapped], weights, section.combine, known, len(classes), sigmoid)
    largest = max(mapped, key=lambda model: model.input_size or 0)
    combined = VisionModel(
        net,
        name=f"ensemble of {len(mapped)}",
        num_classes=len(classes),
        arguments={
            "combine": section.combine,
            "weights": weights,
            "known": known,
            "members": [_who(model) for model in mapped],
        },
        classes=tuple(classes),
        channels=largest.channels,
        mean=(0.0,) * largest.channels,
        std=(1.0,) * largest.channels,
        input_size=largest.input_size,
        crop_share=largest.crop_share,
        task=mapped[0].task,
        outputs="logits",
    )
    combined.by_position = any(model.by_position for model in mapped)
    combined.notes = (
        *(note for model in mapped for note in model.notes),
        f"the teacher is {len(mapped)} networks: {', '.join(model.name for model in mapped)}; {_TOLD[section.combine]}",
        *(
            f"{model.name} knows {len(some)} of the {len(classes)} classes"
            for model, some in zip(mapped, known, strict=True)
            if some is not None
        ),
    )
    return combined


_TOLD = {
    "probabilities": "the mean of their probabilities counts",
    "logits": "the mean of their logits counts",
    "surest": "for each picture the surest of them counts",
    "right": "for each picture the one that is most sure of its label counts",
}


def over_views(model: VisionModel, views: int, sigmoid: bool, whole: bool) -> VisionModel:
    """The network with its answers averaged over several views of each picture, and said so: `several_views.averaged`.

    Raises ConfigError where there are no such views.
    """
    wrapped = several_views.averaged(model, views, sigmoid, whole)
    if wrapped is not model:
        said = several_views.told(views, whole)
        wrapped.notes = (*model.notes, f"the teacher's answers are {said} (teacher.views)")
    return wrapped


def ensemble_of(model: VisionModel) -> Ensemble | None:
    """The ensemble that a network is; None where it is one alone."""
    return next((module for module in model.modules() if isinstance(module, Ensemble)), None)


@contextmanager
def chosen_by(teacher: LiveTeacher | None, target: Tensor) -> Iterator[None]:
    """Within, a teacher of several that goes by labels goes by these: int64 [N] or probabilities [N, C]."""
    ensemble = None if teacher is None else ensemble_of(teacher.model)
    if ensemble is not None and ensemble.combine == "right":
        ensemble.target = target
    try:
        yield
    finally:
        if ensemble is not None:
            ensemble.target = None


def _as_teacher(member: config.Member) -> config.Teacher:
    return config.Teacher.model_validate(member.model_dump(exclude={"weight", "classes"}, exclude_unset=True))


def _who(model: VisionModel) -> dict[str, str]:
    return identity.of(model, torch.float32)


def _given(section: config.Teacher, name: str) -> bool:
    return bool(getattr(section, name) != config.Teacher.model_fields[name].get_default(call_default_factory=True))


def require_several(section: config.Teacher) -> None:
    """Raises ConfigError where one teacher alone is to be combined."""
    if section.combine != "probabilities" and not section.members:
        raise ConfigError(f"teacher.combine: {section.combine} is of several, and there is one teacher: give teachers.")


def require_members_say_it(section: config.Teacher, sigmoid: bool) -> None:
    """Raises ConfigError for options that are said by member, or of which there is no such combination."""
    own = {*config.Member.model_fields} - {"weight"}
    said = [name for name in config.Teacher.model_fields if name in own and _given(section, name)]
    if said:
        raise ConfigError(f"teacher.{said[0]} beside teachers: each of several says its own.")
    if len(section.members) < 2:
        raise ConfigError("teachers is a list of two or more; one alone is teacher.")
    stored = [member.store is not None for member in section.members]
    if any(stored) and not all(stored):
        raise ConfigError("Some of the teachers have a store and others none: give each a store, or none.")
    if any(stored) and section.combine == "right":
        raise ConfigError("teacher.combine: right goes by labels, and stores are read ahead of them: ask the networks.")
    if any(stored) and section.missing == "live":
        raise ConfigError(
            "teacher.missing: live asks the network of a store, and no store of several teachers has one."
        )
    if any(stored) and section.views > 1:
        raise ConfigError("teacher.views is of networks that are asked; a store has the answers that were recorded.")
    if section.shard:
        raise ConfigError("teacher.shard shares out one network; there are several teachers.")
    if sigmoid and section.combine in ("surest", "right"):
        raise ConfigError(
            f"teacher.combine: {section.combine} takes the surest answer of a softmax; several labels a picture have "
            "none: give probabilities or logits."
        )
