"""What the benchmark tools of ExecuTorch and LiteRT print, as their documentation and users show it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from counterpoise.deploy.measuring import phones
from counterpoise.deploy.measuring.subjects import Subject
from counterpoise.errors import ConfigError, RunError

# Of an AM62x board, by Texas Instruments' documentation of its software.
LITERT = """\
INFO: STARTING!
INFO: Num threads: [4]
INFO: Graph: [/usr/share/models/ssd_mobilenet_v2_coco.tflite]
INFO: Loaded model /usr/share/models/ssd_mobilenet_v2_coco.tflite
INFO: The input model file size (MB): 67.3128
INFO: count=1 curr=905463 p5=905463 median=905463 p95=905463

INFO: count=50 first=900416 curr=898333 min=898007 max=906121 avg=899641 std=1549 p5=898333 median=899281 p95=904305

INFO: Inference timings in us: Init: 614333, First inference: 905463, Warmup (avg): 905463, Inference (avg): 899641
INFO: Memory footprint delta from the start of the tool (MB): init=146.363 overall=150.141
"""
# Older releases say no median, and round large means.
OLDER_LITERT = """\
Num threads: [4]
Loaded model ./mobilenet_v1_1.0_224.tflite
count=1 curr=3512391

count=50 first=2990275 curr=2913402 min=2727568 max=3189954 avg=2.95034e+06 std=109798

Inference timings in us: Init: 17187, First inference: 3512391, Warmup (avg): 3.51239e+06, Inference (avg): 2.95034e+06
Memory footprint delta from the start of the tool (MB): init=4.21094 overall=46.0859
"""
OLDER_EXECUTORCH = """\
I 00:00:00.015988 executorch:executor_runner.cpp:157] Resetting threadpool with num threads = 1
I 00:00:00.048120 executorch:executor_runner.cpp:213] Model file model/linear.pte is loaded.
I 00:00:00.437405 executorch:executor_runner.cpp:219] Inputs prepared.
I 00:00:00.927346 executorch:executor_runner.cpp:298] Model executed successfully 20 time(s) in 489.500000 ms.
I 00:00:00.927409 executorch:executor_runner.cpp:302] 1 outputs:
"""


def executorch(milliseconds: list[float], prefix: str = "I/ExecuTorch( 4711): ") -> str:
    """The log of executor_runner 1.x, through `adb logcat -v brief`."""
    count = len(milliseconds)
    lines = [f"Iteration {i + 1} of {count}: {value:f} ms" for i, value in enumerate(milliseconds)]
    lines.append(f"Model executed successfully {count} time(s) in {sum(milliseconds):f} ms.")
    return "".join(f"{prefix}{line}\n" for line in lines)


def read(tmp_path: Path, text: str) -> list[dict[str, Any]]:
    file = tmp_path / "results.txt"
    file.write_text(text)
    found: list[dict[str, Any]] = phones.read_output(file)["measured"]
    return found


def test_benchmark_model_is_read(tmp_path: Path) -> None:
    (entry,) = read(tmp_path, LITERT)
    (case,) = entry["cases"]
    assert (entry["name"], entry["runtime"]) == ("ssd_mobilenet_v2_coco.tflite", "litert")
    assert (case["threads"], case["calls"], case["median_ms"], case["p95_ms"]) == (4, 50, 899.281, 904.305)
    assert case["peak_mb"] == pytest.approx(150.141 * 2**20 / 1e6)
    assert case["low_ms"] is case["high_ms"] is None  # of one turn


def test_older_benchmark_model_is_read_by_its_mean(tmp_path: Path) -> None:
    (entry,) = read(tmp_path, OLDER_LITERT)
    assert entry["cases"][0]["median_ms"] == 2950.34


def test_executor_runner_is_read_by_iteration_without_those_that_warm_up(tmp_path: Path) -> None:
    text = "I 00:00:00.0 executorch:executor_runner.cpp:1] Model file ./a.pte is loaded.\n"
    (entry,) = read(tmp_path, text + executorch([90.0] * 5 + [3.0, 2.0, 4.0], "I 00:00:01.0 executorch:x.cpp:2] "))
    assert (entry["name"], entry["runtime"]) == ("a.pte", "executorch")
    assert entry["cases"][0]["median_ms"] == 3.0


def test_older_executor_runner_is_read_by_its_mean(tmp_path: Path) -> None:
    (entry,) = read(tmp_path, OLDER_EXECUTORCH)
    assert entry["name"] == "linear.pte"
    assert (entry["cases"][0]["threads"], entry["cases"][0]["median_ms"]) == (1, 24.475)


def test_outputs_of_several_calls_by_hand_stay_apart(tmp_path: Path) -> None:
    found = read(tmp_path, LITERT + OLDER_LITERT + LITERT)
    assert {entry["name"]: len(entry["cases"][0]["round_ms"]) for entry in found} == {
        "ssd_mobilenet_v2_coco.tflite": 2,
        "mobilenet_v1_1.0_224.tflite": 1,
    }


@pytest.mark.parametrize("text", ["", "count me in\n", "ERROR: Failed to load ./a.tflite\n"])
def test_anything_else_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="holds no output of ExecuTorch's executor_runner"):
        read(tmp_path, text)


def test_a_turn_that_failed_is_not_left_out(tmp_path: Path) -> None:
    heads = [f"== {name}.pte threads=1\n" for name in "ab"]
    with pytest.raises(ConfigError, match=r"turns without a result, of b\.pte"):
        read(tmp_path, heads[0] + executorch([1.0]) + heads[1] + "Aborted\n" + heads[0] + executorch([1.0]))


@pytest.fixture
def exports(tmp_path: Path) -> list[Subject]:
    found = []
    for name, runtime, ending in (("runs/a b", "executorch", "pte"), ("c", "litert", "tflite")):
        file = tmp_path / f"model.{ending}"
        file.write_bytes(name.encode() * 100)
        found.append(Subject(name, runtime, "int8", file, "", (8, 8), (file,), 1, parameters=7))
    return found


def test_a_bundle_measures_on_what_adb_reaches(tmp_path: Path, exports: list[Subject]) -> None:
    """adb is stood in for by one that works in a folder here, and the tools by ones that print what theirs do."""
    out, phone, bin_ = (tmp_path / name for name in ("bundle", "phone", "bin"))
    phones.write_bundle(exports, out, threads=(1, 2), rounds=6)
    assert sorted(file.name for file in out.iterdir()) == ["bundle.json", "c.tflite", "measure.sh", "runs-a-b.pte"]
    (phone / "counterpoise").mkdir(parents=True)
    bin_.mkdir()
    script = (out / "measure.sh").read_text().replace("/data/local/tmp", str(phone))
    (out / "measure.sh").write_text(script)
    adb = f"""#!/bin/sh
case $1 in
  push) shift; for last; do :; done; for file; do [ "$file" = "$last" ] || cp "$file" "$last"; done;;
  logcat) [ "$2" = -c ] && rm -f {phone}/log || cat {phone}/log;;
  shell) shift; case "$*" in *product.model) echo Pixel;; *release) echo 16;; *) sh -c "$*";; esac;;
esac
"""
    (bin_ / "adb").write_text(adb)
    (bin_ / "adb").chmod(0o755)
    log = executorch([50.0] * 5 + [2.5] * 50)
    (out / "executor_runner").write_text(f'#!/bin/sh\n[ -f "${{1#*=}}" ] && cat > {phone}/log <<END\n{log}END\n')
    (out / "benchmark_model").write_text(f'#!/bin/sh\n[ -f "${{1#*=}}" ] && cat <<END\n{LITERT}END\n')
    environment = {**os.environ, "PATH": f"{bin_}:{os.environ['PATH']}"}
    done = subprocess.run(["sh", str(out / "measure.sh")], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = phones.read_output(out / "results.txt")
    assert result["machine"]["name"] == "Pixel, Android 16"
    known = json.loads((out / "bundle.json").read_text())["files"]
    assert {entry["file"]: entry["name"] for entry in result["measured"]} == {
        "runs-a-b.pte": "runs/a b",
        "c.tflite": "c",
    }
    for entry in result["measured"]:
        assert (entry["bytes"], entry["sha256"]) == (known[entry["file"]]["bytes"], known[entry["file"]]["sha256"])
        assert [(case["threads"], len(case["round_ms"])) for case in entry["cases"]] == [(1, 6), (2, 6)]
        assert entry["cases"][0]["high_ms"] == entry["cases"][0]["median_ms"]
    assert result["measured"][0]["cases"][0]["median_ms"] == 2.5
    heads = [line for line in (out / "results.txt").read_text().splitlines() if ".pte t" in line or ".tflite t" in line]
    assert heads[:4] == heads[4:8]  # in turn


def test_a_bundle_without_its_tools_says_which(tmp_path: Path, exports: list[Subject]) -> None:
    phones.write_bundle(exports, tmp_path / "bundle", threads=(1,), rounds=6)
    done = subprocess.run(["sh", str(tmp_path / "bundle/measure.sh")], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "benchmark_model is missing beside measure.sh" in done.stderr


def test_a_bundle_is_not_written_over_something(tmp_path: Path, exports: list[Subject]) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    with pytest.raises(RunError, match="mine is not empty"):
        phones.write_bundle(exports, tmp_path / "mine", threads=(1,), rounds=6)


def test_only_exports_for_phones_make_a_bundle(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path, exports: list[Subject]
) -> None:
    desktop = Subject("mine.onnx", "onnx", "float32", exports[0].path, "", (8, 8), exports[0].files)
    with pytest.raises(ConfigError, match=r"mine.onnx \(onnx\) is for no phone's benchmark tool.*--to executorch"):
        phones.write_bundle([desktop], tmp_path / "bundle", threads=(1,), rounds=6)
    several = Subject("mine", "executorch", "float32", exports[0].path, "", (8, 8), exports[0].files)
    with pytest.raises(ConfigError, match=r"takes any number of pictures.*--batch 1"):
        phones.write_bundle([several], tmp_path / "bundle", threads=(1,), rounds=6)
    (tmp_path / "tool.txt").write_text(LITERT)
    code, out, _ = run("measure", "--from", tmp_path / "tool.txt")
    assert code == 0
    assert "Fewer than 6 rounds have no interval" in out
    assert run("measure", "x.onnx", "--from", tmp_path / "tool.txt")[0] == 2
