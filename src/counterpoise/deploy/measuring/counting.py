"""What a network costs on paper: parameters and multiply-adds."""

from __future__ import annotations

import torch
from torch import nn


def parameters(network: nn.Module) -> int:
    """How many numbers were learned; of those that two layers share, once."""
    return sum(parameter.numel() for parameter in network.parameters())


def multiply_adds(network: nn.Module, size: tuple[int, int], channels: int = 3) -> int:
    """Multiply-adds of one picture of this height and width, in convolutions and matrix products, which are nearly all.

    torch counts a multiplication and an addition as two operations, papers and this function as one: resnet18 at
    224 x 224 has 1.82 G.

    Args:
        network: takes uint8 pixels [N, channels, H, W], in eval mode.
    """
    from torch.utils.flop_counter import FlopCounterMode

    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, channels, *size, dtype=torch.uint8, device=device))
    return int(counter.get_total_flops()) // 2
