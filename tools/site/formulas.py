"""Formulas of docstrings as MathML, which every browser shows without a script."""

from __future__ import annotations

import re
from typing import Any

import griffe
from latex2mathml.converter import convert

FORMULA = re.compile(r"^\.\. math::(.*\n(?:[ ]+.*\n)*)", re.MULTILINE)

NAME = re.compile(r"(?<![\\A-Za-z])(KL|[a-z]{4,})(?![A-Za-z])")
"""What is a word and no product of letters."""


class Formulas(griffe.Extension):
    """Puts MathML where a docstring has a formula of LaTeX."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = FORMULA.sub(_converted, obj.docstring.value + "\n")


def _converted(found: re.Match[str]) -> str:
    formula = NAME.sub(r"\\mathrm{\1}", " ".join(found[1].split()))
    return f'<div style="overflow-x: auto" tabindex="0">{convert(formula, display="block")}</div>\n'
