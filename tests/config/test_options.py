"""The options of a verb, said once: keywords in Python, with the fields' descriptions as help."""

from __future__ import annotations

import inspect

import pytest
from pydantic import Field

from counterpoise.config import Section
from counterpoise.config.options import keywords
from counterpoise.errors import ConfigError


class Baking(Section):
    minutes: int = Field(description="in the oven")
    glaze: str | None = Field(None, description="on top")


@keywords(Baking)
def bake(what: str, asked: Baking) -> tuple[str, Baking]:
    """Bake it."""
    return what, asked


def test_fields_are_keywords_with_their_help() -> None:
    assert bake(what="bread", minutes=40) == bake("bread", minutes=40) == ("bread", Baking(minutes=40))
    parameters = inspect.signature(bake).parameters
    assert list(parameters) == ["what", "minutes", "glaze"]
    assert parameters["glaze"].default is None
    assert (bake.__doc__ or "").splitlines() == [
        "Bake it.", "", "Options:", "    minutes: in the oven", "    glaze: on top"
    ]  # fmt: skip


def test_what_is_no_keyword_or_no_value_is_refused() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'heat'"):
        bake("bread", minutes=40, heat=200)  # type: ignore[call-arg]
    with pytest.raises(ConfigError) as refused:
        bake("bread", minutes="long", glaze=3)  # type: ignore[arg-type]
    assert all(name in str(refused.value) for name in ("call of bake", "2 mistakes", "minutes", "glaze"))
