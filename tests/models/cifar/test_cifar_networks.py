"""The networks of the literature are those of the literature: sizes, names, values, features."""

from __future__ import annotations

import inspect
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from counterpoise.errors import ModelError
from counterpoise.models import cifar

TEACHER = Path(__file__).parents[4] / "shared/data/teachers/cifar100-wrn_16_2.safetensors"

# With 100 classes: parameters of the public zoo's network, and the millions that papers print.
SIZES = {
    "resnet8": (83_892, 0.08),
    "resnet14": (181_108, 0.18),
    "resnet20": (278_324, 0.28),
    "resnet32": (472_756, 0.47),
    "resnet44": (667_188, 0.67),
    "resnet56": (861_620, 0.86),
    "resnet110": (1_736_564, 1.74),
    "resnet8x4": (1_233_540, 1.23),
    "resnet32x4": (7_433_860, 7.43),
    "resnet50": (23_705_252, 23.7),
    "wrn_16_1": (180_916, 0.18),
    "wrn_16_2": (703_284, 0.70),
    "wrn_40_1": (569_780, 0.57),
    "wrn_40_2": (2_255_156, 2.26),
    "vgg8": (3_965_028, 3.97),
    "vgg11": (9_277_284, 9.28),
    "vgg13": (9_462_180, 9.46),
    "vgg16": (14_774_436, 14.77),
    "vgg19": (20_086_692, 20.09),
    "mobilenetv2": (812_836, 0.81),
    "shufflenetv1": (949_258, 0.95),
    "shufflenetv2": (1_355_528, 1.36),
    "wrn_16_8": (11_007_540, 11.0),
    "wrn_28_10": (36_536_884, 36.5),
}

# Logits of the public zoo's own code for the weights of `fill_with_waves` and the second of two wave images, five
# classes, batch statistics.
LOGITS = {
    "resnet8": (-0.74289, 1.48059, -1.46157, 0.56403, -0.02874),
    "resnet14": (3.13470, -1.37895, -3.04433, -1.45822, 0.74273),
    "resnet20": (8.76988, -5.28924, -0.63421, -2.63591, 2.00929),
    "resnet32": (8.78722, 1.47448, 9.23839, 3.58762, 3.24638),
    "resnet44": (-2.85354, 9.66690, 2.73290, 7.67659, -0.69059),
    "resnet56": (9.74856, -2.80868, -13.50746, -4.97206, -2.49314),
    "resnet110": (32.88271, -24.56440, -5.00966, -16.64884, 6.54597),
    "resnet8x4": (2.64739, 2.14927, 3.04662, -0.81882, 0.78300),
    "resnet32x4": (2.69643, -1.40814, -7.57142, 5.61705, 2.34613),
    "resnet50": (-3.17773, -2.94247, 2.78798, 0.49962, 2.98711),
    "wrn_16_1": (-0.03625, 1.80456, 1.42791, 1.81286, 0.74001),
    "wrn_16_2": (2.29311, 2.53089, 1.36886, 1.42723, 2.60472),
    "wrn_40_1": (3.23318, -0.63222, 1.27584, 0.43506, 1.28109),
    "wrn_40_2": (2.06988, -0.42963, 1.52732, 0.43828, -0.50392),
    "vgg8": (1.72993, 0.33411, 2.22463, 0.25514, 1.87341),
    "vgg11": (2.30945, 0.02795, 2.19024, -0.04776, 2.15804),
    "vgg13": (1.47230, 1.65120, 0.90566, 1.03785, 0.08030),
    "vgg16": (1.15979, 0.86771, 1.67890, 0.74241, 0.96072),
    "vgg19": (1.49375, 0.26289, 2.25080, 0.19889, 1.89257),
    "mobilenetv2": (2.91227, 0.46971, 0.39061, 0.69882, 1.78213),
    "shufflenetv1": (7.27505, 5.31348, 3.64067, 1.43668, 11.36353),
    "shufflenetv2": (4.43638, 0.83580, 0.91565, 3.33845, 0.76637),
    "wrn_10_3": (3.00982, 1.91092, 1.36205, 1.82874, 0.23950),
}

# A few names and shapes that are characteristic of each family's checkpoints.
CHECKPOINT_ENTRIES = {
    "resnet20": {
        "conv1.weight": (16, 3, 3, 3),
        "bn1.running_var": (16,),
        "layer2.0.downsample.0.weight": (32, 16, 1, 1),
        "layer2.0.downsample.1.num_batches_tracked": (),
        "layer3.2.conv2.weight": (64, 64, 3, 3),
        "fc.weight": (100, 64),
    },
    "resnet8x4": {"conv1.weight": (32, 3, 3, 3), "layer1.0.downsample.0.weight": (64, 32, 1, 1), "fc.bias": (100,)},
    "resnet50": {
        "layer1.0.shortcut.0.weight": (256, 64, 1, 1),
        "layer4.2.conv3.weight": (2048, 512, 1, 1),
        "layer4.2.bn3.running_mean": (2048,),
        "linear.weight": (100, 2048),
    },
    "wrn_40_2": {
        "block1.layer.0.convShortcut.weight": (32, 16, 1, 1),
        "block3.layer.5.conv2.weight": (128, 128, 3, 3),
        "bn1.weight": (128,),
        "fc.weight": (100, 128),
    },
    "vgg13": {
        "block0.0.bias": (64,),
        "block1.3.weight": (128, 128, 3, 3),
        "block4.4.running_mean": (512,),
        "classifier.weight": (100, 512),
    },
    "mobilenetv2": {
        "conv1.0.weight": (16, 3, 3, 3),
        "blocks.0.0.conv.3.weight": (16, 1, 3, 3),
        "blocks.6.0.conv.6.weight": (160, 480, 1, 1),
        "conv2.1.weight": (1280,),
        "classifier.0.weight": (100, 1280),
    },
    "shufflenetv1": {
        "conv1.weight": (24, 3, 1, 1),
        "layer1.0.conv1.weight": (54, 24, 1, 1),
        "layer2.7.conv3.weight": (480, 40, 1, 1),
        "linear.weight": (100, 960),
    },
    "shufflenetv2": {
        "layer1.0.conv5.weight": (58, 58, 1, 1),
        "layer2.7.bn3.weight": (116,),
        "conv2.weight": (1024, 464, 1, 1),
        "linear.weight": (100, 1024),
    },
}


def waves(shape: torch.Size | tuple[int, ...], phase: int = 0) -> Tensor:
    """Values that look random and are the same on every machine and in every version, unlike those of a generator."""
    steps = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    return torch.sin(0.1 * steps * steps + phase).reshape(shape)


def fill_with_waves(network: nn.Module) -> None:
    with torch.no_grad():
        for index, parameter in enumerate(network.parameters()):
            wave = waves(parameter.shape, index)
            parameter.copy_(1 + 0.3 * wave if wave.ndim == 1 else wave * (2 / wave[0].numel()) ** 0.5)


def features(network: nn.Module, modules: tuple[str, ...], images: Tensor) -> list[Tensor]:
    caught: list[Tensor] = []
    hooks = [
        network.get_submodule(name).register_forward_hook(lambda _module, _inputs, output: caught.append(output))
        for name in modules
    ]
    with torch.no_grad():
        network(images)
    for hook in hooks:
        hook.remove()
    return caught


def test_every_named_network_is_checked_here() -> None:
    assert set(cifar.names()) <= SIZES.keys()
    assert set(cifar.names()) <= LOGITS.keys()


@pytest.mark.parametrize("name", SIZES)
def test_parameter_count_is_the_published_one(name: str) -> None:
    with torch.device("meta"):
        network = cifar.create(name)
    count = sum(parameter.numel() for parameter in network.parameters())
    exact, millions = SIZES[name]
    assert count == exact
    decimals = len(str(millions).partition(".")[2])
    assert round(count / 1e6, decimals) == millions


@pytest.mark.parametrize("name", LOGITS)
def test_logits_are_those_of_the_public_networks(name: str) -> None:
    with torch.device("meta"):
        network = cifar.create(name, num_classes=5)
    network = network.double().to_empty(device="cpu")
    fill_with_waves(network)
    with torch.no_grad():
        logits = network(waves((2, 3, 32, 32)))
    torch.testing.assert_close(logits[1], torch.tensor(LOGITS[name], dtype=torch.float64), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", CHECKPOINT_ENTRIES)
def test_state_dict_is_named_and_shaped_as_the_public_checkpoints(name: str) -> None:
    with torch.device("meta"):
        state = cifar.create(name).state_dict()
    expected = CHECKPOINT_ENTRIES[name]
    assert {entry: tuple(state[entry].shape) for entry in expected} == expected


@pytest.mark.skipif(not TEACHER.exists(), reason=f"needs the teacher's weights, {TEACHER.name}, beside the repository")
def test_given_teacher_loads_strictly_and_is_sure_of_itself() -> None:
    from safetensors.torch import load_file

    teacher = cifar.create("wrn_16_2", num_classes=100).eval()
    teacher.load_state_dict(load_file(TEACHER), strict=True)
    with torch.no_grad():
        logits = teacher(waves((1, 3, 32, 32)).float())
    assert logits.shape == (1, 100)
    assert logits.std() > 1


@pytest.mark.parametrize("name", cifar.names())
def test_gradient_reaches_every_parameter_and_other_sizes_and_channels_are_taken(name: str) -> None:
    torch.manual_seed(0)
    # In eval mode, since batch statistics cancel the gradient of a bias before them.
    network = cifar.create(name, num_classes=7, in_channels=1).eval()
    logits = network(torch.randn(2, 1, 16, 16))
    assert logits.shape == (2, 7)
    (logits * torch.randn(2, 7)).sum().backward()
    unreached = [path for path, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert unreached == []


@pytest.mark.parametrize("name", cifar.names())
def test_stages_halve_the_map_and_the_embedding_feeds_the_classifier(name: str) -> None:
    with torch.device("meta"):  # shapes alone
        network = cifar.create(name, num_classes=3).eval()
        *maps, embedding = features(network, (*cifar.stages(name), "avgpool"), torch.randn(2, 3, 32, 32))
    sizes = [feature.shape[-1] for feature in maps]
    assert all(feature.ndim == 4 and feature.shape[0] == 2 for feature in maps)
    assert all(after in (before, before // 2) for before, after in pairwise(sizes))
    assert sizes[-1] <= 8
    head = [module for module in network.modules() if isinstance(module, nn.Linear)]
    assert len(head) == 1
    assert embedding.shape == (2, head[0].in_features)


@pytest.mark.parametrize("name", ["resnet20", "resnet50", "vgg8", "shufflenetv1", "shufflenetv2"])
def test_stages_are_after_activation(name: str) -> None:
    caught = features(cifar.create(name), cifar.stages(name), torch.randn(2, 3, 32, 32))
    assert all(feature.min() >= 0 for feature in caught)


@pytest.mark.parametrize("name", ["resnet20", "wrn_16_2", "vgg8", "mobilenetv2", "shufflenetv1", "shufflenetv2"])
def test_what_a_hook_has_caught_is_not_overwritten(name: str) -> None:
    network = cifar.create(name)
    caught: list[tuple[Tensor, Tensor]] = []
    for module in network.modules():
        module.register_forward_hook(lambda _module, _inputs, output: caught.append((output, output.clone())))
    with torch.no_grad():
        network(torch.randn(2, 3, 32, 32))
    assert all(torch.equal(now, then) for now, then in caught)


@pytest.mark.parametrize("name", ["resnet20", "resnet50", "wrn_16_2", "vgg8", "mobilenetv2"])
def test_convolutions_start_with_the_variance_of_their_fan_out(name: str) -> None:
    torch.manual_seed(0)
    for module in cifar.create(name).modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 4000:
            fan_out = module.out_channels * module.kernel_size[0] * module.kernel_size[1]
            assert module.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.06)
            assert module.bias is None or not module.bias.any()


@pytest.mark.parametrize("name", ["vgg8", "mobilenetv2"])
def test_classifier_starts_small(name: str) -> None:
    torch.manual_seed(0)
    (linear,) = (module for module in cifar.create(name).modules() if isinstance(module, nn.Linear))
    assert linear.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert not linear.bias.any()


@pytest.mark.parametrize("name", cifar.names())
def test_every_network_cites_its_paper(name: str) -> None:
    with torch.device("meta"):
        assert "arXiv:" in (inspect.getdoc(type(cifar.create(name))) or "")


@pytest.mark.parametrize(("given", "offered"), [("resnet8x5", "resnet8x4"), ("ShuffleNetV2", "shufflenetv2")])
def test_unknown_name_offers_the_nearest(given: str, offered: str) -> None:
    with pytest.raises(ModelError, match=f"'{given}' is unknown. Did you mean '{offered}'"):
        cifar.create(given)
    with pytest.raises(ModelError, match=given):
        cifar.stages(given)


@pytest.mark.parametrize(
    ("given", "offered"),
    [("wrn_18_2", "wrn_16_2"), ("wrn_4_1", "wrn_10_1"), ("wrn_16_0", "wrn_16_1"), ("wrn_39_2", "wrn_40_2")],
)
def test_wide_residual_network_of_an_impossible_shape_says_which_are_possible(given: str, offered: str) -> None:
    with pytest.raises(ModelError, match=rf"'{given}'.*6n \+ 4.*Did you mean '{offered}'"):
        cifar.create(given)


@pytest.mark.parametrize("counts", [{"num_classes": 0}, {"in_channels": 0}])
def test_counts_below_one_are_refused(counts: dict[str, int]) -> None:
    with pytest.raises(ModelError, match=f"{next(iter(counts))} is 0, expected at least 1"):
        cifar.create("resnet8", **counts)
