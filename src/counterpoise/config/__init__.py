"""The run file: run.py its sections, reading.py from a file to them, keys.py what each key is to a run."""

from counterpoise.config.reading import dump, kept, kept_values, merge, over_base, read, resolve
from counterpoise.config.run import (
    LARGEST_EDGE,
    MOST_REDUCED,
    Data,
    LearningRateSchedule,
    Model,
    Optimizer,
    RandAugment,
    Run,
    Schedule,
    Section,
    Share,
    Teacher,
    Term,
    Train,
    Views,
)

__all__ = [
    "LARGEST_EDGE", "MOST_REDUCED", "Data", "LearningRateSchedule", "Model", "Optimizer", "RandAugment", "Run",
    "Schedule", "Section", "Share", "Teacher", "Term", "Train", "Views", "dump", "kept", "kept_values", "merge",
    "over_base", "read", "resolve",
]  # fmt: skip
