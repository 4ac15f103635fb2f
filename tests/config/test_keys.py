"""What keys and modules are to a run."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

import counterpoise
from counterpoise import config
from counterpoise.config import keys
from counterpoise.engine.run_folder import RunFolder
from counterpoise.errors import RunError

RUN = config.resolve(
    {"student": {"model": "digits/cnn_4_8"}, "data": {"path": "photos"}, "teacher": {"checkpoint": "teacher"}}
)


def all_keys(section: type[config.Section], prefix: str = "") -> Iterator[str]:
    """All keys of a section, those of sections below it, and sections that may be missing."""
    for name, field in section.model_fields.items():
        kinds = [field.annotation, *typing.get_args(field.annotation)]
        below = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, config.Section)]
        if not below or type(None) in kinds:
            yield f"{prefix}{name}"
        for kind in below:
            yield from all_keys(kind, f"{prefix}{name}.")


def test_every_row_is_of_a_key_of_the_run_file() -> None:
    assert not keys.KEYS.keys() - set(all_keys(config.Run))


def test_every_module_makes_numbers_or_tells_of_them() -> None:
    root = Path(counterpoise.__file__).parent
    entries = [path.name for path in root.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()]
    for name in sorted(entries):
        found = [pattern for pattern in (*keys.MAKING, *keys.TELLING) if fnmatch(name, pattern)]
        assert len(found) == 1, (
            f"{name}: name it in config/keys.py, under MAKING where trained weights depend on it, else under TELLING; "
            f"found {found}."
        )


@pytest.mark.parametrize(
    ("key", "value", "resumes", "same"),
    [
        ("data.memory_limit_gb", 0.0, True, True),
        ("data.workers", 7, True, True),
        ("data.path", "elsewhere", True, True),
        ("train.device", "cpu", True, True),
        ("student.checkpoint", "start.pt", True, False),
        ("teacher.store", "logits", True, False),
        ("teacher.shard", True, True, True),
        ("train.epochs", 7, False, False),
        ("data.views.crop", "none", False, False),
        ("data.views.decode", "scaled", False, False),
        ("data.options", {"sub": 1}, False, False),
    ],
)
def test_resume_and_compare_agree_on_what_may_move(
    tmp_path: Path, key: str, value: object, resumes: bool, same: bool
) -> None:
    section, _, name = key.partition(".")
    over: dict[str, object] = {name: value}
    if "." in name:
        outer, _, inner = name.partition(".")
        over = {outer: {inner: value}}
    other = config.resolve(config.merge(RUN.model_dump(mode="json"), {section: over}))
    assert (not keys.differences(RUN, other)) == same
    folder = RunFolder(tmp_path)
    folder.start(RUN)
    if resumes:
        folder.check_same(other)
    else:
        with pytest.raises(RunError, match="started with other options"):
            folder.check_same(other)
