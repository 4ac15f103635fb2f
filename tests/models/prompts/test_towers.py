"""CLIP, SigLIP and SigLIP 2 as classifiers, beside what transformers itself answers with the same weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from counterpoise.errors import ModelError
from counterpoise.models import catalog
from counterpoise.models.network import VisionModel
from counterpoise.models.prompts import reading
from counterpoise.models.prompts.network import by_prompts
from counterpoise.models.several_views import SeveralViews
from counterpoise.system import torchvision_guard

torchvision_guard.ready()
transformers = pytest.importorskip("transformers", reason="needs the extra hf")
WordModel = Callable[[str], Path]
LABELS = ("cat", "polar bear", "small dog")
CPU = torch.device("cpu")
KINDS = ("clip", "siglip", "siglip2")


def classifier(folder: Path, values: Any = LABELS) -> VisionModel:
    prompts = reading.parse(list(values) if isinstance(values, tuple) else values, "here")
    return catalog.prompted(f"hf/{folder}", prompts, CPU).eval()


def sentences(template: str) -> dict[str, str]:
    return {label: template.format(label) for label in LABELS}


@pytest.fixture(scope="session")
def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8))


def pixels(picture: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_those_of_the_zero_shot_pipeline(kind: str, word_model: WordModel, picture: Image.Image) -> None:
    theirs = transformers.pipeline("zero-shot-image-classification", model=str(word_model(kind)), device="cpu")
    template = "a photo of a {}."
    given = theirs.preprocess(picture, candidate_labels=list(LABELS), hypothesis_template=template)
    model = classifier(word_model(kind), sentences(template))
    with torch.no_grad():
        expected = theirs._forward(given)["logits"]
        logits = model(pixels(picture))
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)
    scores = logits[0].softmax(0) if kind == "clip" else logits[0].sigmoid()
    told = {
        one["label"]: one["score"] for one in theirs(picture, candidate_labels=[*LABELS], hypothesis_template=template)
    }
    assert dict(zip(LABELS, scores.tolist(), strict=True)) == pytest.approx(told, abs=1e-4)
    assert (model.classes, model.input_size, model.crop_share) == (LABELS, 16, 1.0)


def test_several_sentences_are_the_mean_of_their_directions(word_model: WordModel) -> None:
    one, two = ("a photo of a {}.", "small {}")
    heads = [
        by_prompts(classifier(word_model("clip"), sentences(one))),
        by_prompts(classifier(word_model("clip"), sentences(two))),
    ]
    both = by_prompts(classifier(word_model("clip"), {label: [one, two] for label in LABELS}))
    assert both is not None
    mean = sum(head.head for head in heads if head is not None) / 2
    torch.testing.assert_close(both.head, mean / mean.norm(dim=1, keepdim=True))


def test_a_class_without_a_prompt_is_the_answer_where_no_other_is_nearer_than_its_cosine(word_model: WordModel) -> None:
    images = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
    plain = classifier(word_model("siglip"), {"cat": "a cat", "dog": "a dog"})
    model = classifier(word_model("siglip"), {"cat": "a cat", "none": {"cosine": 0.25}, "dog": "a dog"})
    net = by_prompts(model)
    assert net is not None
    with torch.no_grad():
        torch.testing.assert_close(model(images)[:, [0, 2]], plain(images))
        torch.testing.assert_close(model(images)[:, 1], torch.full((3,), 0.25 * net.scale + net.bias))


def test_the_head_is_no_weight_and_answers_in_float32_whatever_the_towers_do(word_model: WordModel) -> None:
    model = classifier(word_model("clip"))
    assert not any(name == "head" or "text" in name for name in model.weights())
    images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert model(images).dtype == torch.float32


def test_a_word_that_is_said_otherwise_is_another_teacher(word_model: WordModel) -> None:
    from counterpoise.teachers import identity

    known, same, other = (
        identity.of(classifier(word_model("clip"), values), torch.float32)
        for values in (LABELS, LABELS, ("cat", "polar bear", "dog"))
    )
    assert identity.differences(known, same) == []
    assert {name for name, _, _ in identity.differences(known, other)} == {"prompts", "encoder of words"}
    model = classifier(word_model("clip"))
    model.net = SeveralViews(model.net, 2, False)
    assert identity.of(model, torch.float32)["prompts"] == known["prompts"]


def test_folders_that_do_not_fit_are_refused_with_the_reason(word_model: WordModel, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(word_model("clip"), tmp_path / "broken"))
    from safetensors.torch import load_file, save_file

    weights = load_file(broken / "model.safetensors")
    del weights["text_projection.weight"]
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 1 of its weights, such as text_projection.weight"):
        classifier(broken)
    described = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(
        json.dumps({**described, "model_type": "vit", "auto_map": {"AutoConfig": "x.Y"}})
    )
    with pytest.raises(ModelError, match=r"of type vit, which takes no words"):
        classifier(broken)
    with pytest.raises(ModelError, match=r"its description \(config.json\) cannot be read"):
        classifier(tmp_path / "nowhere")
    with pytest.raises(ModelError, match=r"timm/resnet50 takes no words; prompts are for .*hf/NAME"):
        catalog.prompted("timm/resnet50", reading.parse([*LABELS], ""), CPU)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"cat": "cat " * 70, "dog": "dog"}, "reads 64 tokens of a sentence, and 'cat cat"),
        ({"cat": "a lynx", "dog": "a puma"}, "reads the same in 'a lynx' ('cat') and in 'a puma' ('dog')"),
    ],
)
def test_sentences_that_are_not_read_whole_or_apart_are_refused(
    values: dict[str, str], told: str, word_model: WordModel
) -> None:
    with pytest.raises(ModelError) as raised:
        classifier(word_model("clip"), values)
    assert told in str(raised.value)
