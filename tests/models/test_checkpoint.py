from __future__ import annotations

import argparse
import json
import pickle
from collections import OrderedDict
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from counterpoise.errors import ModelError
from counterpoise.models import checkpoint, digits
from counterpoise.models.checkpoint import Weights


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    return digits.create("cnn_4_8", 6)


def equal(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


@pytest.mark.parametrize("nest", [None, "state_dict", "model", "net"])
def test_pickle_of_tensors_is_read_wherever_they_lie(net: nn.Module, tmp_path: Path, nest: str | None) -> None:
    state = OrderedDict((f"module.{key}", value) for key, value in net.state_dict().items())
    path = tmp_path / "teacher.pth"
    torch.save(state if nest is None else {"epoch": 3, "opt": argparse.Namespace(lr=0.1), nest: state}, path)
    assert equal(checkpoint.read(path).state, net.state_dict())


def test_safetensors_tell_what_they_hold(net: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    metadata = {"architecture": "digits/cnn_4_8", "mean": "0.1,0.2,0.3", "std": "1, 2, 3", "classes": "6"}
    save_file(net.state_dict(), path, metadata=metadata)
    weights = checkpoint.read(path)
    assert equal(weights.state, net.state_dict())
    assert (weights.architecture, weights.mean, weights.std) == ("digits/cnn_4_8", (0.1, 0.2, 0.3), (1.0, 2.0, 3.0))
    assert weights.classes is None  # a number is no name


class Attack:
    """Unpickled without care, it would write a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, (f"open({str(self.target)!r}, 'w').close()",)


@pytest.mark.parametrize("by_torch", [True, False])
def test_pickle_that_would_run_code_is_refused(tmp_path: Path, by_torch: bool) -> None:
    path, target = tmp_path / "t.pt", tmp_path / "was_here"
    if by_torch:
        torch.save({"state_dict": Attack(target)}, path)
    else:
        path.write_bytes(pickle.dumps(Attack(target), protocol=2))
    with pytest.raises(ModelError, match=r"t\.pt is refused: it holds more than tensors.*run code"):
        checkpoint.read(path)
    assert not target.exists()


@pytest.mark.parametrize("name", ["t.safetensors", "t.pt"])
@pytest.mark.parametrize("content", [b"", b"not a model at all", bytes(64)])
def test_damaged_file_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=f"{name} is (damaged|refused)"):
        checkpoint.read(tmp_path / name)


@pytest.mark.parametrize("name", ["t.safetensors", "t.pt"])
def test_truncated_file_is_named(net: nn.Module, tmp_path: Path, name: str) -> None:
    whole = tmp_path / name
    if name.endswith("pt"):
        torch.save(net.state_dict(), whole)
    else:
        save_file(net.state_dict(), whole)
    whole.write_bytes(whole.read_bytes()[:-300])
    with pytest.raises(ModelError, match=f"{name} is damaged"):
        checkpoint.read(whole)


def test_pickle_of_other_things_says_what_it_holds(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "accuracy": 0.5}, tmp_path / "t.pt")
    with pytest.raises(ModelError, match="holds keys epoch, accuracy; expected tensors by name"):
        checkpoint.read(tmp_path / "t.pt")


def test_missing_file_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "teacher.safetensors").touch()
    with pytest.raises(ModelError, match=r"does not exist\. Did you mean 'teacher\.safetensors'\?"):
        checkpoint.read(tmp_path / "teachr.safetensors")


def test_a_name_that_no_file_can_have_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        checkpoint.read(tmp_path / f"{'a' * 300}.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"w": "a" * 300}}))
    with pytest.raises(ModelError, match="does not exist") as error:
        checkpoint.read(index)
    assert len(str(error.value)) < 500


def test_unknown_kind_of_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.onnx").touch()
    with pytest.raises(ModelError, match=r"unknown kind; expected \.safetensors, \.pt"):
        checkpoint.read(tmp_path / "t.onnx")


def test_metadata_that_are_no_numbers_are_named(net: nn.Module, tmp_path: Path) -> None:
    save_file(net.state_dict(), tmp_path / "t.safetensors", metadata={"mean": "a,b"})
    with pytest.raises(ModelError, match="mean = 'a,b', expected a number a channel"):
        checkpoint.read(tmp_path / "t.safetensors")


def test_head_is_found_from_shapes_alone(net: nn.Module) -> None:
    head = checkpoint.head_in(checkpoint.shapes_of(lambda count: digits.create("cnn_4_8", count)), net.state_dict())
    assert head == (6, {"classifier.weight", "classifier.bias"})


def test_head_that_was_left_out_has_no_classes(net: nn.Module) -> None:
    body = {key: value for key, value in net.state_dict().items() if not key.startswith("classifier")}
    head = checkpoint.head_in(checkpoint.shapes_of(lambda count: digits.create("cnn_4_8", count)), body)
    assert head is not None
    assert head.classes == 0


def test_other_networks_have_no_head_here(net: nn.Module) -> None:
    for name in ("cnn_4_16", "cnn_4_8_8"):
        shapes = checkpoint.shapes_of(partial(digits.create, name))
        assert checkpoint.head_in(shapes, net.state_dict()) is None


def test_finding_the_head_draws_no_random_numbers(net: nn.Module) -> None:
    def build(count: int) -> nn.Module:
        made = digits.create("cnn_4_8", count)
        made.classifier.bias.sum().item()  # not possible without memory: the network must be built for real
        return made

    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    assert checkpoint.head_in(checkpoint.shapes_of(build), net.state_dict()) is not None
    assert torch.equal(torch.rand(3), expected)


def test_misfit_names_missing_unexpected_and_reshaped_tensors(net: nn.Module) -> None:
    weights = Weights("t.pt", dict(net.state_dict()), architecture="digits/cnn_4_8")
    with pytest.raises(ModelError) as caught:
        checkpoint.load(digits.create("cnn_4_16_8", 6), weights, "digits/cnn_4_16_8")
    message = str(caught.value)
    assert "t.pt does not fit digits/cnn_4_16_8" in message
    assert "missing: features.stage3.0.weight [8, 16, 3, 3]" in message
    assert "features.stage2.0.weight is [8, 4, 3, 3], expected [16, 4, 3, 3]" in message
    assert "and 2 more" in message
    assert "It says that it holds digits/cnn_4_8." in message
    with pytest.raises(ModelError, match=r"not expected: features\.stage1.* and 9 more"):
        checkpoint.load(nn.Sequential(), weights, "own")


def test_files_older_than_batch_counters_are_read(net: nn.Module) -> None:
    state = {key: value for key, value in net.state_dict().items() if not key.endswith("num_batches_tracked")}
    other = digits.create("cnn_4_8", 6)
    checkpoint.load(other, Weights("t.pt", state), "digits/cnn_4_8")
    assert equal(other.state_dict(), net.state_dict())
