"""When a student answers and when it says that it is not sure, as it stands in student.json and export.json."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Inner = Annotated[float, Field(gt=0.0, lt=1.0)]


class _OfGroups(BaseModel):
    groups: int | None = Field(None, ge=1)
    """Which these pictures are of, where some belong together: then all shares are means over groups, each of which
    counts as much as any other, and so does what is promised."""

    @model_serializer(mode="wrap")
    def _told(self, values: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """As readers before groups know it, where there are none."""
        found: dict[str, Any] = values(self)
        if self.groups is None:
            found.pop("groups", None)
        return found


class Promise(_OfGroups):
    """Of what a student answers, at most `risk` is wrong, as sure as `confidence`; see `counterpoise promise`."""

    model_config = ConfigDict(frozen=True)

    risk: Inner
    """Share of wrong answers among those that are given."""
    confidence: Inner
    """Share of choices like this one that keep their word."""
    temperature: float = Field(gt=0.0, allow_inf_nan=False)
    """Logits are divided by it before the softmax."""
    threshold: Share
    """A picture is answered where the largest probability is as large as this."""
    coverage: Inner
    """Share of pictures whose true class is in the set of classes that is given."""
    least: Share
    """That set holds the classes whose probability is as large as this, and the likeliest one anyway."""
    pictures: int = Field(ge=1)
    """On which this was chosen."""
    answered: Share
    """Share of these that are answered."""
    wrong: Share
    """Share of the answers to these that are wrong."""
    bound: Share
    """Upper bound of the share of wrong answers, on the part of the pictures that chose nothing else: Clopper and
    Pearson's, or of groups by bets."""
    set_size: float = Field(ge=0.0)
    """Mean number of classes in the set."""
    data: str
    """Fingerprint of the pictures."""


class ScenePromise(_OfGroups):
    """Of the pixels of a scene that a student answers, at most `risk` is wrong on average over scenes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    risk: Inner
    """Mean over scenes of the share of wrong pixels among those that are answered, 0 where none is; over groups of the
    mean over their scenes, where there are groups."""
    confidence: Inner
    """Share of choices like this one that keep their word."""
    temperature: float = Field(gt=0.0, allow_inf_nan=False)
    """Logits are divided by it before the softmax."""
    threshold: Share
    """A pixel is answered where the largest probability is as large as this."""
    pictures: int = Field(ge=1)
    """Scenes on which this was chosen."""
    answered: Share
    """Share of their pixels that are answered."""
    wrong: Share
    """Mean over them of the share of wrong pixels among those that are answered."""
    bound: Share
    """Upper bound of that mean, on the part of the scenes that chose nothing else."""
    unsure: dict[str, Share]
    """By class, the share of its pixels that is left unanswered; classes that the masks hold."""
    data: str
    """Fingerprint of the scenes."""
