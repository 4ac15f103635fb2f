"""The part of the data section that says how values of any depth become the 8 bits that travel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from counterpoise.config.section import Section

if TYPE_CHECKING:
    from counterpoise.reading import Intensity as Mapping  # which imports numpy, and help waits for nothing

Value = Annotated[float, Field(ge=-1e12, le=1e12, allow_inf_nan=False)]
Percent = Annotated[float, Field(ge=0.0, le=100.0)]


class Intensity(Section):
    """Which values of pictures become black and white; one of the first four."""

    window: tuple[Value, Value] | None = Field(
        None,
        description="the values that become black and white, such as -160 240; of a center and a width: center - "
        "width / 2, center + width / 2",
    )
    percentiles: tuple[Percent, Percent] | None = Field(
        None, description="of the values of each picture and channel, such as 1 99"
    )
    zscore: float | None = Field(
        None,
        gt=0.0,
        le=1000.0,
        description="how many standard deviations below the mean of each picture and channel are black, and above it "
        "white, such as 3",
    )
    white: Annotated[float, Field(gt=0.0, le=1e12)] | None = Field(
        None, description="the value that is white, and 0 is black: as window 0 N"
    )

    of: Literal["picture", "volume"] = Field(
        "picture",
        description="what percentiles and zscore are of: each picture, of volumes each slice; or all slices of a "
        "volume together (sources nifti and stacks), as MONAI and nnU-Net have it",
    )

    @field_validator("zscore", "white", mode="before")
    @classmethod
    def _is_a_number(cls, value: Any) -> Any:
        if isinstance(value, bool):
            raise ValueError(f"takes a number, got {str(value).lower()}")
        return value

    @model_validator(mode="after")
    def _one_of_them(self) -> Intensity:
        names = tuple(name for name in type(self).model_fields if name != "of")
        given = [name for name in names if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"takes one of {', '.join(names)}; given: {', '.join(given) or 'none'}")
        for name in ("window", "percentiles"):
            ends = getattr(self, name)
            if ends is not None and not ends[0] < ends[1]:
                raise ValueError(f"{name} rises, from black to white, got {list(ends)}")
        if self.of == "volume" and given[0] in ("window", "white"):
            raise ValueError(f"of: volume is for percentiles and zscore; {given[0]} is the same for any slice")
        return self

    @model_serializer(mode="wrap")
    def _what_is_given(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        left_out = (None, "picture")  # what earlier versions read
        return {name: value for name, value in handler(self).items() if value not in left_out}

    @property
    def mapping(self) -> Mapping:
        """As pictures are read by it."""
        from counterpoise.reading import said

        return said(self.model_dump())
