from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from counterpoise.errors import ModelError
from counterpoise.models import catalog

COMMIT = "0123456789abcdef0123456789abcdef01234567"

# What a user without a net does, with the caches of the environment; prints what came of it.
SCRIPT = """
import json
import sys
import torch
from counterpoise.errors import ModelError
from counterpoise.models import catalog

found = {}
for key, arguments in json.loads(sys.argv[1]).items():
    torch.manual_seed(1)
    try:
        model = catalog.build(**arguments)
        found[key] = {
            "hash": model.weights_hash(),
            "sums": {name: value.double().sum().item() for name, value in model.weights().items()},
            "count": model.num_classes,
            "classes": model.classes and model.classes[:2],
            "size": model.input_size,
            "crop": model.crop_share,
            "mean": model.normalization["mean"],
        }
    except ModelError as error:
        found[key] = str(error)
print(json.dumps(found))
"""
BUILDS = {
    "teacher": {"model": "timm/test_vit", "pretrained": True},
    "tag": {"model": "timm/test_vit", "pretrained": "r160_in1k"},
    "student": {"model": "timm/test_vit", "pretrained": True, "num_classes": 3, "keep_head": False},
    "refused": {"model": "timm/test_vit", "pretrained": True, "num_classes": 3},
    "resized": {"model": "timm/test_vit", "pretrained": True, "input_size": 96},
    "backbone": {"model": "timm/convnextv2_atto.fcmae", "pretrained": True, "num_classes": 3, "keep_head": False},
    "no teacher": {"model": "timm/convnextv2_atto.fcmae", "pretrained": True},
    "torchvision": {"model": "torchvision/squeezenet1_1", "pretrained": "imagenet1k_v1"},
    "missing timm": {"model": "timm/test_resnet", "pretrained": True},
    "missing torchvision": {"model": "torchvision/resnet18", "pretrained": True},
}


def put_in_hub_cache(cache: Path, repository: str, content: bytes) -> None:
    """A file as the hub's client leaves it: a blob named by its hash, and a link in the snapshot of a commit."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    name = hashlib.sha256(content).hexdigest()
    for part in ("blobs", "refs", f"snapshots/{COMMIT}"):
        (folder / part).mkdir(parents=True)
    (folder / "blobs" / name).write_bytes(content)
    (folder / "refs" / "main").write_text(COMMIT)
    (folder / "snapshots" / COMMIT / "model.safetensors").symlink_to(Path("..", "..", "blobs", name))


@pytest.fixture(scope="session")
def offline(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    root = tmp_path_factory.mktemp("caches")
    torch.manual_seed(0)
    transformer = catalog.build("timm/test_vit").weights()
    put_in_hub_cache(root / "hf" / "hub", "timm/test_vit.r160_in1k", save(transformer, metadata={"format": "pt"}))
    backbone = catalog.build("timm/convnextv2_atto", num_classes=1).weights()
    backbone = {name: value for name, value in backbone.items() if not name.startswith("head.fc")}
    put_in_hub_cache(root / "hf" / "hub", "timm/convnextv2_atto.fcmae", save(backbone, metadata={"format": "pt"}))
    squeezenet = catalog.build("torchvision/squeezenet1_1")
    (root / "torch" / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(squeezenet.weights(), root / "torch" / "hub" / "checkpoints" / "squeezenet1_1-b8a52dc0.pth")
    hidden = {key: value for key, value in os.environ.items() if key not in {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"}}
    environment = {**hidden, "HF_HUB_OFFLINE": "1", "HF_HOME": str(root / "hf"), "TORCH_HOME": str(root / "torch")}
    environment |= {
        "https_proxy": "http://127.0.0.1:9",
        "HTTPS_PROXY": "http://127.0.0.1:9",
    }  # for torchvision's address
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(BUILDS)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return {
        **json.loads(done.stdout),
        "weights": backbone,
        "root": root,
        "transformer": transformer,
        "squeezenet": squeezenet,
    }


@pytest.mark.parametrize("key", ["teacher", "tag"])
def test_weights_of_timm_come_from_the_hubs_cache(offline: dict[str, object], key: str) -> None:
    torch.manual_seed(0)
    found = offline[key]
    assert found["hash"] == catalog.build("timm/test_vit").weights_hash()
    assert found["count"] == 1000
    assert found["classes"] == ["tench, Tinca tinca", "goldfish, Carassius auratus"]
    assert (found["size"], found["crop"], found["mean"]) == (160, 0.95, [0.5, 0.5, 0.5])


def test_student_starts_from_published_weights_with_a_head_of_its_own(offline: dict[str, object]) -> None:
    found = offline["student"]
    assert (found["count"], found["classes"]) == (3, None)
    expected = {name: value.double().sum().item() for name, value in offline["transformer"].items()}
    differing = {name for name, value in found["sums"].items() if value != expected[name]}
    assert differing == {"head.weight"}  # its bias starts at zero in both


def test_published_weights_without_a_classifier_get_an_untrained_one(offline: dict[str, object]) -> None:
    found = offline["backbone"]
    assert (found["count"], found["classes"], found["size"]) == (3, None, 224)
    expected = {name: value.double().sum().item() for name, value in offline["weights"].items()}
    assert {name: value for name, value in found["sums"].items() if not name.startswith("head.fc")} == expected
    assert "has no classifier" in offline["no teacher"]


def test_teacher_with_another_number_of_classes_than_published_is_refused(offline: dict[str, object]) -> None:
    assert str(offline["refused"]).endswith("has 1000 classes, expected 3.")


def test_published_positions_are_resampled_to_the_input_size(offline: dict[str, object]) -> None:
    found = offline["resized"]
    assert found["size"] == 96
    expected = offline["transformer"]["head.weight"].double().sum().item()
    assert found["sums"]["head.weight"] == expected


def test_weights_of_torchvision_come_from_its_cache(offline: dict[str, object]) -> None:
    found = offline["torchvision"]
    assert found["hash"] == offline["squeezenet"].weights_hash()
    assert (found["count"], found["size"], found["crop"]) == (1000, 224, 224 / 256)


def test_offline_the_error_says_which_file_of_the_hub_to_bring_and_where(offline: dict[str, object]) -> None:
    message = offline["missing timm"]
    assert isinstance(message, str)
    assert "timm/test_resnet are not on this machine" in message
    assert "Bring the file model.safetensors of https://huggingface.co/timm/test_resnet.r160_in1k" in message
    assert str(offline["root"] / "hf" / "hub" / "models--timm--test_resnet.r160_in1k") in message
    assert "`checkpoint:`" in message


def test_offline_the_error_says_which_file_of_torchvision_to_bring_and_where(offline: dict[str, object]) -> None:
    message = offline["missing torchvision"]
    assert isinstance(message, str)
    assert "https://download.pytorch.org/models/resnet18-f37072fd.pth" in message
    assert str(offline["root"] / "torch" / "hub" / "checkpoints" / "resnet18-f37072fd.pth") in message
    assert "`checkpoint:`" in message


@pytest.mark.parametrize(
    ("name", "pretrained", "message"),
    [
        ("timm/resnet50", "a1_in2k", r"no weights of tag 'a1_in2k'\. Did you mean 'a1_in1k'"),
        ("timm/resnet50.a1_in1k", "a2_in1k", "give one of them"),
        ("timm/test_vit4", True, "has no published weights"),
        ("torchvision/resnet50", "IMAGENET1K_V3", r"'IMAGENET1K_V3' is unknown\. Did you mean 'IMAGENET1K_V\d'"),
        ("cifar/resnet20", True, r"has no published weights \(hf, smp, timm, torchvision have some\)"),
        ("file.py:function", True, "has no published weights"),
    ],
)
def test_weights_that_were_never_published_are_named(name: str, pretrained: bool | str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        catalog.build(name, pretrained=pretrained)
