"""The table of docs/segmentation.md, and what README says of it, are those of the CSV."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from statistics import fmean, stdev

from tables_of_docs import page, results, shown

from counterpoise import statistics

ROOT = Path(__file__).resolve().parents[1]
SIDES = ("precision", "recall")


def scores() -> dict[str, list[dict[str, str]]]:
    path = ROOT / "benchmarks" / "results" / "camvid_small_cpu.csv"
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {name: [row for row in rows if row["method"] == name] for name in dict.fromkeys(r["method"] for r in rows)}


def spread(rows: list[dict[str, str]], column: str, digits: int) -> str:
    values = [float(row[column]) for row in rows]
    mean = f"{fmean(values):.{digits}f}"
    return f"{mean} ± {stdev(values):.{digits}f}" if len(values) > 1 else mean


def test_the_table_is_that_of_the_csv() -> None:
    page = (ROOT / "docs" / "segmentation.md").read_text(encoding="utf-8")
    found = re.search(r"^\| network \| val .*\n\|[-|]+\n((?:\|.*\n)+)", page, re.MULTILINE)
    assert found
    shown = [[cell.strip() for cell in line.strip("|").split("|")] for line in found[1].splitlines()]
    expected = [
        [
            name,
            spread(rows, "val_miou", 2),
            spread(rows, "test_miou", 2),
            f"{fmean(float(row['processor_seconds']) for row in rows):.0f}",
        ]
        for name, rows in scores().items()
    ]
    assert shown == expected


def test_the_table_of_rare_classes_is_that_of_the_csv() -> None:
    page = (ROOT / "docs" / "segmentation.md").read_text(encoding="utf-8")
    found = re.search(r"^\| network \| pole: precision .*\n\|[-|]+\n((?:\|.*\n)+)", page, re.MULTILINE)
    assert found
    shown = [[cell.strip() for cell in line.strip("|").split("|")] for line in found[1].splitlines()]
    kinds = [f"test_{name}_{kind}" for name in ("pole", "sign", "pedestrian", "bicyclist") for kind in SIDES]
    assert shown == [[name, *(spread(rows, kind, 1) for kind in kinds)] for name, rows in scores().items()]


def test_readme_tells_the_same() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(r"alone ([\d.± ]+) mIoU, KD ([\d.± ]+), Balance ([\d.]+ ± [\d.]+)", readme)
    assert found
    rows = scores()
    assert list(found.groups()) == [spread(rows[name], "test_miou", 1) for name in ("alone", "kd", "balance")]


def test_what_the_loss_takes_on_a_gpu_is_that_of_its_csv() -> None:
    page = " ".join((ROOT / "docs" / "segmentation.md").read_text(encoding="utf-8").split())
    with (ROOT / "benchmarks" / "results" / "dense_loss_gpu.csv").open(newline="", encoding="utf-8") as file:
        row = next(csv.DictReader(file))
    ours, eager = ((float(row[f"{name}_ms"]), float(row[f"{name}_extra_memory"])) for name in ("ours", "eager"))
    case = row["case"].replace("classes ", "classes from ")
    assert f"{case} take {ours[0]:.2f} ms and {ours[1]:.2f} times the memory" in page
    assert f"plain PyTorch takes {eager[0]:.2f} ms and {eager[1]:.2f} times" in page


def test_what_100_megapixels_take_is_that_of_its_csv() -> None:
    page = (ROOT / "docs" / "large-pictures.md").read_text(encoding="utf-8")
    with (ROOT / "benchmarks" / "results" / "large_scene.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["case"]: row for row in csv.DictReader(file)}
    shown = re.findall(r"^\| (?:the|`\w).* \| (\d+) \| ([\d.]+) \|$", page, re.MULTILINE)
    cases = [
        "decode png",
        *(f"{one} {kind}" for kind in ("png", "jpg") for one in ("predict", "run.py", "evaluate", "page")),
    ]
    found = [(float(rows[case]["peak_megabytes"]), float(rows[case]["seconds"])) for case in cases]
    assert shown == [(f"{peak:.0f}", f"{seconds:.1f}" if seconds < 10 else f"{seconds:.0f}") for peak, seconds in found]
    assert {row["same_percent"] for case, row in rows.items() if not case.startswith("page")} == {"100"}
    assert min(float(rows[f"page {kind}"]["same_percent"]) for kind in ("png", "jpg")) > 99.5


def test_the_table_of_few_masks_and_what_is_said_of_it_are_those_of_the_csv() -> None:
    rows = results("few_masks.csv")
    text = page("segmentation.md")
    table = shown(text, "| network | mIoU | Dice of vessels ")
    assert {row[0] for row in table} == {row["network"] for row in rows}
    top: dict[str, dict[statistics.Unit, float]] = {}
    for network, *scores, seconds in table:
        own = [row for row in rows if row["network"] == network]
        assert scores == [spread(own, column, 2) for column in ("miou", "dice", "precision", "recall")]
        assert seconds == f"{fmean(float(row['processor_seconds']) for row in own):.0f}"
        top[network] = {(int(row["fold"]), int(row["seed"])): float(row["miou"]) for row in own}
        assert len(own) == (3 if network == "teacher" else 9)
    same_steps = statistics.paired(top["balance"], top["alone"], folds=3)
    assert f"Balance is {same_steps.mean:.2f} points" in text
    assert f"({same_steps.low:.2f} to {same_steps.high:.2f}; KD" in text
    same_seconds = statistics.paired(top["balance"], top["alone, as long"], folds=3)
    assert f"{-same_seconds.mean:.2f} behind ({same_seconds.low:.2f} to {same_seconds.high:.2f})" in " ".join(
        text.split()
    )


def test_the_gain_on_scenes_is_that_of_its_runs() -> None:
    rows = results("scene_gain.csv")
    text = page("segmentation.md")
    top: dict[str, dict[statistics.Unit, float]] = {}
    for way, steps, *told in shown(text, "| way | steps | test mIoU "):
        own = [row for row in rows if row["way"] == way]
        assert {f"{int(row['steps']):,}" for row in own} == {steps}
        assert told == [spread(own, column, 2) for column in ("miou", "rare_precision", "rare_recall", "val_miou")]
        assert len(own) == (1 if way in ("cwd", "dist") else 3)  # these two have a table of their own
        top[way] = {int(row["seed"]): float(row["miou"]) for row in own}
    assert top.keys() == {row["way"] for row in rows}
    pairs = [(way, alone) for alone in ("alone", "alone, as long") for way in ("kd", "balance")]
    found = differences(text, "| minus | difference ", pairs, top)
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    kd, balance = found[:2]
    assert f"KD is {kd.mean:.1f} points ahead of the same student alone ({kd.low:.1f} to {kd.high:.1f}" in readme
    assert f"and Balance {balance.mean:.1f}; nearly as much" in readme


def differences(
    text: str, begins: str, pairs: list[tuple[str, str]], top: dict[str, dict[statistics.Unit, float]]
) -> list[statistics.Difference]:
    """Those that were named, which the page must show, corrected by Holm."""
    named = shown(text, begins)
    assert [row[0] for row in named] == [" - ".join(pair) for pair in pairs]
    found = [statistics.paired(top[way], top[other]) for way, other in pairs]
    for (_, *told), one, p in zip(named, found, statistics.holm([one.p for one in found]), strict=True):
        assert told == [
            f"{one.mean:+.2f}",
            f"{one.low:+.2f} to {one.high:+.2f}",
            "<0.001" if p < 0.001 else f"{p:.3f}",
        ]
    return found


def test_cwd_and_dist_beside_kd_are_those_of_their_runs() -> None:
    rows = results("scene_rivals.csv")
    assert {row["precision"] for row in rows} == {"fp32"}
    text = page("segmentation.md")
    top: dict[str, dict[str, dict[statistics.Unit, float]]] = {}
    for way, steps, *told in shown(text, "| way, float32 | steps "):
        own = [row for row in rows if row["way"] == way]
        assert {f"{int(row['steps']):,}" for row in own} == {steps}
        assert told == [spread(own, column, 2) for column in ("miou", "rare_precision", "rare_recall", "val_miou")]
        for column in ("miou", "rare_precision", "rare_recall"):
            top.setdefault(column, {})[way] = {int(row["seed"]): float(row[column]) for row in own}
    assert top["miou"].keys() == {row["way"] for row in rows}
    assert all(len(seeds) == 3 for seeds in top["miou"].values())
    _, dist = differences(text, "| minus, float32 | difference ", [("cwd", "kd"), ("dist", "kd")], top["miou"])
    said = " ".join(text.split())
    assert f"is {dist.mean:.1f} points ahead of KD" in said
    for way in ("cwd", "dist"):
        for column, score in (("rare_precision", "precision"), ("rare_recall", "recall")):
            one = statistics.paired(top[column][way], top[column]["kd"])
            spoken = f"{one.mean:+.2f}", f"{one.low:+.2f} to {one.high:+.2f}"
            assert f"{spoken[0]} {score} ({spoken[1]}" in said or f"{score} {spoken[0]}, {spoken[1]}" in said
    assert f"by {dist.mean:.1f} points of mIoU ({dist.low:.1f} to {dist.high:.1f}" in page("which-objective.md")
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert f"is {dist.mean:.1f} ahead of KD ({dist.low:.1f} to {dist.high:.1f})" in readme


def test_the_search_for_a_recipe_is_that_of_its_csv() -> None:
    rows = results("scene_search.csv")
    table = shown(page("segmentation.md"), "| network | epochs | val mIoU ")
    assert table == [
        [row["network"], row["epochs"], f"{float(row['val']):.2f}"] for row in rows if row["score"] == "miou"
    ]
