"""Several stores that are read as one: what their teachers say together of the same views."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from counterpoise.errors import StoreError
from counterpoise.models.ensemble import Combine, combined
from counterpoise.teachers import identity
from counterpoise.teachers.store import Recorded, Store


class StoresAsOne(Recorded):
    """Stores of the same data, views and classes, combined as `models.ensemble` combines networks.

    Args:
        stores: two or more.
        weights: of each, for means.
        combine: how; not "right", since what is read ahead knows no labels.
        sigmoid: whether each logit is a question of its own.

    Raises:
        StoreError: they are of other data, views or classes, or have no view in common.
    """

    def __init__(self, stores: Sequence[Store], weights: Sequence[float], combine: Combine, sigmoid: bool) -> None:
        first = stores[0].header
        slots = set(first.slots)
        for store in stores[1:]:
            found = first.difference(store.header.answered_by(first.identity))
            if found:
                lines = "".join(f"\n  - {line}" for line in found)
                raise StoreError(
                    f"Stores {stores[0].name} (in the store) and {store.name} (given) are not of the same views:{lines}"
                )
            first = first.sampled(first.sample or store.header.sample)
            slots &= set(store.header.slots)
        if not slots:
            raise StoreError(f"Stores {', '.join(store.name for store in stores)} have no view in common.")
        who = [dict(store.header.identity) for store in stores]
        told = json.dumps([combine, list(weights), who], sort_keys=True)
        header = replace(first.with_slots(sorted(slots))).answered_by(
            {
                identity.WEIGHTS: hashlib.sha256(told.encode()).hexdigest(),
                "architecture": f"ensemble of {len(stores)} stores",
                "normalization": "by member",
            }
        )
        super().__init__(header, " and ".join(store.name for store in stores))
        self.stores = list(stores)
        self.combine: Combine = combine
        self.sigmoid = sigmoid
        self.weights = torch.tensor(weights, dtype=torch.float32) / sum(weights)

    def opened(self) -> list[Store]:
        return self.stores

    def logits(self, indices: Tensor, slots: Tensor) -> Tensor:
        """float32 [N, C, ...] of samples and views, int64 [N] each, on the CPU. Raises StoreError as `Store.logits`."""
        answers = [store.logits(indices, slots) for store in self.stores]
        every: list[Tensor | None] = [None] * len(answers)
        return combined(answers, self.weights, self.combine, every, self.header.shape[0], self.sigmoid)

    def close(self) -> None:
        """Close them all."""
        for store in self.stores:
            store.close()
