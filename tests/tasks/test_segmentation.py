"""Scores, reports, inference and pictures of semantic segmentation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from counterpoise.data.sources.base import IGNORE
from counterpoise.errors import ConfigError, DataError, ModelError
from counterpoise.models.network import SceneView, VisionModel
from counterpoise.system import torchvision_guard
from counterpoise.tasks import get
from counterpoise.tasks.confusion import confusion_matrix, largest_class, upsample
from counterpoise.tasks.segmentation import segment, slide

CLASSES = ("road", "tree", "sky", "car")


def sample(height: int = 12, width: int = 16, count: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits at a quarter of the resolution, and masks with void; no pixel and no answer is of the last class."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, 4, height // 4, width // 4, generator=generator)
    logits[:, 3] -= 20
    mask = torch.randint(0, 3, (count, height, width), generator=generator)
    mask[:, :2] = IGNORE
    return logits, mask


class Lightness(nn.Module):
    """Says at half the resolution whether an image is dark, grey or light there."""

    def forward(self, pixels: Tensor) -> Tensor:
        light = nn.functional.avg_pool2d(pixels.mean(1, keepdim=True), 2)
        return -(torch.cat([light - 0.1, light - 0.5, light - 0.9], 1) ** 2)


def model(net: nn.Module | None = None, classes: tuple[str, ...] = CLASSES[:3]) -> VisionModel:
    names = VisionModel(
        net or Lightness(),
        name="own/lightness",
        num_classes=len(classes),
        classes=classes,
        mean=(0, 0, 0),
        std=(1, 1, 1),
    )
    return names.eval()


def stripes(height: int = 24, width: int = 36) -> Tensor:
    """Three vertical stripes: dark, grey, light."""
    row = torch.tensor([25, 128, 230], dtype=torch.uint8).repeat_interleave(width // 3)
    return row.expand(3, height, width).contiguous()


def test_metrics_equal_torchmetrics() -> None:
    torchvision_guard.ready()
    from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix, MulticlassF1Score
    from torchmetrics.classification import MulticlassJaccardIndex as Jaccard

    logits, mask = sample()
    logits[:, 3] += 20
    mask[mask == 2] = 3
    answers = upsample(logits, (12, 16)).argmax(1)
    report = get("segmentation").report(CLASSES)
    report.update(logits, mask)
    values = report.values()

    def expected(metric: type, **options: str) -> Tensor:
        found: Tensor = metric(num_classes=4, ignore_index=IGNORE, **options)(answers, mask)
        return found

    assert values["confusion_matrix"] == expected(MulticlassConfusionMatrix).tolist()
    assert values["miou"] == pytest.approx(100 * expected(Jaccard, average="macro").item(), rel=1e-5)
    assert values["dice"] == pytest.approx(100 * expected(MulticlassF1Score, average="macro").item(), rel=1e-5)
    assert values["pixel_accuracy"] == pytest.approx(
        100 * expected(MulticlassAccuracy, average="micro").item(), rel=1e-5
    )
    by_class = expected(Jaccard, average="none")
    for index in (0, 1, 3):  # 2 is answered and never true
        assert values["per_class"][index]["iou"] == pytest.approx(100 * by_class[index].item(), rel=1e-5)


def test_report_is_json_and_names_classes_without_pixels() -> None:
    report = get("segmentation").report(CLASSES)
    assert report.values() == {"images": 0}
    logits, mask = sample()
    report.update(logits, mask)
    report.update(logits[:1], torch.full((1, 12, 16), IGNORE))
    values = json.loads(json.dumps(report.values()))
    assert values["images"] == 3
    assert values["per_class"][3] == {
        "class": "car", "iou": None, "dice": None, "precision": None, "recall": None, "pixels": 0
    }  # fmt: skip
    means = [sum(row[key] for row in values["per_class"][:3]) / 3 for key in ("iou", "dice", "recall")]
    assert means == pytest.approx([values["miou"], values["dice"], values["mean_class_accuracy"]])
    assert sum(row["pixels"] for row in values["per_class"]) == 3 * 10 * 16


def test_classes_that_never_occur_are_named_and_one_alone_is_no_score() -> None:
    logits, mask = sample()
    report = get("segmentation").report(CLASSES)
    report.update(logits, mask)
    assert report.values()["absent"] == ["car"]
    alone = get("segmentation").report(CLASSES)
    alone.update(logits, torch.where(mask == IGNORE, IGNORE, 1))
    with pytest.raises(DataError, match=f"no class but '{CLASSES[1]}': a score over one class is 100"):
        alone.values()


def test_score_adds_up_over_batches_and_agrees_with_the_report() -> None:
    task = get("segmentation")
    assert (task.headline, task.hub_name) == ("miou", "image-segmentation")
    logits, mask = sample()
    whole, first, second = (task.score(4) for _ in range(3))
    assert whole.values() == {}
    whole.update(logits, mask)
    first.update(logits[:1], mask[:1].to(torch.uint8))
    second.update(logits[1:], mask[1:])
    first.state = first.state + second.state
    assert first.state.dtype == torch.float64
    assert first.values() == whole.values()
    report = task.report(CLASSES)
    report.update(logits, mask)
    assert whole.values() == {key: report.values()[key] for key in ("miou", "dice", "pixel_accuracy")}


def test_perfect_answer_scores_one_hundred() -> None:
    mask = torch.arange(16).view(1, 4, 4) % 3
    logits = 9.0 * nn.functional.one_hot(mask, 3).permute(0, 3, 1, 2)
    score = get("segmentation").score(3)
    score.update(logits, mask)
    assert score.values() == {"miou": 100.0, "dice": 100.0, "pixel_accuracy": 100.0}


def test_masks_are_judged_at_their_own_size() -> None:
    logits = torch.zeros(1, 2, 1, 2)
    logits[0, 1, 0] = torch.tensor([-1.0, 1.0])  # class 1 from the middle on
    mask = (torch.arange(10) >= 5).long().expand(1, 7, 10)
    assert confusion_matrix(logits, mask).tolist() == [[35.0, 0.0], [0.0, 35.0]]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_of_equal_logits_the_first_class_is_answered(layout: torch.memory_format) -> None:
    generator = torch.Generator().manual_seed(0)
    for classes in (2, 11, 150):
        logits = torch.randint(0, 4, (3, classes, 17, 9), generator=generator).float().contiguous(memory_format=layout)
        assert largest_class(logits).tolist() == logits.numpy().argmax(1).tolist()
        assert largest_class(logits[0], 0).tolist() == logits[0].numpy().argmax(0).tolist()


def test_many_large_images_are_counted_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, mask = sample(count=5)
    whole = confusion_matrix(logits, mask)
    monkeypatch.setattr("counterpoise.tasks.confusion.VALUES_AT_ONCE", 4 * 12 * 16 * 2)
    assert torch.equal(confusion_matrix(logits, mask), whole)


def test_what_does_not_fit_is_refused() -> None:
    logits, mask = sample()
    with pytest.raises(DataError, match="A mask holds class 7; the network has 4"):
        confusion_matrix(logits, mask.clamp(max=7))
    with pytest.raises(DataError, match=r"Masks must be \[3, H, W\] for 3 images, got \[2, 12, 16\]"):
        confusion_matrix(logits, mask[:2])
    with pytest.raises(ModelError, match=r"needs logits \[N, C, h, w\], and the network gives \[3, 4\]"):
        confusion_matrix(logits.mean((2, 3)), mask)


def test_pseudo_target_is_a_mask_a_score_takes() -> None:
    task = get("segmentation")
    teacher = sample()[0]
    score = task.score(4)
    score.update(teacher, task.pseudo_target(teacher))
    assert score.values()["pixel_accuracy"] == 100


def test_segmenting_finds_what_is_there_at_the_size_of_the_image() -> None:
    mask = segment(model(), stripes())
    assert (mask.dtype, mask.shape) == (torch.uint8, (24, 36))
    assert mask[:, 0].unique().tolist() == [0]
    assert mask[:, 18].unique().tolist() == [1]
    assert mask[:, 35].unique().tolist() == [2]


@pytest.mark.parametrize(
    ("window", "stride"), [((8, 12), None), ((10, 10), (6, 4)), ((64, 64), None), ((24, 36), None)]
)
def test_sliding_window_of_a_local_network_agrees_with_the_whole_image(
    window: tuple[int, int], stride: tuple[int, int] | None
) -> None:
    images = stripes()[None]
    seen = slide(model(), images, window, stride)
    assert seen.shape == (1, 3, 24, 36)
    whole = upsample(model()(images), (24, 36))
    inside = torch.ones(36, dtype=torch.bool)
    inside[[10, 11, 12, 13, 22, 23, 24, 25]] = False  # where stripes meet, windows end between different pixels
    torch.testing.assert_close(seen[..., inside], whole[..., inside])
    by_window = model()
    by_window.scenes = SceneView(window=window)
    assert torch.equal(segment(by_window, images[0])[:, inside], segment(model(), images[0])[:, inside])


def test_reduced_scenes_are_answered_at_their_own_size() -> None:
    half = model()
    half.scenes = SceneView(reduction=2)
    mask = segment(half, stripes())
    assert mask.shape == (24, 36)
    assert [mask[:, column].unique().tolist() for column in (0, 18, 35)] == [[0], [1], [2]]


def test_sliding_window_is_the_mean_of_the_windows_over_a_pixel() -> None:
    class Middle(nn.Module):
        """The lightness of the whole window, everywhere in it."""

        def forward(self, pixels: Tensor) -> Tensor:
            return pixels.mean((1, 2, 3)).view(-1, 1, 1, 1).expand(-1, 2, *pixels.shape[2:])

    images = torch.tensor([0, 51, 102, 153, 204], dtype=torch.uint8).view(1, 1, 1, 5).expand(1, 3, 1, 5)
    seen = slide(model(Middle(), CLASSES[:2]), images, (1, 2), (1, 1))
    torch.testing.assert_close(seen[0, 0, 0], torch.tensor([0.1, 0.2, 0.4, 0.6, 0.7]))


@pytest.mark.parametrize("stride", [(9, 4), (0, 4), (4, -1)])
def test_window_that_leaves_gaps_is_refused(stride: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match=r"A window of \(8, 8\) moved by .* leaves gaps"):
        slide(model(), stripes()[None], (8, 8), stride)


def test_prediction_names_the_classes_by_their_share(tmp_path: Path) -> None:
    image = stripes().permute(1, 2, 0).numpy().copy()
    image[:, 12:24] = 230
    Image.fromarray(image).save(tmp_path / "stripes.png")
    for picture in (image, tmp_path / "stripes.png"):
        (answer,) = get("segmentation").predict(model(), [picture])
        assert (answer["height"], answer["width"]) == (24, 36)
        assert [row["class"] for row in answer["classes"]][:2] == ["sky", "road"]
        assert sum(row["share"] for row in answer["classes"]) == pytest.approx(1)
        assert answer["classes"][0]["share"] == pytest.approx(2 / 3, abs=0.03)
        json.dumps(answer)


def test_network_of_whole_pictures_is_refused() -> None:
    classifier = model(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    for window in (None, (8, 8)):
        classifier.scenes = SceneView(window=window)
        with pytest.raises(ModelError, match=r"Segmentation needs logits \[N, C, h, w\]"):
            segment(classifier, stripes())


@pytest.mark.parametrize("window", [None, (24, 36)])
def test_what_a_network_answers_as_probabilities_is_not_softened_again(window: tuple[int, int] | None) -> None:
    task: Any = get("segmentation")
    for net in (Lightness(), nn.Sequential(Lightness(), nn.Softmax(1))):
        network = model(net)
        network.scenes = SceneView(1.0, window, 0.5, "mean")
        found = task.answer_of(network, stripes(), soft=True)[1]
        answer = upsample(network(stripes()[None]), (24, 36))[0]
        torch.testing.assert_close(found, answer.softmax(0) if isinstance(net, Lightness) else answer)
