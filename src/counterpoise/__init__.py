"""Counterpoise: distil a large vision model into a small one with Balance Divergence, and ship the small one.

The loss alone:

    from counterpoise import BalanceDivergence
    loss = BalanceDivergence()(student_logits, teacher_logits)
"""

from typing import Any

import lazy_loader

# Names and their homes are in __init__.pyi. They are imported on first use: `counterpoise --help` waits for no torch.
_attached, __dir__, _names = lazy_loader.attach_stub(__name__, __file__)
__all__ = [*_names, "__version__"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("counterpoise")
    return _attached(name)
