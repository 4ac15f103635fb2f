from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from counterpoise.errors import ModelError
from counterpoise.models.network import VisionModel
from counterpoise.outputs import Outputs

MEAN, STD = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8))
        self.split = Twice()
        self.head = nn.Linear(8, 5)

    def forward(self, images: Tensor) -> Tensor:
        first, _ = self.split(self.stem(images).relu())
        return self.head(first.mean((2, 3)))


class Twice(nn.Module):
    def forward(self, value: Tensor) -> tuple[Tensor, Tensor]:
        return value, value


class Plain(nn.Module):
    """Gives what it is given."""

    def forward(self, images: Tensor) -> Tensor:
        return images


def model(net: nn.Module | None = None, **settings: object) -> VisionModel:
    torch.manual_seed(0)
    given = {"name": "own", "num_classes": 5, "mean": MEAN, "std": STD, **settings}
    return VisionModel(Net() if net is None else net, **given).eval()


def pixels(size: int = 8, count: int = 4) -> Tensor:
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_pixels_are_normalized_as_the_formula_says() -> None:
    mean, std = (torch.tensor(values, dtype=torch.float64).view(1, 3, 1, 1) for values in (MEAN, STD))
    expected = (pixels().double() / 255 - mean) / std
    for images in (pixels(), pixels().float() / 255):
        torch.testing.assert_close(model(Plain())(images).double(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_images_are_taken(dtype: torch.dtype) -> None:
    images = (pixels().float() / 255).to(dtype)
    logits = model()(images)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, model()(images.float()))


def test_network_in_half_precision_is_given_half_precision() -> None:
    half = model().to(torch.bfloat16)
    assert half(pixels()).dtype == torch.bfloat16


def test_images_of_another_size_are_resized_with_antialiasing() -> None:
    sized = model(Plain(), mean=(0.0,) * 3, std=(1.0,) * 3, input_size=4)
    board = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    board[..., ::2, ::2] = 255  # one pixel in four: a plain bilinear would miss them or take them whole
    assert sized(board).shape == (1, 3, 4, 4)
    inner = sized(board)[..., 1:3, 1:3]
    torch.testing.assert_close(inner, torch.full((1, 3, 2, 2), 0.25), rtol=0, atol=0.03)
    same = pixels(4)
    torch.testing.assert_close(sized(same), same / 255.0)


def test_without_an_input_size_images_are_taken_as_they_come() -> None:
    assert model(Plain())(pixels(13)).shape == (4, 3, 13, 13)


def test_channels_last_changes_the_layout_and_not_the_values() -> None:
    plain, last = model(Plain()), model(Plain())
    last.memory_format = torch.channels_last
    assert last(pixels()).is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(last(pixels()), plain(pixels()))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(2, 3, 8, 8, dtype=torch.int64), "uint8 in .* got int64"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.float64), "float32 in .* got float64"),
        (torch.zeros(3, 8, 8), r"\[N, 3, H, W\], got a tensor of shape \[3, 8, 8\]"),
        (torch.zeros(2, 1, 8, 8), r"got a tensor of shape \[2, 1, 8, 8\]"),
    ],
)
def test_images_of_a_wrong_kind_are_refused(images: Tensor, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        model()(images)


def test_features_are_the_outputs_of_the_named_modules() -> None:
    network = model()
    outputs = network(pixels(), features=["stem", "stem.0", "head"])
    assert isinstance(outputs, Outputs)
    assert list(outputs.features) == ["stem", "stem.0", "head"]
    assert torch.equal(outputs.features["stem.0"], network.net.stem[0](network.normalize(pixels())))
    assert torch.equal(outputs.features["head"], outputs.logits)
    assert torch.equal(outputs.logits, network(pixels()))


def test_features_leave_no_hooks_behind() -> None:
    network = model()
    network(pixels(), features=["stem"])
    with pytest.raises(ModelError):
        network(pixels(), features=["stem", "stm"])
    assert not any(module._forward_hooks for module in network.modules())


def test_gradient_flows_through_features() -> None:
    network = model()
    network(pixels(), features=["stem"]).features["stem"].sum().backward()
    assert network.net.stem[0].weight.grad is not None
    assert network.net.head.weight.grad is None


def test_unknown_feature_names_the_nearest() -> None:
    with pytest.raises(ModelError, match=r"no module 'stem\.9'.*Did you mean 'stem\.\d'\? Its stages: stem"):
        model(stages=["stem"])(pixels(), features=["stem.9"])


def test_feature_that_is_no_tensor_is_refused() -> None:
    with pytest.raises(ModelError, match="feature 'split' gives tuple"):
        model()(pixels(), features=["split"])


@pytest.mark.parametrize("part", ["model", "net"])
def test_compiled_network_gives_the_same_logits_and_features(part: str) -> None:
    torch._dynamo.reset()
    network, compiled = model(), model()
    (compiled if part == "model" else compiled.net).compile(backend="eager")
    with torch.no_grad():
        assert torch.equal(compiled(pixels()), network(pixels()))
        for _ in range(2):
            outputs = compiled(pixels(), features=["stem"])
            assert torch.equal(outputs.features["stem"], network(pixels(), features=["stem"]).features["stem"])
        assert torch.equal(compiled(pixels()), outputs.logits)


def test_autocast_runs_the_network_in_half_precision() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert model()(pixels()).dtype == torch.bfloat16


def test_copy_is_independent() -> None:
    network = model()
    other = copy.deepcopy(network)
    other.net.head.bias.data.add_(1)
    torch.testing.assert_close(other(pixels()), network(pixels()) + 1)


def test_weights_are_those_of_the_network_without_a_prefix() -> None:
    network = model()
    assert list(network.weights()) == list(network.net.state_dict())
    wrapped = model(torch.compile(Net(), backend="eager"))
    assert list(wrapped.weights()) == list(network.weights())


def test_hash_tells_weights_apart_and_nothing_else() -> None:
    network, same, other = model(), model(mean=(0.0,) * 3), model()
    other.net.head.bias.data[0] += 1e-3
    same.to(memory_format=torch.channels_last)
    assert network.weights_hash() == same.weights_hash() != other.weights_hash()


def test_tied_weights_can_be_serialized() -> None:
    net = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1))
    net[1].weight = net[0].weight
    assert len(model(net).serialize()) > 0


class Held(nn.Module):
    def __init__(self, answer: object) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, images: Tensor) -> object:
        return self.answer


def test_logits_are_found_in_a_mapping() -> None:
    logits = torch.ones(4, 5)
    assert torch.equal(model(Held({"logits": logits}))(pixels()), logits)
    with pytest.raises(ModelError, match="returned tuple"):
        model(Held((logits, logits)))(pixels())


def test_class_names_must_be_as_many_as_logits() -> None:
    with pytest.raises(ModelError, match="5 logits, but 2 class names"):
        model(classes=["a", "b"])


def test_std_must_be_positive() -> None:
    with pytest.raises(ModelError, match="std positive"):
        model(std=(0.2, 0.0, 0.2))


def test_pictures_of_another_shape_are_squashed_or_padded_as_the_network_is_told() -> None:
    wide = torch.full((1, 3, 8, 16), 255, dtype=torch.uint8)
    plain = {"mean": (0.0,) * 3, "std": (1.0,) * 3, "input_size": 4}
    for fit in ("crop", "squash"):
        assert model(Plain(), **plain, fit=fit)(wide).round(decimals=5).eq(1).all()
    padded = model(Plain(), **plain, fit="pad")(wide).round(decimals=5)
    assert padded[0, 0].tolist() == [[0.0] * 4, [1.0] * 4, [1.0] * 4, [0.0] * 4]


def test_a_teacher_is_shown_pictures_as_its_student_was() -> None:
    teacher = model(crop_share=0.875, fit="crop")
    teacher.shown_like(model(crop_share=0.9, fit="pad"))
    assert (teacher.fit, teacher.whole, teacher.crop_share) == ("pad", False, 0.875)
    teacher.shown_like(model(crop_share=1.0, fit="squash", whole=True))
    assert (teacher.fit, teacher.whole, teacher.crop_share) == ("squash", True, 1.0)
