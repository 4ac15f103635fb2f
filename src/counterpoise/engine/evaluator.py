"""Answers over a whole data set, scored."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch import Tensor

from counterpoise import config
from counterpoise.data import noticing, summary
from counterpoise.data.epochs import Batch, InOrder, Large
from counterpoise.data.sources.base import UNLABELED, ImageSet
from counterpoise.engine.chance import Tally, of_chance
from counterpoise.engine.processes import Processes, errors_explained
from counterpoise.engine.progress import in_words, say
from counterpoise.errors import DataError, ModelError, nearest
from counterpoise.models.network import VisionModel
from counterpoise.outputs import in_eval_mode
from counterpoise.tasks import AGREEMENT, AGREEMENT_ALONE, Score, Task, get

if TYPE_CHECKING:
    from counterpoise.engine.parts import Parts
    from counterpoise.tasks.sliding import InPieces

SOFT = (
    "answers probabilities, from 0 on with a sum of 1, and its answers are taken for logits: its classes and their "
    "scores are right, its loss and calibration error are those of a softmax of a softmax. Leave the softmax out of "
    "the network."
)


def answers(model: VisionModel, loader: Iterable[Batch], device: torch.device) -> Iterator[tuple[Batch, Tensor]]:
    """Each batch with the model's logits in eval mode and in float32, as it ships, whatever a run trains in.

    The mode of each of the model's parts is put back afterwards.
    """
    task = get(model.task)
    with in_eval_mode(model):
        for batch in loader:
            with torch.inference_mode():
                logits = task.answer(model, batch.images.to(device, non_blocking=True))
            yield batch, logits


def judged(
    model: VisionModel, loader: InOrder, device: torch.device
) -> Iterator[tuple[Batch | Large, Tensor | InPieces]]:
    """As `answers`, but scenes that are too large for all of their logits are answered in pieces."""
    task = get(model.task)
    with in_eval_mode(model):
        pieces = task.in_pieces(model)
        for batch in loader.with_large(None if pieces is None else pieces.above):
            if isinstance(batch, Large):
                assert pieces is not None
                yield batch, pieces.answer(batch)
                continue
            with torch.inference_mode():
                logits = task.answer(model, batch.images.to(device, non_blocking=True))
            yield batch, logits


class Counting(Protocol):
    """Counts answers of this process, and then those of all."""

    def update(self, logits: Tensor, target: Tensor) -> None:
        """Count a batch."""

    def gather(self, processes: Processes) -> None:
        """Take over what the other processes have counted."""


class Said(NamedTuple):
    """What a teacher says of images, one after the other."""

    model: VisionModel
    logits: Iterator[Tensor]


def quick_score(
    model: VisionModel,
    loader: InOrder,
    task: Task,
    processes: Processes,
    teacher: Said | None = None,
    watch: Callable[[Tensor], None] | None = None,
    further: Sequence[str] = (),
) -> dict[str, float]:
    """The values of `scored`, called as they were counted."""
    return values_of(scored(model, loader, task, processes, teacher, watch, further=further))


def values_of(score: Score) -> dict[str, float]:
    """The metrics by name: of images without labels, the agreement with the teacher, and called so."""
    return {f"{AGREEMENT if score.against_teacher else ''}{name}": value for name, value in score.values().items()}


@errors_explained()
def scored(
    model: VisionModel,
    loader: InOrder,
    task: Task,
    processes: Processes,
    teacher: Said | None = None,
    watch: Callable[[Tensor], None] | None = None,
    tallies: Sequence[Counting] = (),
    further: Sequence[str] = (),
) -> Score:
    """The task's quick score over all processes, with `further` metrics.

    A set without labels is scored against the teacher's answers.

    `watch` is shown each batch's logits, in order; `tallies` count them.
    """
    score = task.score_on(model, loader.images, further)
    unlabeled = not has_labels(loader.images)
    with model.together(), nullcontext() if teacher is None else teacher.model.together():
        # What compares logits with others needs all of a scene.
        whole = unlabeled or watch is not None or bool(tallies)
        for batch, logits in (answers if whole else judged)(model, loader, processes.device):
            score.coming(batch.indices)
            if not isinstance(logits, Tensor):
                score.update_pieces(logits)
                continue
            assert isinstance(batch, Batch)
            if watch is not None:
                watch(logits)
            target = batch.target.to(processes.device)
            if teacher is not None and unlabeled:
                said = torch.stack(list(itertools.islice(teacher.logits, len(logits)))).to(logits.device)
                target = task.pseudo_target(task.alike(logits, said)[1])
            score.update(logits, target)
            for tally in tallies:
                tally.update(logits, target)
    score.state = (processes.join if score.joined else processes.add)(score.state.cpu())
    for tally in tallies:
        tally.gather(processes)
    score.against_teacher = unlabeled
    return score


def has_labels(images: ImageSet) -> bool:
    """Whether any image has one."""
    return bool((images.labels != UNLABELED).any())


def by_image(model: VisionModel, loader: InOrder, device: torch.device) -> Iterator[Tensor]:
    """A model's logits, of one image after the other."""
    for _, logits in answers(model, loader, device):
        yield from logits


def agreement(
    student: VisionModel,
    teacher: VisionModel,
    images: ImageSet,
    data: config.Data,
    device: torch.device,
    batch_size: int,
) -> dict[str, Any]:
    """How a student answers images without labels beside its teacher, each shown them in its own size."""
    task = get(student.task)
    task.check(images)
    loaders = [task.eval_loader(images, one, data, batch_size=batch_size) for one in (student, teacher)]
    said = Said(teacher, by_image(teacher.to(device).eval(), loaders[1], device))
    scores = quick_score(student.to(device), loaders[0], task, Processes(0, 1, device), said)
    return {**scores, "images": len(images), "corrupt": list(loaders[0].corrupt), "notes": [AGREEMENT_ALONE]}


def score_teacher(
    parts: Parts, loader: InOrder, processes: Processes, watch: Callable[[Tensor], None] | None = None
) -> tuple[dict[str, float], str]:
    """The quick score of a run's teacher, and the line that says it; `watch` as for `quick_score`.

    Raises ModelError where it answers as chance would, unless the run accepts that.
    """
    assert parts.teacher is not None
    model, section = parts.teacher.model, parts.run.teacher
    tally = Tally(len(parts.classes), parts.task)
    score = scored(model, loader, parts.task, processes, watch=watch, tallies=[tally], further=parts.run.train.scores)
    scores, own, answered = score.values(), score.verdict(), tally.answered()
    verdict, doubt = answered.verdict() if own is None else own.kind, ""
    nothing = f"answers that know nothing of the pictures, {100 * answered.chance():.1f}%" if tally.matrix.any() else ""
    if own is not None and own.soft and model.outputs == "auto" and scores:
        raise ModelError(
            f"The teacher {model.name} answers numbers from 0 to 1 throughout, as a sigmoid gives, and they are taken "
            "for logits. Leave the sigmoid out of its network; where these are its logits, say teacher.outputs: logits."
        )
    if own is not None:
        nothing = f"answers that know nothing of the pictures: it has {own.found}"
    if verdict == "chance":
        if section is None or not section.accept_chance:
            raise ModelError(tally.complaint(model, parts.classes) if own is None else of_chance(model, own))
        doubt = f" (the teacher is hardly better than {nothing} (teacher.accept_chance))"
    elif verdict == "unsure":
        doubt = f" ({tally.images} validation images are too few to tell it from {nothing})"
    return scores, f"teacher  {in_words(scores, 2)}{doubt}"


def full_report(
    model: VisionModel,
    images: ImageSet,
    data: config.Data,
    device: torch.device,
    batch_size: int,
    show: bool = False,
    scores: Sequence[str] = (),
) -> dict[str, Any]:
    """The task's full report of a model on images, its quick score and further `scores` included.

    Raises DataError where their classes are not the model's; ConfigError for a score that the task does not know.
    """
    images = in_classes_of(model, images)
    task = get(model.task)
    task.check(images)
    report = task.report_on(model, images, scores)
    loader = task.eval_loader(images, model, data, batch_size=batch_size)
    if show:
        found = summary.of_images(images).add("shown", loader.shown())
        cropped = model.fit == "crop" and model.input_size is not None and task.whole
        for note in noticing.of_evaluation(images, model.reading, cropped):
            found.note(note)
        say(found, show)
    soft: bool | None = None
    for batch, logits in judged(model.to(device), loader, device):
        if soft is None:
            soft = model.answers_probabilities(batch.shown)
        report.coming(batch.indices)
        if not isinstance(logits, Tensor):
            report.update_pieces(logits)
            continue
        assert isinstance(batch, Batch)
        report.update(logits, batch.target.to(device))
    values = {**report.values(), "corrupt": list(loader.corrupt)}
    notes = [*([f"{model.name} {SOFT}"] if soft else []), *task.notes(model)]
    return {**values, "notes": notes} if notes and values["images"] else values


def in_classes_of(model: VisionModel, images: ImageSet) -> ImageSet:
    """The images, their classes in the order in which the model has them.

    Raises DataError unless they are the model's.
    """
    if model.classes is None:
        return images
    given, expected = images.classes, model.classes
    if sorted(given) == sorted(expected):
        return images.in_order(expected)
    extra = [name for name in given if name not in set(expected)]
    missing = [name for name in expected if name not in set(given)]
    raise DataError(
        f"The data has {len(given)} classes and the student {len(expected)}; only in the data: "
        f"{', '.join(extra[:5]) or 'none'}; only in the student: {', '.join(missing[:5]) or 'none'}."
        f"{nearest(extra[0], missing) if extra else ''}"
    )
