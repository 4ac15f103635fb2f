"""What of a student is exported: pixels of one size in, logits out."""

from __future__ import annotations

from torch import Tensor, nn

from counterpoise import tasks
from counterpoise.models.network import VisionModel


class Deployed(nn.Module):
    """A student as it answers in evaluation, with its normalization and, over scenes, its sliding window.

    Args:
        student: put in eval mode.

    Attributes:
        student: it; names of layers begin with this.
    """

    def __init__(self, student: VisionModel) -> None:
        super().__init__()
        self.student = student
        self.eval()

    def forward(self, pixels: Tensor) -> Tensor:
        """uint8 [N, 3, H, W] -> float32 [N, C] or [N, C, h, w]."""
        return tasks.get(self.student.task).answer(self.student, pixels)
