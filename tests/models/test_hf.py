from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import counterpoise
from counterpoise.errors import ModelError
from counterpoise.models import catalog
from counterpoise.system import torchvision_guard
from counterpoise.tasks.confusion import upsample

torchvision_guard.ready()
transformers = pytest.importorskip("transformers", reason="needs the extra hf")

TINY: dict[str, Any] = {"hidden_sizes": [8, 16, 16, 32], "depths": [1, 1, 1, 1], "decoder_hidden_size": 16}


def image(height: int, width: int) -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8)


@pytest.fixture(scope="session")
def theirs() -> Any:
    config = transformers.SegformerConfig(
        **TINY, num_attention_heads=[1, 2, 2, 4], id2label={0: "road", 1: "sky", 2: "tree"}
    )
    return transformers.SegformerForSemanticSegmentation(config).eval()


@pytest.fixture
def folder(theirs: Any, tmp_path: Path) -> Path:
    """A folder as transformers saves it."""
    path = tmp_path / "segformer-tiny"
    theirs.save_pretrained(path)
    (path / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 2, 3]}))
    return path


def test_folder_gives_network_weights_classes_and_normalization(folder: Path, theirs: Any) -> None:
    model = catalog.build(f"hf/{folder}", pretrained=True).eval()
    assert (model.task, model.num_classes, model.classes) == ("segmentation", 3, ("road", "sky", "tree"))
    assert model.normalization == {"mean": (0.1, 0.2, 0.3), "std": (1.0, 2.0, 3.0)}
    pixels = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        assert torch.equal(model.net(pixels).logits, theirs(pixels).logits)
    assert model(image(45, 70)).shape == (2, 3, 12, 18)


def test_weights_file_of_a_folder_is_a_checkpoint(folder: Path, theirs: Any) -> None:
    model = catalog.build(f"hf/{folder}", checkpoint=folder / "model.safetensors")
    assert model.num_classes == 3
    assert torch.equal(model.weights()["decode_head.classifier.bias"], theirs.decode_head.classifier.bias)


def test_student_starts_from_a_folder_with_a_head_of_its_own(folder: Path, theirs: Any) -> None:
    model = catalog.build(f"hf/{folder}", num_classes=5, pretrained=True, keep_head=False)
    assert model.weights()["decode_head.classifier.weight"].shape == (5, 16, 1, 1)
    assert torch.equal(model.weights()["decode_head.linear_fuse.weight"], theirs.decode_head.linear_fuse.weight)
    with pytest.raises(ModelError, match="has 3 classes, expected 5"):
        catalog.build(f"hf/{folder}", num_classes=5, pretrained=True)


def test_encoder_alone_starts_a_student_but_is_no_teacher(folder: Path, tmp_path: Path) -> None:
    whole = catalog.build(f"hf/{folder}", pretrained=True).weights()
    path = tmp_path / "encoder.safetensors"
    save_file({key: value for key, value in whole.items() if not key.startswith("decode_head.")}, path)
    student = catalog.build(f"hf/{folder}", num_classes=5, checkpoint=path, keep_head=False).weights()
    assert all(torch.equal(student[key], whole[key]) for key in whole if not key.startswith("decode_head."))
    with pytest.raises(ModelError, match="no classifier"):
        catalog.build(f"hf/{folder}", num_classes=5, checkpoint=path)


def test_half_of_a_decoder_is_refused(folder: Path, tmp_path: Path) -> None:
    whole = catalog.build(f"hf/{folder}", pretrained=True).weights()
    path = tmp_path / "half.safetensors"
    save_file({key: value for key, value in whole.items() if not key.startswith("decode_head.linear_fuse")}, path)
    with pytest.raises(ModelError, match=r"missing: decode_head\.linear_fuse\.weight"):
        catalog.build(f"hf/{folder}", num_classes=3, checkpoint=path)


def test_trained_student_needs_the_folder_no_more(folder: Path, tmp_path: Path) -> None:
    model = catalog.build(f"hf/{folder}", pretrained=True)
    path = tmp_path / "student.safetensors"
    save_file(model.weights(), path)
    (folder / "config.json").unlink()
    again = catalog.build(f"hf/{folder}", num_classes=3, checkpoint=path, arguments=model.arguments)
    assert again.weights_hash() == model.weights_hash()
    assert json.loads(json.dumps(model.arguments)) == model.arguments


def test_it_asks_questions_as_teacher_and_as_student(folder: Path, tmp_path: Path) -> None:
    asked = {"road": ["0", "6", "8", "9"], "sky": ["0", "2", "4"], "tree": ["1", "7"]}
    options = {"train_size": 8, "val_size": 4, "edge": 32}
    run = {
        "task": "multilabel_segmentation",
        "data": {"source": "digit_scenes", "options": options, "questions": asked, "workers": 0},
        "teacher": {
            "model": f"hf/{folder}", "checkpoint": str(folder / "model.safetensors"), "accept_chance": True
        },
        "student": {"model": f"hf/{folder}", "pretrained": True},
        "objective": {"binary_cross_entropy": {}, "binary_balance": {}, "dice": {}},
        "train": {"epochs": 1, "batch_size": 4, "device": "cpu", "precision": "fp32", "log_every": 1},
        "out": str(tmp_path / "run"),
    }  # fmt: skip
    result = counterpoise.distill(run)
    lines = map(json.loads, (result.folder / "metrics.jsonl").read_text().splitlines())
    assert all(math.isfinite(value) for line in lines for value in line.get("terms", {}).values())
    network = counterpoise.load_student(result.folder)
    assert (network.classes, len(network.thresholds or ())) == (tuple(asked), 3)
    assert counterpoise.evaluate(result.folder)["map"] == pytest.approx(result.last["map"])
    pixels = image(32, 32)[0].permute(1, 2, 0).numpy()
    (answer,) = counterpoise.predict([pixels], student=result.folder, out=tmp_path / "out", probabilities="tiff")
    soft = np.stack([np.asarray(Image.open(path)) for path in answer["probabilities"].values()])
    with torch.inference_mode():
        logits = network(torch.from_numpy(pixels).permute(2, 0, 1)[None])
    assert np.allclose(soft, upsample(logits, (32, 32)).sigmoid()[0].numpy(), atol=1e-6)
    masks = [np.asarray(Image.open(path)) > 0 for path in answer["masks"]]
    for mask, belief, threshold in zip(masks, soft, network.thresholds or (), strict=True):
        assert (mask == (belief >= threshold)).mean() > 0.99


def test_published_size_is_built_with_gradients_everywhere() -> None:
    model = catalog.build("hf/segformer-b0", num_classes=4, arguments={"drop_path_rate": 0.0})
    assert sum(parameter.numel() for parameter in model.parameters()) == 3_715_172  # 3.7 M in the paper's table 1
    outputs = model(image(64, 64), features=["@-1"])
    assert outputs.logits.shape == (2, 4, 16, 16)
    assert outputs.features["@-1"].shape == (2, 256, 16, 16)
    outputs.logits.square().mean().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_mistakes_are_named(folder: Path) -> None:
    with pytest.raises(ModelError, match=r"no folder with a config\.json.* Did you mean 'segformer-b0'"):
        catalog.build("hf/segformr-b0", num_classes=2)
    with pytest.raises(ModelError, match="Argument 'wings' is unknown"):
        catalog.build("hf/segformer-b0", num_classes=2, arguments={"wings": 2})
    with pytest.raises(ModelError, match="no weights of tag 'ade'"):
        catalog.build("hf/segformer-b0", num_classes=2, pretrained="ade")
    with pytest.raises(ModelError, match=r"model\.safetensors does not fit hf/segformer-b0"):
        catalog.build("hf/segformer-b0", num_classes=3, checkpoint=folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"holds no weights: expected model\.safetensors or pytorch_model\.bin"):
        catalog.build(f"hf/{folder}", pretrained=True)
    (folder / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ModelError, match="a network of type bert, expected segformer or one of beit"):
        catalog.build(f"hf/{folder}")
    (folder / "config.json").write_text("[")
    with pytest.raises(ModelError, match=r"config\.json cannot be read"):
        catalog.build(f"hf/{folder}")
