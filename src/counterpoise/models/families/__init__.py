"""Where networks come from. A new family is one file in this folder with one function under `@register`."""

from counterpoise.models.families.base import Built, Family, Request, families

__all__ = ["Built", "Family", "Request", "families"]
