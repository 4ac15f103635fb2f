"""Batch norm over the batches of all processes is that of one process with the whole batch."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import Tensor, nn

from counterpoise.engine.synchronizing import SynchronizedOnCpu, synchronize
from counterpoise.errors import ConfigError
from counterpoise.objectives.features import BatchNorm
from counterpoise.system import torchvision_guard

SAMPLES, WORLD = 9, 2
CPU = torch.device("cpu")


def timm_norm(width: int) -> nn.Module:
    torchvision_guard.ready()
    from timm.layers import BatchNormAct2d

    norm: nn.Module = BatchNormAct2d(width, act_layer=nn.SiLU)
    return norm


def make() -> nn.Module:
    """Every kind of batch norm, one of them twice in the network."""
    torch.manual_seed(0)
    shared = nn.BatchNorm2d(4, momentum=None)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), shared, nn.Tanh(), shared, timm_norm(4), BatchNorm(4, affine=False),
        nn.Flatten(1), nn.Linear(4 * 16, 5), nn.BatchNorm1d(5, track_running_stats=False),
    )  # fmt: skip
    return net.double()


def step(net: nn.Module, share: slice) -> dict[str, Tensor]:
    """Gradients of a sum over samples, and what norms have counted; twice, as buffers move."""
    torch.manual_seed(1)
    images = torch.randn(2, SAMPLES, 3, 6, 6, dtype=torch.float64)
    factors = torch.randn(2, SAMPLES, 5, dtype=torch.float64)
    for number in range(2):
        (net(images[number, share]) * factors[number, share]).sum().backward()
    gradients = {f"{name}.grad": p.grad for name, p in net.named_parameters() if p.grad is not None}
    return {**gradients, **dict(net.named_buffers())}


def one_of_two(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meet'}", rank=rank, world_size=WORLD)
    net = make()
    names = [name for name, _ in net.named_modules()]
    kept = [id(p) for p in net.parameters()]
    assert synchronize(net, CPU) == 4
    assert [name for name, _ in net.named_modules()] == names
    assert [id(p) for p in net.parameters()] == kept
    found = step(net, slice(SAMPLES * rank // WORLD, SAMPLES * (rank + 1) // WORLD))
    torch.save({name: value.detach() for name, value in found.items()}, folder / f"{rank}.pt")
    if rank == 0:  # alone, and waits for none
        assert net.eval()(torch.ones(2, 3, 6, 6, dtype=torch.float64)).isfinite().all()
    half = nn.Sequential(nn.BatchNorm2d(3))
    synchronize(half, CPU)
    with torch.autocast("cpu", torch.bfloat16):
        assert half(torch.randn(1, 3, 2, 2).bfloat16()).dtype == torch.bfloat16
    dist.destroy_process_group()


@pytest.fixture(scope="session")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Tensor]]:
    folder = tmp_path_factory.mktemp("norms")
    timm_norm(1)
    fork = multiprocessing.get_context("fork")  # torch is imported already
    children = [fork.Process(target=one_of_two, args=(rank, folder)) for rank in range(WORLD)]
    for child in children:
        child.start()
    for child in children:
        child.join(120)
        assert child.exitcode == 0
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(WORLD)]


def test_two_processes_have_the_gradient_and_the_statistics_of_one(two: list[dict[str, Tensor]]) -> None:
    expected = step(make(), slice(None))
    assert expected.keys() == two[0].keys()
    for name, value in expected.items():
        if name.endswith(".grad"):
            torch.testing.assert_close(two[0][name] + two[1][name], value, rtol=1e-9, atol=1e-10)
        else:
            for one in two:
                torch.testing.assert_close(one[name], value, rtol=1e-10, atol=1e-12)


def test_alone_it_is_plain_batch_norm() -> None:
    plain, ours = make(), make()
    synchronize(ours, CPU)
    found = step(ours, slice(None))
    for name, value in step(plain, slice(None)).items():
        assert torch.equal(found[name], value)


def test_on_cuda_they_are_those_of_torch_and_timm() -> None:
    net = make()
    assert synchronize(net, torch.device("cuda")) == 4
    assert [type(one).__name__ for one in net if "Norm" in type(one).__name__] == [
        *("SyncBatchNorm", "SyncBatchNorm", "SyncBatchNormAct", "SyncBatchNorm", "SyncBatchNorm")
    ]
    ours = make()
    synchronize(ours, CPU)
    images = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    assert torch.equal(net.eval()(images), ours.eval()(images))


def test_a_batch_norm_with_something_of_its_own_is_refused_before_anything_changes() -> None:
    class Own(nn.BatchNorm2d):
        pass

    net = nn.Sequential(nn.BatchNorm2d(3), nn.Sequential(Own(3)))
    with pytest.raises(ConfigError, match=r"train.sync_batch_norm: 1.0 is a Own, .* Leave the option out"):
        synchronize(net, CPU)
    assert type(net[0]) is nn.BatchNorm2d
    assert synchronize(nn.Sequential(nn.GroupNorm(1, 3)), CPU) == 0
    again = nn.Sequential(nn.SyncBatchNorm(3))
    assert synchronize(again, CPU) == synchronize(again, CPU) == 1
    assert type(again[0]) is SynchronizedOnCpu


@pytest.mark.slow
def test_two_processes_train_what_one_trains(host: Any, tmp_path: Path) -> None:
    arguments = [
        *("train", "--data.source", "digits", "--data.options.train_size", "600", "--train.device", "cpu", "--quiet"),
        *("--train.precision", "fp32", "--train.epochs", "2", "--train.batch_size", "50"),
        *("--student.model", "digits/cnn_4_8", "--train.optimizer.learning_rate", "0.01"),
    ]
    one, two, apart = tmp_path / "one", tmp_path / "two", tmp_path / "apart"
    host.run([*arguments, "--out", str(one)])
    host.together([*arguments, "--out", str(apart)])
    host.together([*arguments, "--train.sync_batch_norm", "--out", str(two)])
    weights, found, other = (load_file(run / "student" / "model.safetensors") for run in (one, two, apart))
    assert weights.keys() == found.keys()
    for name, value in weights.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-4)
    assert max(float((other[name] - value).abs().max()) for name, value in weights.items() if value.ndim) > 2e-3
