"""Things by name: each a file of its package here, or of another package that names itself by an entry point."""

from __future__ import annotations

import importlib
import pkgutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from counterpoise.errors import ConfigError, unknown

Entry = TypeVar("Entry")


class Registry(Generic[Entry]):
    """What modules register while they are imported, which happens when it is first asked for.

    Args:
        what: as messages call one of them.
        package: whose modules are imported.
        group: of the entry points of other packages, each of which names a module.
    """

    def __init__(self, what: str, package: str, group: str) -> None:
        self.what, self.package, self.group = what, package, group
        self._entries: dict[str, tuple[str, Entry]] = {}
        self._complete = False

    def add(self, name: str, entry: Entry, module: str) -> None:
        """Enter what `module` defines. Raises ConfigError where another module has the name."""
        origin, _ = self._entries.get(name, (module, entry))
        if origin != module:
            raise ConfigError(f"{self.what} '{name}' is given twice, by {origin} and by {module}: remove one of them.")
        self._entries[name] = module, entry

    def entries(self) -> dict[str, Entry]:
        """All by name, in the order of their modules. Of another package that fails a warning tells; others remain."""
        if not self._complete:
            package = importlib.import_module(self.package)
            for module in pkgutil.iter_modules(package.__path__, self.package + "."):
                importlib.import_module(module.name)
            for point in sorted(entry_points(group=self.group), key=lambda point: point.value):
                try:
                    point.load()
                except Exception as error:  # another's code may raise anything
                    package_name = point.dist.name if point.dist else point.module
                    warnings.warn(
                        f"Package {package_name} is left out: its entry point '{point.name} = {point.value}' of "
                        f"{self.group} fails: {type(error).__name__}: {error}",
                        stacklevel=2,
                    )
            self._complete = True
        return {name: entry for name, (_, entry) in self._entries.items()}

    def get(self, name: str) -> Entry:
        """The one called `name`. Raises ConfigError with the nearest name where there is none."""
        known = self.entries()
        if name not in known:
            raise ConfigError(unknown(self.what, name, known))
        return known[name]

    @contextmanager
    def trial(self) -> Iterator[None]:
        """Within it modules are looked for anew; what they register is forgotten afterwards."""
        self.entries()  # what is imported for the first time within it registers never again
        before = self._entries, self._complete
        self._entries, self._complete = dict(self._entries), False
        try:
            yield
        finally:
            self._entries, self._complete = before
