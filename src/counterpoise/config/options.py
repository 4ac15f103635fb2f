"""What a verb may be asked for, said once: the keywords of its Python function, its flags, and the help of both."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, Literal, ParamSpec, Protocol, TypeVar, cast

from cyclopts import Parameter
from pydantic import Field

from counterpoise.config.section import Folder, Section
from counterpoise.config.validation_errors import validated

Given = ParamSpec("Given")
Asked = TypeVar("Asked", bound=Section)
Thing = TypeVar("Thing")
Result = TypeVar("Result")
Thing_contra = TypeVar("Thing_contra", contravariant=True)
Result_co = TypeVar("Result_co", covariant=True)

if TYPE_CHECKING:
    Place = Path | str
else:  # what a flag holds of it
    Place = Folder

NO_FLAG = Parameter(parse=False)
"""Of a field that Python alone can give."""
Epoch = Annotated[
    Literal["last", "best"] | None,
    Field(description="of a run: the student of its last or of its best epoch; default: the one that ships"),
]
Device = Annotated[str, Field(description="auto, cpu, cuda, cuda:1 or mps")]
Show = Annotated[bool, NO_FLAG, Field(description="now and then, on stderr, how far it is")]


class WithSecond(Protocol[Thing_contra, Given, Result_co]):
    """A function whose second argument may be given by place, too."""

    def __call__(
        self, thing: Thing_contra, second: Any = ..., /, *args: Given.args, **values: Given.kwargs
    ) -> Result_co:
        """Call it."""


def keywords(
    section: Callable[Given, Asked],
) -> Callable[[Callable[[Thing, Asked], Result]], Callable[Concatenate[Thing, Given], Result]]:
    """Make a function of (thing, options) one of (thing, *, option=value, ...), with the fields' descriptions as help.

    It raises ConfigError, with all mistakes, for values that the section refuses.
    """
    return lambda function: _with_keywords(function, section)


def keywords_after(
    second: str, section: Callable[Given, Asked]
) -> Callable[[Callable[[Thing, Asked], Result]], WithSecond[Thing, Given, Result]]:
    """As `keywords`; the option called `second` may be given by place, too."""
    return lambda function: _with_keywords(function, section, second)


def _with_keywords(function: Callable[..., Any], section: Callable[..., Section], second: str | None = None) -> Any:
    kind = cast("type[Section]", section)
    kind.model_rebuild()  # so that its signature is known
    *leading, _ = inspect.signature(function).parameters.values()
    written = {name: each for base in reversed(kind.__mro__) for name, each in inspect.get_annotations(base).items()}
    taken = [each.replace(annotation=written[name]) for name, each in inspect.signature(kind).parameters.items()]
    by_place = [each.replace(kind=inspect.Parameter.POSITIONAL_OR_KEYWORD) for each in taken if each.name == second]
    signature = inspect.Signature([*leading, *by_place, *(each for each in taken if each.name != second)])

    @functools.wraps(function)
    def call(*args: Any, **values: Any) -> Any:
        given = signature.bind(*args, **values).arguments
        things = [given.pop(each.name) for each in leading]
        return function(*things, validated(kind, given, f"call of {function.__name__}"))

    call.__signature__ = signature  # type: ignore[attr-defined]
    told = (f"    {name}: {field.description}" for name, field in kind.model_fields.items())
    call.__doc__ = "\n".join([f"{inspect.getdoc(function)}", "", "Options:", *told])
    return call
