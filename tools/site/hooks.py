"""Hooks of MkDocs: pages that are made of the code, and links to files outside the documentation.

https://www.mkdocs.org/user-guide/configuration/#hooks
"""

from __future__ import annotations

import posixpath
import re
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).parent))
import reference

ROOT = Path(__file__).resolve().parents[2]
SHIM = re.compile(r'src="https://unpkg\.com/iframe-worker/shim"')
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)(#[^)]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the reference, and what pages link to outside docs/, so that the site is whole without the repository."""
    for name, text in reference.pages().items():
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    for page in files.documentation_pages():
        for target, _ in LINK.findall(page.content_string):
            path = _outside(page, target)
            if path is not None and path.is_file() and files.get_file_from_path(_place(path)) is None:
                files.append(File.generated(config, _place(path), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links to what lies outside docs/: a file has its copy in the site, a folder is named and not linked."""

    def replaced(found: re.Match[str]) -> str:
        path = _outside(page.file, found[1])
        if path is None:
            return found[0]
        if path.is_dir():
            return f"] (`{path.relative_to(ROOT).as_posix()}`)"
        here = posixpath.dirname(page.file.src_uri)
        return f"]({posixpath.relpath(_place(path), here or '.')}{found[2] or ''})"

    return re.sub(r"\[([^\]]*)\] \(`([^`]*)`\)", r"\1 (`\2`)", LINK.sub(replaced, markdown))


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """The theme has a script of another server for searching from disk; ours is beside the pages."""
    here = posixpath.dirname(page.file.dest_uri)
    own, count = SHIM.subn(f'src="{posixpath.relpath("site/worker.js", here or ".")}"', output)
    if count != 1:
        raise PluginError(f"{page.file.src_uri}: the theme loads its worker otherwise now; see docs/site/worker.js.")
    return own


def _outside(page: File, target: str) -> Path | None:
    """The file or folder that a page links to, where it lies outside docs/."""
    if page.abs_src_path is None or not Path(page.abs_src_path).is_relative_to(ROOT / "docs"):
        return None
    path = (Path(page.abs_src_path).parent / target).resolve()
    return path if path.is_relative_to(ROOT) and not path.is_relative_to(ROOT / "docs") else None


def _place(path: Path) -> str:
    """Where a copy of it lies in the site. The README is the repository's own; it is shown as text."""
    place = path.relative_to(ROOT).as_posix()
    return f"repository/{place}.txt" if place.endswith((".md", ".py", ".sh", ".yaml")) else f"repository/{place}"
