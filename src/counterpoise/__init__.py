"""Counterpoise: distil a large vision model into a small one with Balance Divergence, and ship the small one."""

__version__ = "0.1.0"
