"""Chance as a function: Philox4x32-10 in int64 tensors, and on the CPU in unsigned numpy arrays, with the same words.

A draw depends on (seed, epoch, sample index, stream) alone, never on what was drawn before it. It is integer arithmetic
throughout, and so gives the same numbers on every device and for every way of cutting the samples into batches.

Paper: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# One stream for each use, so that switching one augmentation on does not move the draws of another.
ORDER, CROP, FLIP, RANDAUGMENT, MIX, SPLIT, SCALE, JITTER, BLOCKS, BALANCE = range(10)
ROTATE, ELASTIC, FLIP_VERTICAL, GAMMA, BLUR, NOISE = range(10, 16)
FOREGROUND = 32

_AT_ONCE = 2**16  # indices: what lies between them and their words takes 300 bytes each
_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]) -> Tensor:
    """Philox4x32-10.

    Args:
        counter: four int64 tensors of 32-bit words, of shapes that broadcast together.
        key: two 32-bit words.

    Returns:
        int64 tensor of 32-bit words, the broadcast shape with a last dimension of 4.
    """
    x0, x1, x2, x3 = counter
    k0, k1 = key
    for _ in range(10):
        high0, low0 = _multiply(_MULTIPLIERS[0], x0)
        high1, low1 = _multiply(_MULTIPLIERS[1], x2)
        x0, x1, x2, x3 = high1 ^ x1 ^ k0, low1, high0 ^ x3 ^ k1, low0
        k0, k1 = (k0 + _KEY_STEPS[0]) & _MASK, (k1 + _KEY_STEPS[1]) & _MASK
    # Every word depends on all four by now, and so has the broadcast shape.
    return torch.stack((x0, x1, x2, x3), dim=-1)


def words(seed: int, epoch: int, indices: Tensor, stream: int, count: int) -> Tensor:
    """32-bit random words of samples.

    Args:
        seed: 0 <= seed < 2**64.
        epoch: 0 <= epoch < 2**32.
        indices: int64 [n], sample indices.
        stream: what the draw is for, one of the constants of this module.
        count: words a sample, at most 4 * 65536.

    Returns:
        int64 [n, count], each value in [0, 2**32), on the device of `indices`.
    """
    if indices.device.type == "cpu":
        return torch.from_numpy(_words(seed, epoch, indices.numpy(), stream, count))
    indices = indices.unsqueeze(1)
    blocks = torch.arange(-(-count // 4), device=indices.device)
    constant = torch.full_like(blocks, epoch)
    counter = (indices & _MASK, (indices >> 32) & _MASK, constant, stream * 65536 + blocks)
    return philox(counter, (seed & _MASK, seed >> 32)).flatten(1)[:, :count]


def _words(
    seed: int, epoch: int | NDArray[np.int64], indices: NDArray[np.int64], stream: int, count: int
) -> NDArray[np.int64]:
    """`words` on the CPU, where a tensor's operation on few numbers takes several times as long as an array's.

    epoch: of all indices, or int64 [n], one for each.
    """
    index = indices.astype(np.uint64)[:, None]
    block = np.arange(-(-count // 4), dtype=np.uint64)[None] + np.uint64(stream * 65536)
    half, mask = np.uint64(32), np.uint64(_MASK)
    x0, x1, x3 = index & mask, index >> half, block
    x2 = np.full_like(block, epoch) if isinstance(epoch, int) else epoch.astype(np.uint64)[:, None] & mask
    k0, k1 = seed & _MASK, seed >> 32
    for _ in range(10):
        product0, product1 = x0 * np.uint64(_MULTIPLIERS[0]), x2 * np.uint64(_MULTIPLIERS[1])
        x0, x1 = (product1 >> half) ^ x1 ^ np.uint64(k0), product1 & mask
        x2, x3 = (product0 >> half) ^ x3 ^ np.uint64(k1), product0 & mask
        k0, k1 = (k0 + _KEY_STEPS[0]) & _MASK, (k1 + _KEY_STEPS[1]) & _MASK
    found: NDArray[np.uint64] = np.stack((x0, x1, x2, x3), -1).reshape(len(index), 4 * block.size)[:, :count]
    return found.astype(np.int64)


def to_uniform(words: Tensor) -> Tensor:
    """32-bit words as float32 in [0, 1): their upper 24 bits, which float32 holds exactly."""
    return (words >> 8).to(torch.float32) * 2.0**-24


def to_integers(words: Tensor, bound: int) -> Tensor:
    """32-bit words as int64 in [0, bound), for 1 <= bound < 2**31; probabilities differ by less than 2**-32."""
    return (words * bound) >> 32


def permutation(seed: int, epoch: int, n: int) -> Tensor:
    """The order of an epoch: int64 [n], every index below n once, sorted by a 63-bit key drawn for each index."""
    return shuffled(seed, epoch, torch.arange(n), ORDER)


def shuffled(seed: int, epoch: int, indices: Tensor, stream: int) -> Tensor:
    """Rising indices (int64 [n]) sorted by a 63-bit key drawn for each.

    Of two with equal keys the smaller one comes first: the order is one of the indices, not of their places.
    """
    return indices[keys(seed, epoch, indices, stream).argsort(stable=True)]


def keys(seed: int, epochs: int | Tensor, indices: Tensor, stream: int) -> Tensor:
    """63-bit random keys of indices, int64 [n] on the CPU; epochs: of all of them, or int64 [n], one for each."""
    found = torch.empty_like(indices)
    for start in range(0, len(indices), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        epoch = epochs if isinstance(epochs, int) else epochs[part].numpy()
        high, low = torch.from_numpy(_words(seed, epoch, indices[part].numpy(), stream, 2)).unbind(1)
        found[part] = (high >> 1) << 32 | low
    return found


def _multiply(constant: int, x: Tensor) -> tuple[Tensor, Tensor]:
    """The high and low 32 bits of a product of words, from halves of 16 bits: int64 holds no 64 unsigned bits."""
    low = x & 0xFFFF
    low *= constant
    middle = x >> 16
    middle *= constant
    middle += low >> 16
    return middle >> 16, (middle << 16 | low & 0xFFFF) & _MASK
