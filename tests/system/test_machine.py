"""What the machine can count in."""

from __future__ import annotations

import torch

from counterpoise.system.machine import as_double, sum_dtype


def test_sums_are_in_float64_but_on_mps_which_has_none() -> None:
    assert sum_dtype(torch.device("mps")) == torch.float32
    assert sum_dtype(torch.device("cpu")) == sum_dtype(torch.device("cuda", 1)) == torch.float64
    counts = torch.tensor([2**24 + 1, 3])
    assert as_double(counts).dtype == torch.float64
    assert as_double(counts).tolist() == [2**24 + 1, 3]
