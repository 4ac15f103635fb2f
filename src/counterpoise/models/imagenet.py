"""Normalization of ImageNet, and class names of it and its larger kin, by their number, as timm knows them."""

from __future__ import annotations

from functools import cache
from typing import Any

from counterpoise.system import torchvision_guard

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


@cache
def classes(count: int) -> tuple[str, ...] | None:
    """Names in order, synonyms of one class separated by ", "; None where no ImageNet has `count` classes."""
    info = _info(count)
    return None if info is None else tuple(info.label_descriptions())


@cache
def synsets(count: int) -> tuple[str, ...] | None:
    """WordNet ids in order, as folders of ImageNet are called: n01440764."""
    info = _info(count)
    return None if info is None else tuple(info.label_names())


@cache
def _info(count: int) -> Any:
    if count < 1000:  # most teachers: spare them the import
        return None
    torchvision_guard.ready()
    from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset({"num_classes": count})
    return None if subset is None else ImageNetInfo(subset)
