"""A small CLIP as OpenCLIP saves one, as a classifier."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from counterpoise.errors import ModelError
from counterpoise.models import catalog
from counterpoise.models.prompts import reading
from counterpoise.system import torchvision_guard

torchvision_guard.ready()
open_clip = pytest.importorskip("open_clip", reason="needs the extra open_clip")
CONFIG: dict[str, Any] = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 16, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    "init_logit_bias": -3.0,
}
SENTENCES = {"cat": "a photo of a cat.", "dog": "a photo of a small dog."}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("open_clip")
    torch.manual_seed(0)
    save_file(open_clip.CLIP(**CONFIG).state_dict(), path / "open_clip_model.safetensors")
    shown = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    (path / "open_clip_config.json").write_text(json.dumps({"model_cfg": CONFIG, "preprocess_cfg": shown}))
    return path


def classifier(folder: Path, values: Any = SENTENCES) -> Any:
    return catalog.prompted(f"open_clip/{folder}", reading.parse(values, "here"), torch.device("cpu")).eval()


def test_logits_are_its_own(folder: Path) -> None:
    model = classifier(folder)
    theirs = open_clip.create_model(f"local-dir:{folder}").eval()
    text = open_clip.get_tokenizer(f"local-dir:{folder}")(list(SENTENCES.values()))
    images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    with torch.no_grad():
        expected, _ = theirs.get_logits(model.normalize(images), text)
        torch.testing.assert_close(model(images), expected, atol=1e-4, rtol=0)
    assert (model.classes, model.input_size) == (("cat", "dog"), 16)
    assert model.normalization == {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}


def test_what_cannot_be_read_is_said(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"reads 16 tokens of a sentence, and 'cat cat"):
        classifier(folder, {"cat": "cat " * 15, "dog": "dog"})
    classifier(folder, {"cat": "cat " * 14, "dog": "dog"})
    with pytest.raises(ModelError, match=r"open_clip/ViT-B-32 says no weights: expected open_clip/NAME:TAG"):
        classifier(Path("ViT-B-32"))
    (tmp_path / "open_clip_config.json").write_text((folder / "open_clip_config.json").read_text())
    with pytest.raises(ModelError, match=r"cannot be read"):
        classifier(tmp_path)
    with pytest.raises(ModelError, match=r"answers by words: it is a teacher with teacher.prompts"):
        catalog.build(f"open_clip/{folder}")
