"""From the classes of a teacher to those of the student: chosen, put in order, several taken together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from counterpoise.errors import DocumentError, ModelError, nearest
from counterpoise.models import imagenet
from counterpoise.models.network import VisionModel
from counterpoise.system import documents

IMAGENET_FAMILIES = ("timm/", "torchvision/")
SHOWN = 3


class ClassSelection(nn.Module):
    """Logits at chosen classes; several that are taken as one are joined by log-sum-exp, in float32.

    Probabilities of classes taken together then add up, and those of classes left out are shared out in proportion.

    Args:
        groups: for each new class the indices of the old ones.
    """

    index: Tensor
    padding: Tensor

    def __init__(self, groups: Sequence[Sequence[int]]) -> None:
        super().__init__()
        longest = max(map(len, groups))
        rows = [[*group, *[group[0]] * (longest - len(group))] for group in groups]
        padding = [[place >= len(group) for place in range(longest)] for group in groups]
        self.register_buffer("index", torch.tensor(rows), persistent=False)
        self.register_buffer("padding", torch.tensor(padding), persistent=False)

    @property
    def joins(self) -> bool:
        """Whether several classes are taken as one."""
        return self.index.shape[1] > 1

    def forward(self, logits: Tensor) -> Tensor:
        """[N, C, ...] -> [N, len(groups), ...]."""
        new, longest = self.index.shape
        chosen = logits.index_select(1, self.index.flatten())
        if longest == 1:
            return chosen
        chosen = chosen.float().reshape(len(logits), new, longest, *logits.shape[2:])
        padding = self.padding.view(1, new, longest, *[1] * (logits.ndim - 2))
        return torch.logsumexp(chosen.masked_fill(padding, -torch.inf), 2)


def map_teacher(teacher: VisionModel, classes: Sequence[str], mapping_file: Path | None = None) -> VisionModel:
    """The teacher, answering in `classes`.

    Args:
        teacher: shares its network with the result.
        classes: of the student, in its order; empty takes those of the mapping file, else leaves the teacher as it is.
        mapping_file: YAML, {class: index or name of the teacher's class, or a list of them}. Without it, classes are
            found by name where the teacher's names are known (case, spaces, underscores and hyphens do not count, one
            of several synonyms or a WordNet id will do), else taken in their order, if there are as many.

    Raises:
        ModelError: a class that is missing, unknown, ambiguous or out of range; numbers that differ, without names.
    """
    if mapping_file is not None:
        entries = _read(mapping_file)
        classes = classes or tuple(entries)
        groups = _groups_of(entries, teacher, classes, mapping_file)
    elif not classes:
        return teacher
    else:
        found = _by_name(teacher, classes)
        if found is None:
            named = _named(teacher, classes, None)
            named.by_position = True
            return named
        groups = found
    if groups == [[index] for index in range(teacher.num_classes)]:
        return _named(teacher, classes, None)
    return _named(teacher, classes, ClassSelection(groups))


def partly(teacher: VisionModel, classes: Sequence[str]) -> tuple[VisionModel, tuple[int, ...]] | None:
    """A teacher that knows some of `classes` by name and not others, answering in those; and which these are.

    None where it knows all of them or none, or its names are not known.
    """
    names, _ = _names_of(teacher)
    if names is None:
        return None
    lookup = _Lookup(names)
    found = [index for index, name in enumerate(classes) if len(lookup.find(name)) == 1]
    if not found or len(found) == len(classes) or any(len(lookup.find(name)) > 1 for name in classes):
        return None
    if len(found) == 1:
        raise ModelError(
            f"The teacher {teacher.name} knows one of the {len(classes)} classes, {classes[found[0]]}, which it would "
            "answer to every picture: leave it out, or say by its own `classes` which of its classes the others are."
        )
    return map_teacher(teacher, [classes[index] for index in found]), tuple(found)


def _named(teacher: VisionModel, classes: Sequence[str], selection: nn.Module | None) -> VisionModel:
    chained = (
        selection if teacher.selection is None or selection is None else nn.Sequential(teacher.selection, selection)
    )
    settings = teacher.settings()
    settings.update(classes=tuple(classes), num_classes=len(classes), selection=chained or teacher.selection)
    mapped = VisionModel(**settings).train(teacher.training)
    mapped.memory_format = teacher.memory_format
    mapped.notes, mapped.trained_for = teacher.notes, teacher.trained_for
    return mapped.to(teacher.mean.device)


def _by_name(teacher: VisionModel, classes: Sequence[str]) -> list[list[int]] | None:
    """The teacher's index of each class; None where the names are not known, and numbers agree."""
    names, sure = _names_of(teacher)
    if names is None:
        if teacher.num_classes == len(classes):
            return None
        raise ModelError(
            f"The teacher {teacher.name} has {teacher.num_classes} classes, of unknown names, and the student "
            f"{len(classes)}. {_advice(classes)}"
        )
    lookup = _Lookup(names)
    found, problems = [], []
    for name in classes:
        indices = lookup.find(name)
        if len(indices) == 1:
            found.append([indices[0]])
        else:
            problems.append((name, indices))
    if not problems:
        return found
    if not sure and teacher.num_classes == len(classes):
        return None
    shown = [_problem(name, indices, lookup) for name, indices in problems[:SHOWN]]
    if len(problems) > SHOWN:
        shown.append(f"and {len(problems) - SHOWN} more.")
    raise ModelError(
        f"{len(problems)} of the student's {len(classes)} classes are not found among the {teacher.num_classes} of the "
        f"teacher {teacher.name}:\n  " + "\n  ".join(shown) + "\n" + _advice(classes)
    )


def _names_of(teacher: VisionModel) -> tuple[Sequence[str] | None, bool]:
    """The teacher's class names, and whether they are sure: as many classes as ImageNet has are taken for those."""
    if teacher.classes is not None:
        return teacher.classes, True
    return (imagenet.classes(teacher.num_classes) if teacher.name.startswith(IMAGENET_FAMILIES) else None), False


def _advice(classes: Sequence[str]) -> str:
    example = classes[0] if classes else "cat"
    return (
        "Give teacher.classes, a YAML file that says for each class of the student which of the teacher's it is: "
        f"an index, a name, or a list of them, such as {{{example}: [3, 5]}}."
    )


def _problem(name: str, indices: Sequence[int], lookup: _Lookup) -> str:
    if indices:
        shown = ", ".join(map(str, indices))
        return f"'{name}' is ambiguous: the teacher's classes {shown} are called so; give the index."
    return f"'{name}' is unknown.{nearest(name, {*lookup.exact, *lookup.synonyms})}"


class _Lookup:
    """Indices by name: the whole name first, then without regard to case and spacing, then synonyms and WordNet ids."""

    def __init__(self, names: Sequence[str]) -> None:
        self.exact: dict[str, list[int]] = {}
        self.plain: dict[str, list[int]] = {}
        self.synonyms: dict[str, list[int]] = {}
        for index, name in enumerate(names):
            self.exact.setdefault(name, []).append(index)
            self.plain.setdefault(_plain(name), []).append(index)
            for synonym in name.split(", "):
                self.synonyms.setdefault(_plain(synonym), []).append(index)
        if tuple(names) == imagenet.classes(len(names)):
            for index, synset in enumerate(imagenet.synsets(len(names)) or ()):
                self.synonyms[synset] = [index]

    def find(self, name: str) -> list[int]:
        return self.exact.get(name) or self.plain.get(_plain(name)) or self.synonyms.get(_plain(name)) or []


def _plain(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())


def _read(path: Path) -> dict[str, Any]:
    try:
        values = documents.read_yaml(path, limit=documents.JSON_BYTES)
    except FileNotFoundError:
        raise ModelError(f"teacher.classes: {path} does not exist.") from None
    except OSError as error:
        raise ModelError(f"teacher.classes: {path} cannot be read: {documents.why_unread(error)}.") from None
    except DocumentError as error:
        raise ModelError(f"teacher.classes: {path} is not YAML: {error}") from None
    if not isinstance(values, dict) or not values:
        raise ModelError(f"teacher.classes: {path} must hold {{class: index, name, or a list of them}}.")
    return {str(key): value for key, value in values.items()}


def _groups_of(entries: dict[str, Any], teacher: VisionModel, classes: Sequence[str], path: Path) -> list[list[int]]:
    missing = [name for name in classes if name not in entries]
    if missing:
        spare = [name for name in entries if name not in classes]
        more = f", and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        shown = ", ".join(f"'{name}'" for name in missing[:SHOWN])
        raise ModelError(f"teacher.classes: {path} lacks {shown}{more}.{nearest(missing[0], spare)}")
    extra = [name for name in entries if name not in classes]
    if extra:
        raise ModelError(
            f"teacher.classes: {path} names '{extra[0]}', which the data has not.{nearest(extra[0], list(classes))}"
        )
    names, _ = _names_of(teacher)
    lookup = None if names is None else _Lookup(names)

    def index_of(name: str, entry: Any) -> int:
        where = f"teacher.classes: {path}: {name}"
        if isinstance(entry, int) and not isinstance(entry, bool):
            if not 0 <= entry < teacher.num_classes:
                raise ModelError(
                    f"{where}: index {entry} is out of range, the teacher has 0 to {teacher.num_classes - 1}."
                )
            return entry
        if not isinstance(entry, str):
            raise ModelError(f"{where}: expected an index, a name or a list of them, got {entry!r}.")
        if lookup is None:
            raise ModelError(f"{where}: the teacher's class names are not known, so '{entry}' must be an index.")
        indices = lookup.find(entry)
        if len(indices) != 1:
            raise ModelError(f"{where}: {_problem(entry, indices, lookup)}")
        return indices[0]

    groups = []
    for name in classes:
        entry = entries[name]
        group = [index_of(name, item) for item in (entry if isinstance(entry, list) else [entry])]
        if not group:
            raise ModelError(f"teacher.classes: {path}: {name}: the list is empty.")
        if len(set(group)) < len(group):
            raise ModelError(f"teacher.classes: {path}: {name}: a class of the teacher is named twice.")
        groups.append(group)
    return groups
