"""Environments of their own: made whole by a real pip, or said to be missing."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path

import pytest

from counterpoise.deploy import environments
from counterpoise.deploy.environments import Environment
from counterpoise.errors import RunError


def wheel(folder: Path) -> Path:
    """A package of one line, as pip takes it."""
    path = folder / "oneliner-1.0-py3-none-any.whl"
    about = "Metadata-Version: 2.1\nName: oneliner\nVersion: 1.0\n"
    kind = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files = {"oneliner.py": "ANSWER = 42\n"}
    files |= {"oneliner-1.0.dist-info/METADATA": about, "oneliner-1.0.dist-info/WHEEL": kind}
    with zipfile.ZipFile(path, "w") as file:
        for name, text in files.items():
            file.writestr(name, text)
        file.writestr("oneliner-1.0.dist-info/RECORD", "".join(f"{name},,\n" for name in files))
    return path


def test_one_is_ready_only_with_the_same_requirements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(environments.VARIABLE, str(tmp_path))
    made = Environment("x", ("a", "b"))
    assert made.folder == tmp_path / "x"
    assert not made.ready
    made.folder.mkdir()
    (made.folder / "counterpoise-ready").write_text("a\nb")
    assert made.ready
    assert not Environment("x", ("a", "c")).ready
    monkeypatch.delenv(environments.VARIABLE)
    assert made.folder == Path.home() / ".cache" / "counterpoise" / "environments" / "x"


@pytest.mark.slow
def test_one_is_made_and_one_that_stopped_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(environments.VARIABLE, str(tmp_path / "environments"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    missing = Environment("x", ("oneliner==2.0",))
    with pytest.raises(RunError, match=r"pip could not install oneliner==2\.0(.|\n)*PIP_EXTRA_INDEX_URL="):
        missing.make()
    assert not missing.ready
    made = Environment("x", (str(wheel(tmp_path)),))
    made.make()
    assert made.ready
    monkeypatch.setenv("PYTHONPATH", str(Path(environments.__file__).parents[2]))
    code = "import importlib.util as u, oneliner; print(oneliner.ANSWER, u.find_spec('counterpoise'))"
    done = subprocess.run([made.python, "-c", code], capture_output=True, text=True, env=environments.outside())
    assert done.stdout.split() == ["42", "None"]
    made.make()  # nothing to do, with no index to ask
