"""Kinds of data, one a file: each registers itself, and `load` finds the one that a folder holds."""

from counterpoise.data.sources.arrays import ArraySet
from counterpoise.data.sources.base import UNLABELED, ImageSet, Splits, Subset
from counterpoise.data.sources.concatenation import Concatenation
from counterpoise.data.sources.division import split, split_by_fraction
from counterpoise.data.sources.files import FileSet
from counterpoise.data.sources.loading import has_option, load, options, source_of
from counterpoise.data.sources.memory import concatenate, in_memory
from counterpoise.data.sources.registry import names, register, summaries

__all__ = [
    "UNLABELED",
    "ArraySet",
    "Concatenation",
    "FileSet",
    "ImageSet",
    "Splits",
    "Subset",
    "concatenate",
    "has_option",
    "in_memory",
    "load",
    "names",
    "options",
    "register",
    "source_of",
    "split",
    "split_by_fraction",
    "summaries",
]
