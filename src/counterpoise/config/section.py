"""What the sections of the run file share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from counterpoise.system.files import expanded

Share = Annotated[float, Field(ge=0.0, le=1.0)]
LARGEST_EDGE = 16_384
"""Of a view or of a network's input, in pixels."""
Edge = Annotated[int, Field(ge=1, le=LARGEST_EDGE)]
MOST_REDUCED = 1024
"""How many times smaller than they are scenes are shown at most."""
MOST_CHANNELS = 1024
"""Of pictures, at most."""
BATCH_BYTES = 2**34
"""Of the pixels of a batch at most."""
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
Channels = Annotated[tuple[float, ...], Field(min_length=1, max_length=MOST_CHANNELS)]
"""A number a channel."""


def _at_home(path: Path) -> Path:
    """`~` and `~user` as the folders that they stand for: what is in a run file comes by no shell."""
    try:
        return expanded(path)
    except OSError as error:
        raise ValueError(str(error)) from None


Folder = Annotated[Path, AfterValidator(_at_home)]
"""A place that may begin with the home of somebody."""


class Section(BaseModel):
    """Base of all sections: unknown keys are errors, values do not change once read."""

    # Built when first used: `counterpoise --help` waits for none.
    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, protected_namespaces=(), defer_build=True
    )

    def changed(self) -> list[str]:
        """The keys whose values are not the default ones, in their order."""
        usual = type(self)()
        return [key for key in type(self).model_fields if getattr(self, key) != getattr(usual, key)]

    @model_validator(mode="before")
    @classmethod
    def _nothing_said_as_on_a_command_line(cls, values: Any) -> Any:
        """`null` as text is None where a value may be None and no text: a command line has no other word for it."""
        if not isinstance(values, Mapping) or "null" not in values.values():
            return values
        return {key: None if value == "null" and _or_none(cls, key) else value for key, value in values.items()}


def _or_none(kind: type[BaseModel], key: Any) -> bool:
    field = kind.model_fields.get(key)
    kinds = get_args(field.annotation) if field is not None else ()
    return type(None) in kinds and not {str, Path, Any} & {*kinds}
