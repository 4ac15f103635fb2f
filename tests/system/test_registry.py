"""Another package adds to a registry by an entry point."""

from __future__ import annotations

from pathlib import Path

import pytest

from counterpoise.errors import ConfigError
from counterpoise.system.registry import Registry

HERE = "counterpoise.demos"
"""A package whose modules register nothing here."""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of installed packages: two distributions, one of which fails to import."""
    monkeypatch.syspath_prepend(tmp_path)
    for name, code in {
        "reg_good": "import reg_shared\nreg_shared.R.add('one', 1, __name__)\n",
        "reg_bad": "1 / 0\n",
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


def test_a_package_adds_by_an_entry_point_and_one_that_fails_is_named(installed: Path) -> None:
    import sys

    sys.modules.pop("reg_good", None)
    sys.modules.pop("reg_shared", None)
    import reg_shared  # type: ignore[import-not-found]

    with pytest.warns(UserWarning, match=r"reg_bad = reg_bad.*counterpoise\.tried: ZeroDivisionError"):
        assert reg_shared.R.entries() == {"one": 1}
    assert reg_shared.R.get("one") == 1
    with pytest.raises(ConfigError, match=r"Thing 'ome'.*one"):
        reg_shared.R.get("ome")


def test_a_name_given_by_two_packages_is_refused_and_both_are_named() -> None:
    things: Registry[int] = Registry("Thing", HERE, "counterpoise.none")
    things.add("one", 1, "first.package")
    with pytest.raises(ConfigError, match=r"'one' is given twice, by first\.package and by second\.package"):
        things.add("one", 2, "second.package")
