"""The teacher itself, asked at every step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from counterpoise.errors import ModelError
from counterpoise.models.network import VisionModel, are_probabilities
from counterpoise.outputs import Outputs


def refusal_of_probabilities(name: str) -> str:
    """Why a teacher is refused that was seen to answer with probabilities, and the way out."""
    return (
        f"The teacher {name} answers probabilities, from 0 on with a sum of 1, and losses take the softmax of what it "
        "answers. With teacher.outputs: probabilities (--teacher.outputs) their logarithm is taken; where these are "
        "its logits, say teacher.outputs: logits."
    )


class LiveTeacher:
    """A frozen network in eval mode: never trained, never counted, never saved with the student.

    Args:
        model: the network; moved to `device`, or in shards there already.
        precision: dtype of autocast; float32 is none.
    """

    def __init__(self, model: VisionModel, device: torch.device, precision: torch.dtype = torch.float32) -> None:
        self.model = model.to(device).eval().requires_grad_(False)
        self.device = device
        self.precision = precision
        self._looked = model.outputs != "auto"

    def __call__(self, images: Tensor, features: Sequence[str] = ()) -> Outputs:
        """Logits and named features for images [N, 3, H, W], uint8 or float in [0, 1]."""
        half = self.precision != torch.float32
        with torch.inference_mode(), torch.autocast(self.device.type, self.precision, enabled=half):
            outputs = (
                self.model(images.to(self.device), features)
                if features
                else Outputs(self.model(images.to(self.device)))
            )
        if not self._looked and not (self.device.type == "cuda" and torch.cuda.is_current_stream_capturing()):
            self._looked = True
            if are_probabilities(outputs.logits):
                raise ModelError(refusal_of_probabilities(self.model.name))
        # Tensors born in inference mode may not be saved for a backward pass; copies made outside of it may.
        return Outputs(outputs.logits.clone(), {name: value.clone() for name, value in outputs.features.items()})
