"""Networks of transformers for pictures, with a classifier and without one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import counterpoise
from counterpoise.errors import CounterpoiseError, ModelError
from counterpoise.models import catalog, checkpoint
from counterpoise.system import torchvision_guard

torchvision_guard.ready()
transformers = pytest.importorskip("transformers", reason="needs the extra hf")

TOKENS: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "image_size": 32,
    "patch_size": 8,
}
MAPS: dict[str, Any] = {"hidden_sizes": [8, 8, 8, 16], "depths": [1, 1, 1, 1]}
WINDOWS: dict[str, Any] = {
    "image_size": 32,
    "patch_size": 2,
    "embed_dim": 8,
    "depths": [1, 1],
    "num_heads": [1, 2],
    "window_size": 4,
}
WITH_CLASSIFIER: dict[str, dict[str, Any]] = {
    "BeitForImageClassification": {**TOKENS, "use_relative_position_bias": True},
    "ConvNextForImageClassification": MAPS,
    "ConvNextV2ForImageClassification": MAPS,
    "DeiTForImageClassification": TOKENS,
    "DeiTForImageClassificationWithTeacher": TOKENS,
    "Dinov2ForImageClassification": TOKENS,
    "Dinov2WithRegistersForImageClassification": TOKENS,
    "IJepaForImageClassification": TOKENS,
    "RegNetForImageClassification": {**MAPS, "embedding_size": 8, "groups_width": 4},
    "ResNetForImageClassification": {**MAPS, "embedding_size": 8},
    "SwinForImageClassification": WINDOWS,
    "Swinv2ForImageClassification": WINDOWS,
    "ViTForImageClassification": TOKENS,
    "ViTMSNForImageClassification": TOKENS,
}
DECODER = {f"decoder_{key}": value for key, value in TOKENS.items() if key not in ("image_size", "patch_size")}
WORDS = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 9}
BARE: dict[str, dict[str, Any]] = {
    "BeitModel": TOKENS,
    "CLIPModel": {"vision_config": TOKENS, "text_config": WORDS},
    "CLIPVisionModel": TOKENS,
    "DINOv3ConvNextModel": MAPS,
    "DINOv3ViTModel": {**TOKENS, "num_register_tokens": 4},
    "Dinov2Model": TOKENS,
    "ResNetModel": {**MAPS, "embedding_size": 8},
    "SiglipModel": {"vision_config": TOKENS, "text_config": WORDS},
    "SwinModel": WINDOWS,
    "ViTMAEForPreTraining": {**TOKENS, **DECODER},
    "ViTMAEModel": {**TOKENS, **DECODER},
    "ViTModel": TOKENS,
}
POOLED = {"BeitModel", "DINOv3ConvNextModel", "DINOv3ViTModel", "ResNetModel", "SwinModel", "CLIPVisionModel"}
"""Those whose pooled answer is just what a classifier is given."""
PROCESSOR = {"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 2, 3], "size": {"height": 32, "width": 32}}
NAMES = ("cat", "dog", "fox")


def saved(kind: str, settings: dict[str, Any], folder: Path, **more: Any) -> Any:
    """A network of random weights, saved to a folder as transformers does."""
    torch.manual_seed(0)
    network = getattr(transformers, kind)
    theirs = network(network.config_class(**settings, **more)).eval()
    for value in theirs.parameters():  # so that none answers zeros, or does without a part of it
        torch.nn.init.normal_(value, std=0.2)
    theirs.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    return theirs


@pytest.fixture
def vit(tmp_path: Path) -> Path:
    saved("ViTForImageClassification", TOKENS, tmp_path / "vit", id2label=dict(enumerate(NAMES)))
    return tmp_path / "vit"


@pytest.mark.parametrize("kind", WITH_CLASSIFIER)
def test_answers_and_features_are_those_of_transformers(kind: str, tmp_path: Path) -> None:
    theirs = saved(kind, WITH_CLASSIFIER[kind], tmp_path, id2label=dict(enumerate(NAMES)))
    model = catalog.build(f"hf/{tmp_path}", pretrained=True).eval()
    assert (model.task, model.classes, model.input_size, model.notes) == ("classification", NAMES, 32, ())
    assert model.normalization == {"mean": (0.1, 0.2, 0.3), "std": (1.0, 2.0, 3.0)}
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        expected = theirs(model.normalize(images)).logits
        found = model(images, features=[f"@{index}" for index in range(len(model.stages))])
    torch.testing.assert_close(found.logits, expected, atol=1e-5, rtol=0)
    assert expected.abs().max() > 0.01
    assert len(model.stages) >= 2
    assert all(feature.ndim in (3, 4) for feature in found.features.values())


@pytest.mark.parametrize("kind", BARE)
def test_a_network_without_a_classifier_gets_one_that_is_untrained(kind: str, tmp_path: Path) -> None:
    theirs = saved(kind, BARE[kind], tmp_path)
    with pytest.raises(ModelError, match="has no classifier"):
        catalog.build(f"hf/{tmp_path}", pretrained=True)
    model = catalog.build(f"hf/{tmp_path}", num_classes=5, pretrained=True, keep_head=False).eval()
    pixels = torch.rand(2, 3, 32, 32)
    from counterpoise.models import probing

    with probing.features_of(probing.head_of(model, pixels)) as caught, torch.no_grad():
        assert model(pixels).shape == (2, 5)
        if kind in POOLED:
            expected = theirs(model.normalize(pixels)).pooler_output.flatten(1)
        elif kind == "Dinov2Model":
            tokens = theirs(model.normalize(pixels)).last_hidden_state
            expected = torch.cat([tokens[:, 0], tokens[:, 1:].mean(1)], 1)
        elif kind == "ViTModel":
            expected = theirs(model.normalize(pixels)).last_hidden_state[:, 0]
        elif kind.startswith("ViTMAE"):
            theirs.config.mask_ratio = 0.0
            encoder = getattr(theirs, "vit", theirs)
            expected = encoder(model.normalize(pixels)).last_hidden_state[:, 0]
        else:
            expected = theirs.vision_model(pixel_values=model.normalize(pixels)).pooler_output
    torch.testing.assert_close(caught[0], expected, atol=1e-5, rtol=1e-5)


def test_layers_that_a_network_has_not_are_refused_and_other_parts_said(vit: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"not expected: vit\.\S*layers?\.1\."):
        catalog.build(f"hf/{vit}", num_classes=3, pretrained=True, arguments={"num_hidden_layers": 1})
    saved("ViTModel", TOKENS, tmp_path / "bare")
    notes = catalog.build(f"hf/{tmp_path / 'bare'}", num_classes=3, pretrained=True, keep_head=False).notes
    assert any("pooler.dense.bias, pooler.dense.weight is no part of the network, and left out" in n for n in notes)


def test_a_student_is_built_again_without_the_folder_it_came_from(vit: Path, tmp_path: Path) -> None:
    model = catalog.build(f"hf/{vit}", num_classes=7, pretrained=True, keep_head=False)
    assert "starts anew" in model.notes[0]
    assert json.loads(json.dumps(model.arguments)) == model.arguments
    save_file(model.weights(), tmp_path / "student.safetensors")
    (vit / "config.json").unlink()
    again = catalog.build(f"hf/{vit}", checkpoint=tmp_path / "student.safetensors", arguments=model.arguments)
    assert (again.num_classes, again.weights_hash()) == (7, model.weights_hash())


def test_two_heads_start_from_the_one_of_a_folder(vit: Path) -> None:
    model = catalog.build(f"hf/{vit}", pretrained=True, arguments={"two_heads": True})
    heads = [model.weights()[f"classifier.{side}.weight"] for side in ("labels", "teacher")]
    own = load_file(vit / "model.safetensors")["classifier.weight"]
    assert all(torch.equal(head, own) for head in heads)


def test_positions_are_resampled_to_another_input_size_as_transformers_does(vit: Path) -> None:
    model = catalog.build(f"hf/{vit}", pretrained=True, input_size=48).eval()
    assert (model.input_size, model.arguments["image_size"]) == (48, 48)
    theirs = transformers.ViTForImageClassification.from_pretrained(vit).eval()
    pixels = torch.rand(2, 3, 48, 48)
    with torch.no_grad():
        expected = theirs(pixels, interpolate_pos_encoding=True).logits
        torch.testing.assert_close(model.net(pixels).logits, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("processor", "expected"),
    [
        ({"size": {"shortest_edge": 40}, "crop_size": {"height": 28, "width": 28}}, (28, 0.7)),
        ({"size": 36, "do_center_crop": False}, (36, 1.0)),
        ({"size": {"shortest_edge": 28}, "crop_pct": 0.875}, (28, 0.875)),
        (None, (32, 1.0)),
    ],
    ids=["crop", "whole", "share", "unsaid"],
)
def test_pictures_are_shown_as_the_folder_says(processor: Any, expected: Any, tmp_path: Path) -> None:
    saved("Dinov2Model", TOKENS, tmp_path)
    path = tmp_path / "preprocessor_config.json"
    path.unlink() if processor is None else path.write_text(json.dumps({**PROCESSOR, **processor}))
    model = catalog.build(f"hf/{tmp_path}", num_classes=2, pretrained=True, keep_head=False)
    assert (model.input_size, model.crop_share) == expected
    assert any("how pixels are normalized" in note for note in model.notes) == (processor is None)


def test_a_backbone_is_probed_and_its_features_teach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the cache of the hub, as its client leaves it there."""
    snapshot = tmp_path / "hub" / "models--someone--tiny" / "snapshots" / ("0" * 40)
    saved("Dinov2Model", TOKENS, snapshot)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))

    data = {"source": "digits", "options": {"train_size": 200}}
    teacher, train = {"model": "hf/someone/tiny", "pretrained": True}, {"device": "cpu", "epochs": 1}
    found = counterpoise.probe({"data": data, "teacher": teacher, "train": train}, out=tmp_path / "probed")
    assert (found["features"], found["notes"]) == (32, [])
    assert found["top1"] == pytest.approx(counterpoise.evaluate(tmp_path / "probed", data={"data": data})["top1"])
    objective = {"features": {"weight": 1.0, "grid": True}}
    student = {"model": "digits/cnn_4_8"}
    run = {"data": data, "teacher": teacher, "train": train, "objective": objective, "student": student}
    summary = counterpoise.distill({**run, "out": str(tmp_path / "run")})
    assert "explained" in json.dumps(summary, default=str)


@pytest.mark.parametrize("safe", [True, False])
def test_weights_in_several_files_are_one_network(vit: Path, tmp_path: Path, safe: bool) -> None:
    net = transformers.ViTForImageClassification.from_pretrained(vit)
    parts, state = tmp_path / "parts", load_file(vit / "model.safetensors")
    net.save_pretrained(parts, max_shard_size="6KB")
    assert len(list(parts.glob("*.safetensors"))) > 1
    index = parts / "model.safetensors.index.json"
    if not safe:
        for file in parts.glob("*.safetensors"):
            torch.save(load_file(file), parts / f"{file.stem}.bin")
            file.unlink()
        index.write_text(index.read_text().replace(".safetensors", ".bin"))
        index = index.rename(parts / "pytorch_model.bin.index.json")
    whole, several = (catalog.build(f"hf/{folder}", pretrained=True) for folder in (vit, parts))
    assert whole.weights_hash() == several.weights_hash()
    read = checkpoint.read(index).state
    assert all(read[name].equal(value) for name, value in state.items())
    for name in ("../vit/model.safetensors", "..", "", index.name):
        index.write_text(json.dumps({"weight_map": {"a": name}}))
        with pytest.raises(ModelError, match="expected files of weights beside it"):
            checkpoint.read(index)
    index.write_text(json.dumps({"weight_map": {"a": "long" * 100}}))
    with pytest.raises(ModelError, match="does not exist"):
        checkpoint.read(index)


def test_mistakes_are_named(vit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        ModelError, match=r"no folder someone/vit with a config\.json\. .* cannot be fetched[^|]*Bring the"
    ):
        catalog.build("hf/someone/vit", pretrained=True)
    with pytest.raises(ModelError, match="Argument 'wings' is unknown"):
        catalog.build(f"hf/{vit}", pretrained=True, arguments={"wings": 2})
    with pytest.raises(ModelError, match="Kind of network 'bert' is unknown"):
        catalog.build(f"hf/{vit}", num_classes=2, arguments={"model_type": "bert"})
    with pytest.raises(ModelError, match="cannot be built"):
        catalog.build(f"hf/{vit}", num_classes=2, arguments={"hidden_act": "wings"})
    (vit / "preprocessor_config.json").write_text('{"rescale_factor": 1}')
    with pytest.raises(ModelError, match="rescale_factor is 1, expected 1/255"):
        catalog.build(f"hf/{vit}", pretrained=True)
    (vit / "preprocessor_config.json").write_text('{"size": 9999999}')
    with pytest.raises(ModelError, match="9999999 pixels an edge, expected 1 to"):
        catalog.build(f"hf/{vit}", pretrained=True)
    (vit / "preprocessor_config.json").write_text("null")
    with pytest.raises(ModelError, match="holds no mapping of names to values"):
        catalog.build(f"hf/{vit}", pretrained=True)
    (vit / "preprocessor_config.json").write_text('{"size": {"height": 3, "width": 4}}')
    with pytest.raises(ModelError, match="3 x 4, expected a square"):
        catalog.build(f"hf/{vit}", pretrained=True)
    (vit / "config.json").write_text('{"model_type": "vit", "auto_map": {"AutoModel": "evil.Model"}}')
    (vit / "preprocessor_config.json").unlink()
    with pytest.raises(CounterpoiseError, match="does not fit"):
        catalog.build(f"hf/{vit}", pretrained=True)
