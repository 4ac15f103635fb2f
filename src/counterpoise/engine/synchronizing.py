"""Batch norm over the batch of all processes together, as one process would compute it.

On CUDA by torch's own SyncBatchNorm. It refuses a CPU, so here is what it would do there.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from counterpoise.errors import ConfigError
from counterpoise.objectives.features import BatchNorm


class SynchronizedOnCpu(_BatchNorm):
    """As nn.SyncBatchNorm, by plain operations."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or not _several():
            return super().forward(input)
        wide = input if input.dtype == torch.float64 else input.float()
        over = [axis for axis in range(wide.ndim) if axis != 1]
        shape = (1, -1, *(1,) * (wide.ndim - 2))
        here = wide.new_full((1,), wide.numel() // wide.shape[1])
        summed = _added_up(torch.cat([wide.sum(over), here]))
        count = summed[-1]  # 2 or more: each process has an image at least
        mean = summed[:-1] / count
        centered = wide - mean.view(shape)
        variance = _added_up(centered.square().sum(over)) / count
        self._remember(mean.detach(), variance.detach() * count / (count - 1))
        normalized: Tensor = centered * (variance + self.eps).rsqrt().view(shape)
        if self.weight is not None:
            normalized = normalized * self.weight.view(shape) + self.bias.view(shape)
        return normalized.to(input.dtype)

    def _check_input_dim(self, input: Tensor) -> None:
        """It takes whatever is [N, C, ...]."""

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        if not self.track_running_stats or self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(variance.to(self.running_var.dtype), share)


def _several() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


_PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, BatchNorm, SynchronizedOnCpu)


class _AddedUp(torch.autograd.Function):
    """The sum of a tensor over all processes; so is its gradient, as each process's loss looks at all of it."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return total


def _added_up(value: Tensor) -> Tensor:
    total: Tensor = _AddedUp.apply(value)  # type: ignore[no-untyped-call]
    return total


def synchronize(module: nn.Module, device: torch.device) -> int:
    """Let the batch norms in `module` be over the batch of all processes, in place; how many there are.

    Parameters, buffers, names and hooks stay what they are.

    Raises:
        ConfigError: one of them does something of its own beside.
    """
    norms = [(name, one) for name, one in module.named_modules() if isinstance(one, _BatchNorm)]
    found: list[tuple[nn.Module, type[nn.Module]]] = []
    for name, one in norms:
        kind = _synchronized(type(one), device.type == "cpu")
        if kind is None:
            raise ConfigError(
                f"train.sync_batch_norm: {name} is a {type(one).__name__}, a batch norm with something of its own, and "
                "what that does over several processes is not known. Leave the option out."
            )
        found.append((one, kind))
    for norm, kind in found:
        norm.__class__ = kind
        vars(norm)["process_group"] = None
    return len(found)


def _synchronized(kind: type[nn.Module], on_cpu: bool) -> type[nn.Module] | None:
    """What computes as `kind` does, over all processes; None where nobody can say."""
    if kind in _PLAIN:
        return SynchronizedOnCpu if on_cpu else nn.SyncBatchNorm
    norms = sys.modules.get("timm.layers.norm_act")
    if norms is None or kind not in (norms.BatchNormAct2d, norms.SyncBatchNormAct):
        return None
    return _SynchronizedActOnCpu if on_cpu else norms.SyncBatchNormAct


class _SynchronizedActOnCpu(SynchronizedOnCpu):
    """As timm's SyncBatchNormAct."""

    drop: nn.Module
    act: nn.Module

    def forward(self, input: Tensor) -> Tensor:
        normalized: Tensor = self.act(self.drop(super().forward(input)))
        return normalized
