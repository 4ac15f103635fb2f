"""docs/integrations.md: whole scripts of under 60 lines, each run as a program; its patches by tests/integrations."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import counterpoise

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "integrations.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
SCRIPTS = [code for language, code in BLOCKS if language == "python"]
PATCHES = [code for language, code in BLOCKS if language == "diff"]


def test_scripts_have_fewer_than_60_lines_and_patches_change_about_ten() -> None:
    assert {language for language, _ in BLOCKS} == {"bash", "python", "diff"}
    assert all(0 < len(script.splitlines()) < 60 for script in SCRIPTS)
    for patch in PATCHES:
        changed = [line for line in patch.splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")]
        assert 0 < len(changed) <= 12
        for old, new, body in re.findall(r"^@@ -\d+,(\d+) \+\d+,(\d+) @@.*\n((?:[ +-].*\n|\n)+)", patch, re.MULTILINE):
            lines = body.splitlines()
            assert [sum(line[:1] != sign for line in lines) for sign in "+-"] == [int(old), int(new)]


@pytest.mark.slow
def test_every_script_trains_and_leaves_a_student(tmp_path: Path) -> None:
    pytest.importorskip("ultralytics")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "YOLO_CONFIG_DIR": str(tmp_path / "settings")}
    for number, (language, code) in enumerate(block for block in BLOCKS if block[0] != "diff"):
        if language == "bash":
            command = ["bash", "-euo", "pipefail", "-c", code]
        else:
            (tmp_path / f"script{number}.py").write_text(code)
            command = [sys.executable, f"script{number}.py"]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{code}\n{done.stdout}{done.stderr}"
    students = {folder.parent.name for folder in tmp_path.glob("students/*/student.json")}
    assert students == {"own-loop", "timm", "hugging-face", "lightning", "ultralytics"}
    for name in students - {"ultralytics"}:  # which its own script loads, with its code
        assert counterpoise.load_student(tmp_path / "students" / name).num_classes == 10
