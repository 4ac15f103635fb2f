"""Another package adds to a registry by an entry point."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from counterpoise.errors import ConfigError
from counterpoise.system.registry import Registry

HERE = "counterpoise.demos"
"""A package whose modules register nothing here."""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of installed packages: of three distributions one fails to import, one takes another's name."""
    monkeypatch.syspath_prepend(tmp_path)
    for name, code in {
        "reg_good": "import reg_shared\nreg_shared.R.add('one', 1, __name__)\n",
        "reg_bad": "1 / 0\n",
        "reg_taken": "import reg_shared\nreg_shared.R.add('one', 2, __name__)\n",
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(code)
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[counterpoise.tried]\n{name} = {name}\n")
    (tmp_path / "reg_shared.py").write_text(
        f"from counterpoise.system.registry import Registry\nR = Registry('Thing', '{HERE}', 'counterpoise.tried')\n"
    )
    return tmp_path


def test_a_package_adds_by_an_entry_point_and_those_that_fail_are_named(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("reg_good", "reg_shared", "reg_taken"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import reg_shared  # type: ignore[import-not-found]

    with pytest.warns(UserWarning, match="is left out") as warned:
        assert reg_shared.R.entries() == {"one": 1}
    told = {str(warning.message) for warning in warned}
    assert told == {
        "Package reg_bad is left out: its entry point 'reg_bad = reg_bad' of counterpoise.tried fails: "
        "ZeroDivisionError: division by zero",
        "Package reg_taken is left out: its entry point 'reg_taken = reg_taken' of counterpoise.tried fails: "
        "ConfigError: Thing 'one' is given twice, by reg_good and by reg_taken: remove one of them.",
    }
    assert reg_shared.R.get("one") == 1
    with pytest.raises(ConfigError, match=r"Thing 'ome'.*one"):
        reg_shared.R.get("ome")


def test_a_name_given_by_two_packages_is_refused_and_both_are_named() -> None:
    things: Registry[int] = Registry("Thing", HERE, "counterpoise.none")
    things.add("one", 1, "first.package")
    with pytest.raises(ConfigError, match=r"'one' is given twice, by first\.package and by second\.package"):
        things.add("one", 2, "second.package")


def test_what_is_registered_on_trial_is_forgotten_afterwards() -> None:
    things: Registry[int] = Registry("Thing", HERE, "counterpoise.none")
    things.add("one", 1, "first.package")
    with things.trial():
        things.add("two", 2, "second.package")
        assert things.entries() == {"one": 1, "two": 2}
    assert things.entries() == {"one": 1}
