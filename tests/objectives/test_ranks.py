"""Places of classes, by the rule that argmax and a stable order have for ties."""

from __future__ import annotations

import pytest
import torch

from counterpoise.objectives.ranks import rank_of


@pytest.mark.parametrize("classes", [1, 3, 60])
def test_a_rank_is_the_place_in_a_stable_order_of_logits_that_are_alike(classes: int) -> None:
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(200, classes, generator=draw).mul(2).round()
    asked = torch.randint(classes, (200,), generator=draw)
    logits[:5, 0], logits[5:10, -1], logits[10] = -torch.inf, torch.inf, torch.nan
    order = logits.argsort(dim=1, descending=True, stable=True)
    assert rank_of(logits, asked).tolist() == (order == asked[:, None]).int().argmax(1).tolist()
    assert torch.equal(rank_of(logits, asked) == 0, logits.argmax(1) == asked)
