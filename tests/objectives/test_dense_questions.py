"""Terms over masks that answer questions: each is shown what it can use, at the resolution that it is for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from counterpoise.config import Term
from counterpoise.errors import ObjectiveError
from counterpoise.objectives.base import entries, means
from counterpoise.objectives.dense_questions import QuestionSum
from counterpoise.objectives.views import InParts
from counterpoise.outputs import Outputs

SIZE = (6, 8)


def draw(seed: int, questions: int) -> tuple[Outputs, Outputs, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (2 * torch.randn(3, questions, 3, 4, generator=generator) for _ in range(2))
    target = torch.randint(0, 2, (3, questions, *SIZE), generator=generator, dtype=torch.int8)
    target[0, :, :2] = -1
    return Outputs(student.requires_grad_()), Outputs(teacher), target


def built(**terms: dict[str, Any]) -> QuestionSum:
    return QuestionSum({name: Term(**values) for name, values in terms.items()}, "full", void=255)


def by_hand(logits: Tensor) -> Tensor:
    return F.interpolate(logits, size=SIZE, mode="bilinear", align_corners=False)


@pytest.mark.parametrize("questions", [1, 3])
@pytest.mark.parametrize(
    "name",
    ["binary_cross_entropy", "dice", "focal", "tversky", "focal_tversky", "lovasz_softmax", "lovasz_hinge", "boundary"],
)
def test_labels_are_asked_question_by_question_and_the_unknown_counts_nowhere(name: str, questions: int) -> None:
    student, teacher, target = draw(0, questions)
    sigmoid = {} if name in ("binary_cross_entropy", "lovasz_hinge") else {"sigmoid": True}
    found = built(**{name: sigmoid})(student, teacher, target).total
    objective = entries()[name].kind(**sigmoid)
    expected = means(objective.terms(Outputs(by_hand(student.logits)), None, target.float()))[""]
    torch.testing.assert_close(found, expected)
    other = target.clone()
    moved = student.logits.detach().clone()
    moved[0, :, :1] += 5.0  # known pixels below feel it a little, so compare where all of a picture is unknown
    other[0] = -1
    one, two = (built(**{name: sigmoid})(Outputs(each), teacher, other).total for each in (student.logits, moved))
    torch.testing.assert_close(one, two)


def test_the_teacher_is_listened_to_everywhere_or_but_for_void() -> None:
    student, teacher, target = draw(1, 2)
    sides = by_hand(student.logits), by_hand(teacher.logits)
    plain = entries()["binary_balance"].kind()
    torch.testing.assert_close(built(binary_balance={})(student, teacher, target).total, plain(*sides))
    void = torch.where((target < 0).all(1), 255, 0)
    known = entries()["binary_balance"].kind(ignore_index=255)
    found = built(binary_balance={"ignore_index": 255})(student, teacher, target).total
    torch.testing.assert_close(found, known(*sides, void))
    near = built(cwd={})(student, teacher, target).total
    torch.testing.assert_close(near, entries()["cwd"].kind()(student.logits, teacher.logits))


def test_a_batch_in_parts_has_the_gradient_of_the_whole() -> None:
    student, teacher, target = draw(2, 2)
    terms = {"binary_cross_entropy": {"pos_weight": [3.0, 1.0]}, "binary_balance": {}, "focal": {"sigmoid": True}}
    (whole,) = torch.autograd.grad(built(**terms)(student, teacher, target).total, student.logits)
    objective, batch = built(**terms), InParts([target[1:]])
    total: Any = 0.0
    for part in (slice(0, 1), slice(1, None)):
        sides = (Outputs(each.logits[part]) for each in (student, teacher))
        total = total + objective(*sides, target[part], batch=batch).total
    (parts,) = torch.autograd.grad(total, student.logits)
    torch.testing.assert_close(parts, whole)


def test_masks_of_classes_are_refused() -> None:
    student, teacher, target = draw(3, 2)
    with pytest.raises(ObjectiveError, match=r"need logits \[N, Q, h, w\] and masks \[N, Q, H, W\]"):
        built(binary_cross_entropy={})(student, teacher, target[:, 0].long())
