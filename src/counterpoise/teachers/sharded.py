"""A teacher that fits on no card: each process keeps a share of its weights, and they come together block by block."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn

from counterpoise.errors import ConfigError, CounterpoiseError, ModelError, first_line
from counterpoise.models.network import VisionModel
from counterpoise.teachers import identity
from counterpoise.teachers.identity import Identity
from counterpoise.teachers.live import LiveTeacher

SMALL, TINY = 1 / 8, 1 / 1000
"""Of a network's weights, what a block holds in which no others are looked for, and what is too little for one."""
_SEQUENCES = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_EDGES = 2**20  # more than any picture has


def require_several(world: int, device: torch.device) -> None:
    """Raises ConfigError where there is nothing to share a teacher out over."""
    if world == 1:
        raise ConfigError(
            "teacher.shard shares the teacher out over several processes, and here is one: start them with torchrun "
            "(docs/scaling.md has the commands), or say --teacher.no-shard."
        )
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"teacher.shard works on cuda and cpu, not on {device.type}: leave it out.")


def share_out(
    model: VisionModel, device: torch.device, precision: torch.dtype, known: Identity, images: Tensor
) -> LiveTeacher:
    """The teacher with its weights shared out over all processes: only this one's share of them lies on `device`.

    From here on all processes call it together: each once, in any batches, or as often as they like within
    `model.together()`. What each keeps is among the notes of the model.

    Args:
        model: whole, on the CPU; changed in place.
        known: who it is, as this process read it.
        images: some, to ask it a first time.

    Raises:
        ModelError: the processes have read different teachers; the network uses weights outside of the block that they
            belong to.
    """
    _require_alike(known)
    whole = _bytes(model.net)
    try:
        parts, at_once = _shard(model.net.eval().requires_grad_(False), device)
        model.together = _Calls(model.net, device, model.channels).together
        teacher = LiveTeacher(model, device, precision)
        teacher(images)
    except (AssertionError, AttributeError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, RuntimeError) and "DTensor" not in str(error):
            raise
        raise ModelError(
            f"teacher.shard: {model.name} cannot be computed from shares: {first_line(error)}. Leave it out, or record "
            "its answers where it fits whole (`counterpoise record`)."
        ) from error
    sizes = [f"{size / 1e6:,.2f} MB" for size in (whole, _bytes(model.net), at_once)]
    model.notes += (
        f"The teacher's weights are shared out over {dist.get_world_size()} processes: of {sizes[0]} this one keeps "
        f"{sizes[1]}. They come together in {parts} blocks, {sizes[2]} at once.",
    )
    return teacher


def _shard(net: nn.Module, device: torch.device) -> tuple[int, int]:
    """Put shares of its weights in the place of them; the number of blocks, and the most bytes that come together."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    for parameter in net.parameters():
        parameter.data = parameter.data.contiguous()  # another order of memory is not taken
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    scalars = {parameter for parameter in net.parameters() if parameter.ndim == 0}  # there is nothing to divide
    parts = [*blocks(net), net]
    together: Counter[nn.Module] = Counter()  # what a block has beside the blocks inside it
    for part in parts:
        together[part] = _bytes(part) - sum(together[inner] for inner in set(part.modules()) & together.keys())
    for part in parts:
        fully_shard(part, mesh=mesh, reshard_after_forward=True, ignored_params=scalars)
    return len(parts) - 1, together.pop(net) + max(together.values(), default=0)


def blocks(net: nn.Module) -> list[nn.Module]:
    """The blocks that a network repeats, inner ones before those around them; of what is inside of small ones, none.

    Each stands in a sequence, and so is called as a whole, as the weights of a block ask for.
    """
    sequences = [module for module in net.modules() if isinstance(module, _SEQUENCES)]
    in_sequence = {child for module in sequences for child in module.children() if not isinstance(child, _SEQUENCES)}
    kinds, whole = Counter(map(type, in_sequence)), _bytes(net)
    repeated = {child for child in in_sequence if kinds[type(child)] > 1 and _bytes(child) >= TINY * whole}
    return list(dict.fromkeys(_inner(net, repeated, SMALL * whole)))


def _inner(module: nn.Module, repeated: set[nn.Module], small: float) -> Iterator[nn.Module]:
    for child in module.children():
        if child not in repeated or _bytes(child) > small:
            yield from _inner(child, repeated, small)
        if child in repeated:
            yield child


class _Calls:
    """Calls of a network in shards, of which each needs all processes."""

    def __init__(self, net: nn.Module, device: torch.device, channels: int) -> None:
        self.net = net
        self.device = device
        self.telling = False
        self.channels = channels
        net.register_forward_pre_hook(self._before, prepend=True)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Within, each process calls as often as it likes: who has come to its end calls along with the others.

        So does one that an error ends, which the others are told of where they meet next.
        """
        self.telling, problem = True, None
        try:
            yield
        except CounterpoiseError as error:
            problem = error
        finally:
            self.telling = False
        with torch.inference_mode():
            while size := self._largest(0):
                self.net(torch.zeros(1, self.channels, *divmod(size, _EDGES), device=self.device))
        if problem is not None:
            raise problem

    def _before(self, net: nn.Module, inputs: tuple[Tensor]) -> None:
        if self.telling:
            height, width = inputs[0].shape[-2:]
            self._largest(height * _EDGES + width)

    def _largest(self, size: int) -> int:
        """The largest of what the processes are about to be asked for; 0: nobody is."""
        sizes = torch.tensor(size, device=self.device)
        dist.all_reduce(sizes, dist.ReduceOp.MAX)
        return int(sizes)


def _bytes(module: nn.Module) -> int:
    """Bytes of the parameters that lie in this process."""
    local = (getattr(parameter, "_local_tensor", parameter) for parameter in module.parameters())
    return sum(tensor.numel() * tensor.element_size() for tensor in local)


def _require_alike(known: Identity) -> None:
    """Raises ModelError unless all processes know the teacher by the same identity."""
    every: list[Identity] = [{}] * dist.get_world_size()
    dist.all_gather_object(every, dict(known))
    for rank, other in enumerate(every):
        if differing := identity.differences(every[0], other):
            name, first, here = differing[0]
            raise ModelError(
                f"teacher.shard: process {rank} has read another teacher than process 0, and each is to keep a share "
                f"of one: {name} {here} there, {first} in process 0. Give all machines the same file."
            )
