"""One process, or several under torchrun."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from counterpoise.errors import ConfigError, CounterpoiseError, OwnCodeError, RunError, first_line


@contextmanager
def errors_explained() -> Iterator[None]:
    """Say in words what torch says of a process that is gone, or of a batch that batch norm cannot take.

    Raises RunError or ConfigError.
    """
    try:
        yield
    except (RuntimeError, ValueError) as error:
        reason = error.__cause__ if isinstance(error, OwnCodeError) else error
        words = str(reason).lower()
        if isinstance(reason, ValueError) and "more than 1 value per channel" in words:
            raise ConfigError(
                "The last batch of an epoch holds one image a process, or one a part (train.accumulate), which batch "
                "norm cannot take: set train.drop_last, or another train.batch_size."
            ) from error
        gone = isinstance(reason, RuntimeError) and any(word in words for word in ("gloo", "nccl", "connection"))
        if not gone or not dist.is_initialized():
            raise
        raise RunError("Another process of this run has stopped; its own message says why.") from error


@dataclass(frozen=True)
class Processes:
    """This process among all that train one run."""

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    @errors_explained()
    def barrier(self) -> None:
        """Wait for all."""
        if self.world > 1:
            dist.barrier()

    @errors_explained()
    def add(self, value: Tensor) -> Tensor:
        """The sum of `value` over all processes."""
        if self.world == 1:
            return value
        moved = value.to(self.device)
        dist.all_reduce(moved)
        return moved.to(value.device)

    @errors_explained()
    def join(self, value: Tensor) -> Tensor:
        """The values of all processes one after the other, along their first dimension."""
        every: list[Any] = [value] * self.world
        if self.world > 1:
            dist.all_gather_object(every, value.cpu())
        return torch.cat(every).to(value.device)

    @errors_explained()
    def as_first(self, values: Iterable[Tensor]) -> None:
        """Put the first process's values in the place of everybody's."""
        for value in values if self.world > 1 else ():
            dist.broadcast(value, 0)

    @errors_explained()
    def each(self, values: dict[str, float]) -> list[dict[str, float]]:
        """What each process has, where there are several."""
        every: list[Any] = [values] * self.world
        if self.world > 1:
            dist.all_gather_object(every, values)
        return every if self.world > 1 else []

    def union(self, names: set[str]) -> list[str]:
        """All names that any process has, sorted."""
        every: list[set[str] | None] = [names] * self.world
        if self.world > 1:
            dist.all_gather_object(every, names)
        return sorted(set().union(*(part or set() for part in every)))

    @errors_explained()
    def agree(self, problem: CounterpoiseError | None) -> None:
        """Wait for all, and raise in each where any has a problem: its own, or a RunError that tells another's."""
        problems: list[str | None] = [None if problem is None else str(problem)] * self.world
        if self.world > 1:
            dist.all_gather_object(problems, problems[0])
        if problem is not None:
            raise problem
        for rank, text in enumerate(problems):
            if text is not None:
                raise RunError(f"Process {rank} of {self.world}: {text}")

    def any(self, flag: bool) -> bool:
        """Whether the flag is up in any process."""
        return bool(self.add(torch.tensor(int(flag))).item()) if self.world > 1 else flag


_LEFT: list[Any] = []
"""The group that was left last: see `_leave`."""


def _leave() -> None:
    """Leave the group of all processes.

    It is kept until the next one is left. Otherwise the last to hold it is the network that DDP wrapped, which drops it
    with the interpreter locked and waits for the group's threads, of which one may be waiting for the interpreter to
    drop a tensor (https://github.com/pytorch/pytorch/issues/56297): a run that has done everything, and never ends.
    """
    _LEFT[:] = [dist.group.WORLD]
    dist.destroy_process_group()


@contextmanager
def join(device: str) -> Iterator[Processes]:
    """This process, joined with the others when torchrun started it (gloo on CPU, nccl on CUDA).

    Where somebody has joined them before, as Ray Train does, they are left so. Raises RunError where they do not meet.
    """
    joined = dist.is_available() and dist.is_initialized()
    world = dist.get_world_size() if joined else int(os.environ.get("WORLD_SIZE", "1"))
    rank = dist.get_rank() if joined else int(os.environ.get("RANK", "0"))
    if world == 1:
        yield Processes(0, 1, choose_device(device))
        return
    chosen = choose_device(device)
    if chosen.type == "cuda":
        chosen = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(chosen)
    if joined:
        yield Processes(rank, world, chosen)
        return
    try:
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    except (RuntimeError, ValueError) as error:  # whatever store, gloo or nccl have to say
        raise RunError(
            f"The {world} processes of this run did not meet: {first_line(error)}. docs/scaling.md has the commands; "
            "after a restart torchrun needs TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 in its environment."
        ) from error
    try:
        yield Processes(rank, world, chosen)
    finally:
        _leave()


def choose_device(name: str) -> torch.device:
    """The device called `name`; "auto" is CUDA, then MPS, then the CPU. Raises ConfigError where it is not there."""
    known = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    there = [kind for kind, available in known.items() if available]
    if name == "auto":
        return torch.device(there[0])
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"train.device: '{name}' is no device; expected auto, cpu, cuda, cuda:1 or mps.") from None
    if device.type not in there or (device.index or 0) >= max(torch.cuda.device_count(), 1):
        raise ConfigError(f"train.device: '{name}' is not there. Here: {', '.join(sorted(there))}.")
    return device


def half_precision_helps(device: torch.device) -> bool:
    """Whether bf16 has instructions of its own on this device."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        if not hasattr(torch.cpu, "get_capabilities"):  # before torch 2.11
            return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
        features = torch.cpu.get_capabilities()
        return bool(features.get("avx512_bf16") or features.get("amx_bf16") or features.get("bf16"))
    return False
