"""Blocks of a set: kept wherever its images are, and those of its parts."""

from __future__ import annotations

import torch

from counterpoise.data.blocks import blocks_of_part
from counterpoise.data.sources.arrays import ArraySet
from counterpoise.data.sources.base import ImageSet, Subset
from counterpoise.data.sources.concatenation import Concatenation
from counterpoise.data.sources.memory import concatenate, in_memory


def a_set(count: int = 10, blocks: tuple[int, ...] | None = (4, 3, 3)) -> ArraySet:
    made = ArraySet(torch.zeros(count, 3, 4, 4, dtype=torch.uint8), torch.arange(count) % 2, ["a", "b"])
    made.blocks = None if blocks is None else torch.tensor(blocks)
    return made


def sizes(images: ImageSet) -> list[int] | None:
    return None if images.blocks is None else images.blocks.tolist()


def test_a_part_has_what_is_left_of_each_block_without_empty_ones() -> None:
    indices = torch.tensor([0, 3, 7, 8, 9])
    for part in (a_set().subset(indices), Subset(a_set(), indices)):
        assert sizes(part) == [2, 3]


def test_a_part_in_another_order_has_no_blocks() -> None:
    assert blocks_of_part(torch.tensor([2, 2]), torch.tensor([1, 0, 2])) is None
    assert a_set(blocks=None).subset(torch.tensor([0, 1])).blocks is None


def test_sets_one_after_the_other_have_the_blocks_of_both_or_none() -> None:
    for both in (Concatenation([a_set(), a_set()], torch.zeros(20), ["a", "b"]), concatenate(a_set(), a_set())):
        assert sizes(both) == [4, 3, 3, 4, 3, 3]
    assert concatenate(a_set(), a_set(blocks=None)).blocks is None


def test_blocks_do_not_depend_on_where_pixels_are_kept() -> None:
    read = Subset(a_set(), torch.arange(10))
    held = in_memory(read, 1e9)
    assert isinstance(held, ArraySet)
    assert sizes(held) == [4, 3, 3]
