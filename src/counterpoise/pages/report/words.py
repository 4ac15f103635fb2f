"""Numbers and names as the page shows them."""

from __future__ import annotations

import math
import re
import unicodedata

from counterpoise.tasks import AGREEMENT
from counterpoise.tasks.scores.metrics import CASE

NONE, MINUS = "\u2013", "\u2212"  # an en dash where there is no number, a true minus
METRICS = {
    "top1": "top-1 accuracy",
    "miou": "mean IoU",
    "map": "mean average precision",
    "auroc": "mean AUROC",
    "dice": "mean Dice",
    "max_dice": "mean Dice at the best thresholds",
    "top5": "top-5 accuracy",
    "pixel_accuracy": "pixel accuracy",
}
# What turns the direction of all text behind it; on a page names stand in <bdi>, in a chart they cannot.
_TURNING = re.compile("[\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def metric(name: str) -> str:
    """A metric in words."""
    if name.startswith(AGREEMENT):
        return f"agreement with the teacher ({metric(name.removeprefix(AGREEMENT)).removesuffix(' accuracy')})"
    score, _, label = name.removeprefix(CASE).partition(":")
    if name.startswith(CASE):
        return f"{METRICS.get(score, score.replace('_', ' '))}{f' of {label}' if label else ''} by case"
    return METRICS.get(name, name.replace("_", " "))


def first_up(text: str) -> str:
    """A sentence's first letter as a capital, the others as they are."""
    return text[:1].upper() + text[1:]


def short(text: object, longest: int = 60) -> str:
    """A name of the user's on one line, cut in the middle where it is long; without characters that no font has."""
    plainly = "".join("\ufffd" if unicodedata.category(c) in ("Cc", "Cs") else c for c in str(text)[:20_000])
    if len(plainly) <= longest:
        return plainly
    head = longest * 2 // 3
    return f"{plainly[:head]}…{plainly[-(longest - head - 1) :]}"


def plain(text: object, longest: int = 24) -> str:
    """The same for a chart, where text cannot be kept from turning what stands beside it."""
    return short(_TURNING.sub("", str(text)[:20_000]), longest)


def size(count: float | None) -> str:
    """Bytes in a unit that fits."""
    if count is None:
        return NONE
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            value = count / factor
            return f"{value:.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"
    return f"{count:.0f} B"


def counted(count: float | None) -> str:
    """A count, from a million on in millions."""
    if count is None:
        return NONE
    return f"{count / 1e6:.3g} M" if count >= 1e6 else f"{count:,.0f}"


def milliseconds(value: float | None) -> str:
    """A time, with as many digits as one trusts."""
    if value is None or not math.isfinite(value):
        return NONE
    return f"{value:.0f} ms" if value >= 100 else f"{value:.3g} ms" if value >= 1 else f"{value:.2g} ms"


def number(value: float | None) -> str:
    """A number with as many digits as one reads: 1,234,567; 80.9; 1.25; 0.0123."""
    if value is None or not math.isfinite(value):
        return NONE
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    size = abs(value)
    return f"{value:,.0f}" if size >= 1000 else f"{value:.1f}" if size >= 10 else f"{value:.3g}"


def signed(value: float | None) -> str:
    """A difference, with its sign."""
    return NONE if value is None or not math.isfinite(value) else f"{value:+.2f}".replace("-", MINUS)
