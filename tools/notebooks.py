"""Run the notebooks from top to bottom, and keep what they answer: python tools/notebooks.py [NOTEBOOK...]

Each runs in an empty folder, on one thread. What differs between machines and runs is left out of the file, so that
a second run changes little: times, names of environments, the version of Python.
"""

from __future__ import annotations

import os
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "notebooks"
COLAB = "https://colab.research.google.com/"
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
SETTINGS = {
    "OMP_NUM_THREADS": "1",  # as fast for pictures this small, and the same numbers on any count of cores
    "PYTHONWARNINGS": "ignore:IProgress not found",  # of bars that no notebook shows
}
MOST_SECONDS = 600
"""Of a cell, on a machine that is busy."""


def badge(name: str, urls: dict[str, str]) -> str:
    """The line that opens a notebook in Colab.

    Args:
        name: of the file.
        urls: those of pyproject.toml. Without a `Repository` at GitHub Colab has no address for the file, and is shown
            the file itself.
    """
    picture = f"[![Open in Colab]({COLAB}assets/colab-badge.svg)]"
    _, host, repository = urls.get("Repository", "").partition("https://github.com/")
    if not host:
        return f"{picture}({COLAB}) and there: File, Upload notebook, this file."
    return f"{picture}({COLAB}github/{repository.strip('/')}/blob/main/notebooks/{name})"


def urls() -> dict[str, str]:
    """Addresses of the project."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return dict(project["urls"])


def run(path: Path, folder: Path) -> Any:
    """The notebook with what it answers in `folder`. Raises CellExecutionError where a cell fails."""
    book = nbformat.read(path, as_version=4)
    client = NotebookClient(
        book, timeout=MOST_SECONDS, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    client.execute(env={**os.environ, **SETTINGS})
    return clean(book)


def clean(book: Any) -> Any:
    """The same without what is of this machine; pieces of one stream joined, a picture once and not as JPEG, too."""
    book.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": {"name": "python"}})
    for cell in book.cells:
        cell.metadata = {key: value for key, value in cell.metadata.items() if key == "tags"}
        if cell.cell_type == "code":
            cell.outputs = _joined(cell.outputs)
            for output in cell.outputs:
                output.get("data", {}).pop("image/jpeg", None)
    return book


def _joined(outputs: list[Any]) -> list[Any]:
    joined: list[Any] = []
    for output in outputs:
        if joined and output.output_type == joined[-1].output_type == "stream" and output.name == joined[-1].name:
            joined[-1].text += output.text
        else:
            joined.append(output)
    return joined


def write(path: Path) -> None:
    """Run a notebook, and write it anew: its badge, its answers."""
    with tempfile.TemporaryDirectory(prefix="notebook-") as folder:
        book = run(path, Path(folder))
    lines = book.cells[0].source.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("[![Open in Colab]"))
    lines[at] = badge(path.name, urls())
    book.cells[0].source = "\n".join(lines)
    nbformat.validate(book)
    nbformat.write(book, path)


def main() -> None:
    """All of them, or those that are named."""
    for path in [Path(name) for name in sys.argv[1:]] or sorted(FOLDER.glob("*.ipynb")):
        print(path, flush=True)
        write(path)


if __name__ == "__main__":
    main()
