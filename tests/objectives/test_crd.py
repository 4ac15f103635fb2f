"""Contrastive distillation against numpy in float64; its memories and its negatives."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from counterpoise.errors import ObjectiveError
from counterpoise.objectives.base import means
from counterpoise.objectives.crd import ContrastiveDistillation
from counterpoise.objectives.targets import UNLABELED
from counterpoise.outputs import Outputs

SAMPLES = 9
LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 0])


def outputs(count: int, channels: int, seed: int) -> Outputs:
    generator = torch.Generator().manual_seed(seed)
    feature = torch.randn(count, channels, 2, 2, generator=generator, dtype=torch.float64)
    return Outputs(torch.zeros(count, 3), {"@-1": feature})


STUDENT, TEACHER = outputs(4, 5, 0), outputs(4, 6, 1)
INDICES = torch.tensor([7, 2, 3, 5])


def make(samples: int = SAMPLES, negatives: int = 12, **arguments: float) -> ContrastiveDistillation:
    torch.manual_seed(0)
    objective = ContrastiveDistillation(negatives=negatives, dimension=3, **arguments)  # type: ignore[arg-type]
    objective.prepare(STUDENT, TEACHER, samples)
    return objective


def ask(objective: ContrastiveDistillation, indices: Tensor, target: Tensor | None, seed: int = 5) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    objective.set_batch(indices)
    return means(objective.terms(STUDENT, TEACHER, target))


def embed(layer: nn.Module | None, outputs: Outputs) -> np.ndarray:
    assert isinstance(layer, nn.Linear)
    x = outputs.features["@-1"].numpy().mean((2, 3)) @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_values_and_memories_are_those_of_the_formula() -> None:
    tau, momentum, negatives = 0.2, 0.3, 12
    objective = make(negatives=negatives, temperature=tau, momentum=momentum)
    log_z: dict[str, float] = {}
    for step in range(2):
        memory = {side: getattr(objective, f"{side}_memory").numpy().copy() for side in ("student", "teacher")}
        objective.labels[INDICES] = LABELS[INDICES]
        torch.manual_seed(step)
        drawn = objective._draw(INDICES, LABELS[INDICES]).numpy()
        found = ask(objective, INDICES, LABELS[INDICES], seed=step)
        anchors = {"student": embed(objective.student_map, STUDENT), "teacher": embed(objective.teacher_map, TEACHER)}
        for side, other in (("student", "teacher"), ("teacher", "student")):
            chosen = np.concatenate([INDICES.numpy()[:, None], drawn], 1)
            score = np.exp(np.einsum("nd,nkd->nk", anchors[side], memory[other][chosen]) / tau)
            log_z.setdefault(side, math.log(score.mean() * SAMPLES))
            p = score / math.exp(log_z[side])
            h = p / (p + negatives / SAMPLES)
            expected = (-np.log(h[:, 0]) - np.log(1 - h[:, 1:]).sum(1)).mean()
            assert found[side].item() == pytest.approx(expected, rel=1e-10)
            new = momentum * memory[side][INDICES.numpy()] + (1 - momentum) * anchors[side]
            expected_memory = memory[side].copy()
            expected_memory[INDICES.numpy()] = new / np.linalg.norm(new, axis=1, keepdims=True)
            np.testing.assert_allclose(getattr(objective, f"{side}_memory").numpy(), expected_memory, rtol=1e-12)


def test_where_nothing_is_known_every_choice_is_even() -> None:
    """P = 1 / M for all, so h = 1 / (1 + K)."""
    objective = make(negatives=12)
    for memory in (objective.student_memory, objective.teacher_memory):
        memory.zero_()
    for value in ask(objective, INDICES, LABELS[INDICES]).values():
        assert value.item() == pytest.approx(math.log(13) + 12 * math.log(13 / 12), rel=1e-12)


def test_negatives_are_even_among_the_samples_of_other_classes() -> None:
    objective = make(negatives=30_000)
    objective.labels.copy_(LABELS)
    objective.labels[4] = UNLABELED
    indices = torch.tensor([0, 5, 4])
    for index, drawn in zip(indices, objective._draw(indices, objective.labels[indices]), strict=True):
        label = int(objective.labels[index])
        allowed = (objective.labels != label) if label != UNLABELED else torch.arange(SAMPLES) != index
        share = drawn.bincount(minlength=SAMPLES) / len(drawn)
        torch.testing.assert_close(share, allowed / allowed.sum(), atol=0.01, rtol=0)


def test_one_class_falls_back_on_all_other_samples() -> None:
    objective = make(negatives=200)
    objective.labels.zero_()
    drawn = objective._draw(INDICES, torch.zeros(4, dtype=torch.int64))
    for index, row in zip(INDICES, drawn, strict=True):
        assert set(row.tolist()) == set(range(SAMPLES)) - {int(index)}


def test_labels_are_learned_from_the_targets() -> None:
    objective = make()
    ask(objective, INDICES, LABELS[INDICES])
    expected = torch.full((SAMPLES,), UNLABELED)
    expected[INDICES] = LABELS[INDICES]
    assert objective.labels.equal(expected)
    mixed = torch.tensor([[0.7, 0.3, 0.0], [0.0, 0.4, 0.6], [0.0, 0.0, 0.0], [0.5, 0.1, 0.4]])
    ask(objective, INDICES, mixed)
    assert objective.labels[INDICES].tolist() == [0, 2, UNLABELED, 0]
    ask(objective, INDICES, None)
    assert (objective.labels == UNLABELED).all()


def test_each_part_moves_its_own_side() -> None:
    objective = make()
    student = Outputs(STUDENT.logits, {"@-1": STUDENT.features["@-1"].clone().requires_grad_()})
    objective.set_batch(INDICES)
    parts = means(objective.terms(student, TEACHER, LABELS[INDICES]))
    assert objective.student_map is not None
    assert objective.teacher_map is not None
    inputs = [student.features["@-1"], *objective.student_map.parameters(), *objective.teacher_map.parameters()]
    moved = {
        name: [g is not None for g in torch.autograd.grad(value, inputs, allow_unused=True)]
        for name, value in parts.items()
    }
    assert moved == {"student": [True] * 3 + [False] * 2, "teacher": [False] * 3 + [True] * 2}


def test_state_goes_on_where_it_was_saved() -> None:
    whole, first, second = make(), make(), make()
    ask(whole, INDICES, LABELS[INDICES])
    ask(first, INDICES, LABELS[INDICES])
    second.load_state_dict(first.state_dict())
    last = torch.tensor([7, 1, 0, 8])
    expected = ask(whole, last, LABELS[last])
    for name, value in ask(second, last, LABELS[last]).items():
        assert value == expected[name]
    assert all(value.isfinite().all() for value in second.state_dict().values())


def test_evaluation_leaves_the_memory_alone() -> None:
    objective = make().eval()
    before = objective.teacher_memory.clone()
    ask(objective, INDICES, LABELS[INDICES])
    assert objective.teacher_memory.equal(before)


def test_students_learn_to_tell_samples_apart() -> None:
    objective = make(temperature=0.1)
    optimizer = torch.optim.SGD(objective.parameters(), lr=0.1)
    losses = []
    for step in range(40):
        loss = sum(ask(objective, INDICES, LABELS[INDICES], seed=step).values())
        assert isinstance(loss, Tensor)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_mistakes_are_named() -> None:
    objective = make()
    with pytest.raises(ObjectiveError, match="call set_batch"):
        objective.terms(STUDENT, TEACHER, LABELS[INDICES])
    for indices in (INDICES[:-1], torch.cat([INDICES, INDICES[:1]])):  # of another batch
        objective.set_batch(indices)
        with pytest.raises(ObjectiveError, match="call set_batch"):
            objective.terms(STUDENT, TEACHER, LABELS[INDICES])
    with pytest.raises(ObjectiveError, match="at least two, got 1"):
        make(samples=1)
    with pytest.raises(ObjectiveError, match="negatives must be a whole number above 0, got 0"):
        make(negatives=0)
    with pytest.raises(ObjectiveError, match="momentum must be in"):
        make(momentum=1.5)
    with pytest.raises(ObjectiveError, match="temperature must be above 0"):
        make(temperature=0.0)
