"""Environments beside this one, for packages that pin what others here need in other versions."""

from __future__ import annotations

import os
import shutil
import subprocess
import venv
from dataclasses import dataclass
from pathlib import Path

from counterpoise.errors import RunError
from counterpoise.system.files import held, write_text

VARIABLE = "COUNTERPOISE_ENVIRONMENTS"
_READY = "counterpoise-ready"  # written last: without it a stopped installation is begun anew


@dataclass(frozen=True)
class Environment:
    """A Python environment of its own, made when it is asked for.

    Attributes:
        name: of its folder, within $COUNTERPOISE_ENVIRONMENTS or ~/.cache/counterpoise/environments.
        requirements: what pip installs there.
    """

    name: str
    requirements: tuple[str, ...]

    @property
    def folder(self) -> Path:
        """Where it is, or would be."""
        given = os.environ.get(VARIABLE)
        return (Path(given) if given else Path.home() / ".cache" / "counterpoise" / "environments") / self.name

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    @property
    def ready(self) -> bool:
        """Whether it has been made, with these requirements."""
        try:
            return (self.folder / _READY).read_text(encoding="utf-8").split("\n") == list(self.requirements)
        except OSError:
            return False

    def make(self) -> None:
        """Make it where it is not there; what is half made or of other requirements is made anew.

        Raises RunError with pip's last words where that fails.
        """
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with held(self.folder.with_name(f".{self.name}.lock")):
            if self.ready:
                return
            shutil.rmtree(self.folder, ignore_errors=True)
            venv.EnvBuilder(with_pip=True, symlinks=os.name != "nt").create(self.folder)
            for wanted in (["--upgrade", "pip"], list(self.requirements)):  # an old pip resolves for minutes
                command = [str(self.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted]
                done = subprocess.run(command, capture_output=True, text=True, check=False, env=outside())
                if done.returncode:
                    words = "\n".join(done.stderr.strip().splitlines()[-5:])
                    raise RunError(
                        f"{self.folder} could not be made: pip could not install {', '.join(wanted)}.\n{words}\n"
                        "Where torch is not found: builds for the CPU alone are found with "
                        "PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu."
                    )
            if hasattr(os, "sync"):  # all that pip wrote, before what says that it is there
                os.sync()
            write_text(self.folder / _READY, "\n".join(self.requirements))


def outside() -> dict[str, str]:
    """This process's environment without what would lead another interpreter to the packages of this one."""
    hidden = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__"}
    return {name: value for name, value in os.environ.items() if name not in hidden}
