"""Whether a run that was trained stands for one that is asked for: of the same data and the same teacher.

Not their paths count but what lies there: fingerprints, and all that a teacher's answers depend on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping

from counterpoise import config
from counterpoise.errors import CounterpoiseError

DATA = {"data": "training images", "val": "validation images", "order": "shards"}
UNSEEN = {"teacher.input", "teacher.computed_in"}
"""Parts that are known when views are: the keys of the run file say them, too."""


class Present:
    """What data and teachers of runs are now; each is looked at once.

    Args:
        say: is told what cannot be checked.
    """

    def __init__(self, say: Callable[[str], None] = lambda text: None) -> None:
        self.say = say
        self._said: set[str] = set()
        self._found: dict[str, dict[str, str] | str] = {}

    def of(self, run: config.Run) -> dict[str, str] | None:
        """The identity of a run's data and teacher; None where they cannot be read, which is said."""
        from counterpoise.engine.assemble import present
        from counterpoise.engine.identify import own

        shown = {"views", "scenes", "workers", "memory_limit_gb"}
        teacher = None if run.teacher is None else {**run.teacher.model_dump(mode="json"), "precision": "auto"}
        seed = run.seed if teacher is not None and "{seed}" in str(teacher["store"]) else 0
        heard = sorted({term.objective or name for name, term in run.objective.items()})  # whether features alone
        key = json.dumps([run.task, seed, run.data.model_dump(mode="json", exclude=shown), teacher, heard])
        if key not in self._found:
            try:
                self._found[key] = present(run)
            except (CounterpoiseError, OSError) as error:
                self._found[key] = str(error)
        found = self._found[key]
        if isinstance(found, str):
            self._once(f"Whether data and teacher are those of the runs that are done cannot be checked: {found}")
            return None
        return found | own(run)

    def differences(self, there: config.Run, kept: Mapping[str, str], wanted: config.Run) -> list[str]:
        """In what a run that was trained is not of the data and the teacher of one that is asked for, a line each.

        Args:
            there: its run file.
            kept: the identity that it noted; earlier versions noted less, or nothing.
        """
        from counterpoise.data import sources
        from counterpoise.data.walking import of_earlier
        from counterpoise.engine.identify import other_code, other_data
        from counterpoise.engine.state import teacher_of
        from counterpoise.teachers import identity

        now, old, new = self.of(wanted), there.data, wanted.data
        if now is None or "data" not in kept:
            paths = (("data.path", old.path, new.path), ("data.unlabeled", old.unlabeled, new.unlabeled))
            why = "what lay there was not noted" if now is not None else "what lies there cannot be read"
            moved = [f"{key}: {was} there, {is_now} here, and {why}" for key, was, is_now in paths if was != is_now]
            if now is not None and not moved:
                self._once("Runs of an earlier version did not note their data: their paths are the same.")
            return moved
        places = f"those in {new.path or new.source} are others than they were"
        if old.path != new.path:
            places = f"data.path is {old.path} there and {new.path} here, which hold others"
        found = []
        for half, (was, is_now) in other_data(kept, now).items():
            hint = of_earlier(sources.load(new).train.classes)
            found.append(
                f"{DATA[half]}: {places} (sha256 {was[:12]}... there, {is_now[:12]}... here){hint and f'.{hint}'}"
            )
        differing = identity.differences(teacher_of(kept), teacher_of(now), but="input")
        found += [f"teacher, {name}: {was} there, {is_now} here" for name, was, is_now in differing]
        return found + [f"{key}: the code that it names has changed since" for key in other_code(kept, now)]

    def stands(self, row: Mapping[str, str], run: config.Run) -> bool | None:
        """Whether a row of a table is of this run's data and teacher; None where nobody can say."""
        now = self.of(run)
        if now is None or not row["data"]:
            return None
        if row["identity"]:
            return row["identity"] == digest(now)
        return row["data"] == now["data"] and row["teacher_sha256"] == now.get("teacher", "")

    def _once(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self.say(text)


def digest(identity: Mapping[str, str]) -> str:
    """A short hash of an identity; empty where it is that of an earlier version, which noted less."""
    if "val" not in identity:
        return ""
    seen = {key: value for key, value in identity.items() if key not in UNSEEN}
    return hashlib.sha256(json.dumps(seen, sort_keys=True).encode()).hexdigest()[:12]
