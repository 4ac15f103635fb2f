"""What the temperature map tells of each student beside accuracy; see temperature_map.py."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.optimize import minimize_scalar
from scipy.stats import rankdata
from torch import Tensor

from counterpoise import config
from counterpoise.data import sources
from counterpoise.data.sources.arrays import ArraySet
from counterpoise.engine.student import load_student
from counterpoise.models import catalog
from counterpoise.models.network import VisionModel
from counterpoise.objectives.gauge import Gauge

FAR = 10_000
COVERED = 0.8


class Judge:
    """The test images, those that were held out of training, pictures of no class, and the teacher's answers.

    Args:
        images: CIFAR-100, as for the runs.
        teacher: its weights.
        far: a folder of pictures; 10,000 are taken, evenly over the names.
        held_out: training images that no run was trained on.
    """

    NAMES = (
        "top1",
        "agreement",
        "forward_kl",
        "reverse_kl",
        "calibration_error",
        "fitted_temperature",
        "calibration_error_fitted",
        "top1_at_80",
        "auroc_far",
    )

    def __init__(self, images: Path, teacher: Path, far: Path, held_out: int) -> None:
        self.held, self.test = (validation(images, number) for number in (held_out, 0))
        files = sorted(path for path in far.rglob("*.png"))
        step = max(1, len(files) // FAR)
        self.far = torch.stack([_picture(path) for path in files[::step][:FAR]])
        network = catalog.build("cifar/wrn_16_2", num_classes=100, checkpoint=teacher)
        self.teacher = answers(network, self.test.images)

    def scores(self, run: Path) -> dict[str, float]:
        """Of a student, in percent, nats and temperatures.

        top1: test images. agreement: its first class is the teacher's. Divergences: at temperature 1, forward from the
        teacher. calibration_error: ECE of 15 bins, and after dividing logits by the one temperature that is most likely
        on the images held out. top1_at_80: of the 80% of test images of which it is surest. auroc_far: how well the
        largest probability tells test images from pictures of no class; 50 is chance.
        """
        student = load_student(run)
        held, test, far = (answers(student, images) for images in (self.held.images, self.test.images, self.far))
        gauge = _gauge(test, self.teacher, self.test.labels)
        fitted = _temperature(held, self.held.labels)
        sure = test.softmax(1).amax(1)
        right = test.argmax(1) == self.test.labels
        kept = sure.argsort(descending=True, stable=True)[: round(COVERED * len(sure))]
        found = {
            "top1": 100 * float(right.float().mean()),
            "agreement": gauge["agreement"]["top1"],
            "forward_kl": gauge["forward_kl"],
            "reverse_kl": gauge["reverse_kl"],
            "calibration_error": gauge["calibration"]["student"]["calibration_error"],
            "fitted_temperature": fitted,
            "calibration_error_fitted": _gauge(test / fitted, self.teacher, self.test.labels)["calibration"]["student"][
                "calibration_error"
            ],
            "top1_at_80": 100 * float(right[kept].float().mean()),
            "auroc_far": auroc(sure, far.softmax(1).amax(1)),
        }
        return {name: round(found[name], 4) for name in self.NAMES}


@torch.inference_mode()
def answers(model: VisionModel, images: Tensor) -> Tensor:
    """Logits [N, C] of uint8 images [N, 3, H, W]."""
    model.eval()
    return torch.cat([model(part).float() for part in torch.split(images, 250)])


def auroc(inside: Tensor, outside: Tensor) -> float:
    """In percent, how often one from inside is above one from outside, ties counted half (Mann and Whitney 1947)."""
    ranks = rankdata(np.concatenate([inside.numpy(), outside.numpy()]))
    above = ranks[: len(inside)].sum() - len(inside) * (len(inside) + 1) / 2
    return 100 * float(above / (len(inside) * len(outside)))


def _picture(path: Path) -> Tensor:
    """uint8 [3, H, W]."""
    with Image.open(path) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).contiguous()


def validation(images: Path, held_out: int) -> ArraySet:
    """Of CIFAR-100, so many of the training images; 0 is the test images."""
    data = config.Data(path=images, source="cifar", held_out=held_out)
    val = sources.in_memory(sources.load(data).val, 10**9)
    assert isinstance(val, ArraySet)
    return val


def _gauge(student: Tensor, teacher: Tensor, labels: Tensor) -> dict[str, dict[str, dict[str, float]]]:
    gauge = Gauge(student.shape[1])
    gauge.update(student, teacher, labels)
    return gauge.compute()


def _temperature(logits: Tensor, labels: Tensor) -> float:
    """That of the least cross-entropy (Guo et al. 2017, "On calibration of modern neural networks")."""
    found = minimize_scalar(lambda log: float(F.cross_entropy(logits / math.exp(log), labels)), bounds=(-3, 3))
    return math.exp(found.x)
