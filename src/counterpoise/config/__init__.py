"""The run file: run.py and data.py its sections, reading.py from a file to them, keys.py what each key is to a run."""

from counterpoise.config.data import Data, RandAugment, Scenes, Views
from counterpoise.config.intensity import Intensity
from counterpoise.config.reading import dump, kept, kept_values, merge, over_base, read, resolve
from counterpoise.config.run import (
    Imitated,
    LearningRateSchedule,
    Member,
    Model,
    Optimizer,
    Run,
    Schedule,
    Teacher,
    Term,
    Train,
    usual_terms,
)
from counterpoise.config.section import LARGEST_EDGE, MOST_CHANNELS, MOST_REDUCED, Section, Share

__all__ = [
    "LARGEST_EDGE", "MOST_CHANNELS", "MOST_REDUCED", "Data", "Imitated", "Intensity", "LearningRateSchedule", "Member",
    "Model", "Optimizer", "RandAugment", "Run", "Scenes", "Schedule", "Section", "Share", "Teacher", "Term", "Train",
    "Views", "dump", "kept", "kept_values", "merge", "over_base", "read", "resolve", "usual_terms",
]  # fmt: skip
