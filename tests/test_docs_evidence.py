"""The tables of docs/evidence.md are those of their CSVs."""

from __future__ import annotations

import csv
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from counterpoise import statistics
from counterpoise.studies import results

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = (ROOT / "docs" / "evidence.md").read_text(encoding="utf-8")
TABLES = dict(re.findall(r"\[evidence_(\S+)_results\.csv\][^|]*?\n\n(\|(?:.*\n)+?)\n", PAGE))


def lines(name: str) -> list[dict[str, str]]:
    with (RESULTS / f"evidence_{name}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in table.splitlines()[2:]]


def test_every_committed_comparison_has_its_table() -> None:
    committed = RESULTS.glob("evidence_*_results.csv")
    assert set(TABLES) == {path.name.removeprefix("evidence_").removesuffix("_results.csv") for path in committed}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_that_of_its_runs(name: str) -> None:
    rows = lines(f"{name}_results")
    cells_of = dict.fromkeys((row["pair"], row["method"]) for row in rows)
    several = len({pair for pair, _ in cells_of}) > 1
    by_label = {f"{pair}: {method}" if several else method: (pair, method) for pair, method in cells_of}
    differences = {(row["pair"], row["method"]): row for row in lines(f"{name}_differences")}
    shown = cells(TABLES[name])
    assert [row[0] for row in shown if row[0] not in by_label] == []
    assert len(shown) == len(by_label)
    for label, score, seeds, difference, interval, p, verdict in shown:
        pair, method = by_label[label]
        last = results.by_seed(rows, pair, method)
        mean, std = results.spread(last.values())
        assert (score, seeds) == (f"{mean:.2f} ± {std:.2f}", str(len(last)))
        if (pair, method) not in differences:
            assert (difference, interval, p, verdict) == ("", "", "", "")
            continue
        row = differences[pair, method]
        found = statistics.paired(last, results.by_seed(rows, pair, row["baseline"]))
        assert difference == f"{found.mean:+.2f}"
        assert interval == f"{found.low:+.2f} to {found.high:+.2f}"
        corrected = float(row["p_corrected"])
        assert (p, verdict) == ("<0.001" if corrected < 0.001 else f"{corrected:.3f}", row["verdict"])


MAP = ("forward", "reverse", "both", "jsd", "variance")


def below(heading: str) -> list[list[list[str]]]:
    """The tables of a section."""
    section = PAGE.partition(f"### {heading}\n")[2].partition("\n### ")[0]
    return [cells(table) for table in re.findall(r"((?:^\|.*\n)+)", section, re.MULTILINE)]


def map_rows(name: str) -> list[dict[str, str]]:
    with (RESULTS / f"temperature_map_{name}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_map_is_that_of_its_runs() -> None:
    means, named, beside = below("The temperature map")
    runs = map_rows("runs")
    assert len(runs) == 75
    top1 = {
        (row["temperature"], row["divergence"]): {
            int(one["seed"]): float(one["top1"])
            for one in runs
            if (one["temperature"], one["divergence"]) == (row["temperature"], row["divergence"])
        }
        for row in runs
    }
    for at, *shown in means:
        for name, told in zip(MAP, shown, strict=True):
            mean, std = results.spread(top1[f"{float(at):.1f}", name].values())
            assert told == f"{mean:.2f} ± {std:.2f}"
    holm = statistics.holm(
        [
            statistics.paired(top1[f"{float(row[0]):.1f}", "reverse"], top1[f"{float(row[0]):.1f}", "forward"]).p
            for row in named
        ]
    )
    for (at, *shown), corrected in zip(named, holm, strict=True):
        for name, cells_of, p in (("reverse", shown[:3], corrected), ("both", shown[3:], None)):
            found = statistics.paired(top1[f"{float(at):.1f}", name], top1[f"{float(at):.1f}", "forward"])
            p = found.p if p is None else p
            assert cells_of == [
                f"{found.mean:+.2f}",
                f"{found.low:+.2f} to {found.high:+.2f}",
                "<0.001" if p < 0.001 else f"{p:.3f}",
            ]
    table = {(f"{float(row['temperature']):g}", row["divergence"]): row for row in map_rows("table")}
    assert len(beside) == len(table) == 25
    for what, *shown in beside:
        row = table[tuple(what.split(" "))]  # type: ignore[index]
        places = {"agreement": 2, "forward_kl": 3, "reverse_kl": 3, "calibration_error": 3}
        places |= {"calibration_error_fitted": 3, "top1_at_80": 2, "auroc_far": 2}
        assert shown == [f"{float(row[name]):.{count}f}" for name, count in places.items()]


def test_the_map_is_drawn_from_its_table(tmp_path: Path) -> None:
    subprocess.run([sys.executable, ROOT / "docs" / "plot_map.py", tmp_path], check=True)
    drawn = (tmp_path / "temperature-map.svg").read_text(encoding="utf-8")
    assert drawn == (ROOT / "docs" / "images" / "temperature-map.svg").read_text(encoding="utf-8")


def test_the_table_of_defaults_is_that_of_its_runs() -> None:
    with (RESULTS / "defaults.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))

    def told(way: str, name: str, number: str = "2") -> str:
        own = [row for row in rows if (row["round"], row["set"], row["way"]) == (number, name, way)]
        if len(own) < 3:
            return " ".join(f"{row['score']} (one run)" for row in own)
        stopped = sum(row["stopped"] == "1" for row in own)
        mean, std = results.spread([float(row["score"]) for row in own])
        return f"{stopped} of {len(own)} stopped" if stopped else f"{mean:.2f} ± {std:.2f}"

    (table,) = below("What distill does by itself")
    assert [row[0] for row in table] == list(dict.fromkeys(row["way"] for row in rows))
    sets = ("photos", "signs", "cifar-100")
    assert all(shown == [told(way, name) for name in sets] for way, *shown in table)
    first = " ".join(PAGE.split())
    assert f"({told('today, clipped', 'signs', '1')} instead of {told('today', 'signs', '1')})" in first


def test_the_table_of_advice_is_that_of_its_runs() -> None:
    with (RESULTS / "advised.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    (table,) = below("Does advice help?")
    scores: dict[tuple[str, str], dict[statistics.Unit, float]] = {}
    for row in rows:
        scores.setdefault((row["set"], row["way"]), {})[int(row["seed"])] = float(row["score"])
    assert {len(each) for each in scores.values()} == {5}
    assert [line[0] for line in table] == [name for name, way in scores if way == "default"]
    found = [statistics.paired(scores[line[0], "advised"], scores[line[0], "default"]) for line in table]
    for line, gain, p in zip(table, found, statistics.holm([gain.p for gain in found]), strict=True):
        spreads = [results.spread(scores[line[0], way].values()) for way in ("default", "advised")]
        assert {line[2]} == {row["best"] for row in rows if row["set"] == line[0]}
        assert line[3:] == [
            *(f"{mean:.2f} ± {std:.2f}" for mean, std in spreads),
            f"{gain.mean:+.2f}",
            f"{gain.low:+.2f} to {gain.high:+.2f}",
            "<0.001" if p < 0.001 else f"{p:.3f}",
        ]
    signs, scenes = found
    assert f"On scenes advice is worth {scenes.mean:.1f} points, for each of five seeds" in PAGE
    assert (
        f"On signs it is {signs.mean:.1f} points ahead in the mean, for four of five seeds, and that is not shown"
        in PAGE
    )
    ahead = [
        sum(scores[name, "advised"][s] > scores[name, "default"][s] for s in scores[name, "default"])
        for name in ("signs", "scenes")
    ]
    assert ahead == [4, 5]


def test_the_tables_of_bad_labels_are_those_of_their_runs() -> None:
    with (RESULTS / "hard_labels_runs.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))

    def found(kind: str, way: str, score: str) -> dict[str, float]:
        return {row["seed"]: float(row[score]) for row in rows if (row["kind"], row["way"]) == (kind, way)}

    *means, named = below("A long tail, and wrong labels")
    for kind, scores, table in zip(
        ("tail", "wrong"), (("top1", "head", "middle", "tail"), ("top1",)), means, strict=True
    ):
        assert {row[0] for row in table} == {row["way"] for row in rows}
        for way, *shown in table:
            for score, cell in zip(scores, shown, strict=True):
                values = list(found(kind, way, score).values())
                assert len(values) == (1 if way == "teacher" else 3)
                mean, std = results.spread(values)
                assert cell == f"{mean:.2f}" + ("" if way == "teacher" else f" ± {std:.2f}")
    told = {"tail": "tail", "all": "top1"}
    sides = [
        statistics.paired(*(found(kind, f"{side} at {at}", told[by]) for side in ("reverse", "forward")))
        for kind, at, by, *_ in named
    ]
    for (*_, mean, interval, p, corrected), own, holm in zip(
        named, sides, statistics.holm([side.p for side in sides]), strict=True
    ):
        assert (mean, interval) == (f"{own.mean:+.2f}", f"{own.low:+.2f} to {own.high:+.2f}")
        assert (p, corrected) == (f"{own.p:.3f}", f"{holm:.3f}")
    rld = [
        statistics.paired(found("tail", "rld", by), found("tail", "forward at 4", by)).mean for by in ("top1", "tail")
    ]
    assert (
        f"It is {rld[0]:.1f} points ahead of forward KL at its temperature in all classes and {rld[1]:.1f} in the tail"
        in PAGE
    )
    gain = statistics.paired(found("wrong", "forward at 1", "top1"), found("wrong", "alone", "top1"))
    assert f"{gain.mean:.1f} points to its student ({gain.low:.1f} to {gain.high:.1f}" in PAGE


def test_the_tables_of_far_pictures_are_those_of_their_runs() -> None:
    with (RESULTS / "far_pictures_runs.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))

    def found(kind: str, at: str, divergence: str, score: str) -> dict[str, float]:
        asked = (kind, float("1" if at == "any" else at), divergence)
        own = [row for row in rows if (row["pictures"], float(row["temperature"]), row["divergence"]) == asked]
        return {row["seed"]: float(row[score]) for row in own}

    means, named = below("Pictures of no class")
    assert len(means) == 18
    for kind, at, divergence, first, *others in means:
        values = list(found(kind, at, divergence, "top1").values())
        mean, std = results.spread(values)
        assert (len(values), first) == (3, f"{mean:.2f} ± {std:.2f}")
        places = {"agreement": 2, "forward_kl": 3, "reverse_kl": 3, "calibration_error": 3}
        assert others == [
            f"{results.spread(list(found(kind, at, divergence, score).values()))[0]:.{count}f}"
            for score, count in places.items()
        ]
    assert len(named) == 4
    sides = [
        statistics.paired(*(found(kind, at, each, "top1") for each in ("reverse", "forward"))) for kind, at, *_ in named
    ]
    for (*_, mean, interval, p, corrected), own, holm in zip(
        named, sides, statistics.holm([side.p for side in sides]), strict=True
    ):
        assert (mean, interval) == (f"{own.mean:+.2f}", f"{own.low:+.2f} to {own.high:+.2f}")
        assert (p, corrected) == (f"{own.p:.3f}", f"{holm:.3f}")


def test_the_usual_table_stands_beside_that_at_equal_weight() -> None:
    rows = lines("protocol_results")

    def told(method: str, other: str) -> str:
        found = statistics.paired(*(results.by_seed(rows, "all", name) for name in (method, other)))
        return f"{found.mean:+.2f} ({found.low:+.2f} to {found.high:+.2f}), p {found.p:.3f}"

    _, table = below("What the usual table shows")
    assert table == [
        ["weight 9", told("balance-9", "kd"), told("balance-9", "kd-9")],
        ["weight 0.9", "", told("balance", "kd")],
    ]


def test_the_picture_shows_what_the_runs_say() -> None:
    plot = runpy.run_path(str(ROOT / "docs" / "plot_evidence.py"))
    picture = (ROOT / "docs" / "images" / "evidence.svg").read_text(encoding="utf-8")
    shown = [one for group in plot["GROUPS"].values() for one in group]
    assert re.findall(r">([+-]\d+\.\d\d)</text>", picture) == [f"{one.difference().mean:+.2f}" for one in shown]
    assert [one.label for one in shown if f">{one.label}</text>" not in picture] == []


@pytest.mark.parametrize("name", ["resnet8", "resnet20"])
def test_what_reverse_kl_adds_to_dist_is_as_told(name: str) -> None:
    rows = lines(f"{name}_results")
    found = statistics.paired(*(results.by_seed(rows, "all", method) for method in ("balance-on-dist", "dist")))
    assert f"{found.mean:.2f} points" in PAGE
    assert f"({found.low:+.2f} to {found.high:+.2f}" in PAGE


@pytest.mark.parametrize(("name", "first"), [("gauge", "method"), ("gauge_teachers", "teacher: method")])
def test_the_gauge_is_that_of_its_csv(name: str, first: str) -> None:
    table = re.search(rf"^\| {first} \| seeds \| forward KL .*\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    assert table
    shown = {row[0]: row[1:] for row in cells("\n" + table[1])}
    rows = lines(name)
    assert len(rows) == len(shown)
    for row in rows:
        number = {key: float(value) for key, value in row.items() if key.endswith(("_kl", "_mass", "_right", "_wrong"))}
        assert shown[row["case"]] == [
            row["seeds"],
            f"{number['forward_kl']:.3f}",
            f"{number['reverse_kl']:.3f}",
            f"{number['tail_mass']:.2f}%",
            f"{number['top1_teacher_right']:.1f}",
            f"{number['top1_teacher_wrong']:.1f}",
            f"{float(row['repeats_mistake']):.1f}%",
            f"{float(row['calibration_error']):.3f}",
        ]


def test_minutes_of_recipe_a_are_those_of_their_csv() -> None:
    table = re.search(r"^\| on one H100 .*\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    assert table
    with (RESULTS / "fast_gpu.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    shown = cells("\n" + table[1])
    assert len(shown) == len(rows)
    for cell, row in zip(shown, rows, strict=True):
        assert "H100" in row["device"]
        assert cell[0].startswith(row["case"])
        speed, ratio = row["images_per_second"] or row["fast_images_per_second"], row["fast_ratio"]
        assert cell[1] == f"{float(speed):,.0f}"
        assert cell[2].partition(",")[0] == (f"{float(row['minutes']):.2f}" if row["minutes"] else "")
        assert cell[3] == (f"{float(ratio):.2f}" if ratio else "")


def test_what_readme_says_is_what_came_out() -> None:
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    first, second = (
        next(r for r in lines(f"{n}_differences") if r["method"] == "balance") for n in ("resnet8", "primary")
    )
    low, high = (float(first[key]) for key in ("low", "high"))
    assert (
        f"Balance came out {float(first['difference']):.2f} points above KD (95% interval {low:.2f} to {high:.2f}"
        in readme
    )
    low, high = (-float(second[key]) for key in ("high", "low"))
    assert f"KD came out {-float(second['difference']):.2f} points above Balance ({low:.2f} to {high:.2f}" in readme
    means = {row["method"]: row for row in lines("resnet8_table")}
    for method, words in (("balance-on-dist", "reverse KL beside it, "), ("dist", "DIST's ")):
        assert f"{words}{float(means[method]['last_mean']):.1f} ± {float(means[method]['last_std']):.1f}" in readme
    same = {row["method"]: float(row["last_mean"]) for row in lines("primary_table")}
    assert f"{same['balance'] - same['kd-at-balance']:.2f} points at one, " in readme


def test_the_fast_step_on_two_cores_is_that_of_its_csv() -> None:
    with (RESULTS / "fast.csv").open(newline="", encoding="utf-8") as file:
        ratios = {row["case"]: float(row["fast_ratio"]) for row in csv.DictReader(file)}
    text = " ".join(PAGE.split())
    assert f"resnet20 from a store at {ratios['cifar/resnet20']:.2f} times" in text
    assert f"resnet8 at {ratios['cifar/resnet8']:.2f} times" in text


def test_what_a_stronger_teacher_and_more_epochs_change_is_as_told() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    given, first, fresh, longer = (
        statistics.paired(*(results.by_seed(lines(f"{table}_results"), pair, method) for method in ("balance", "kd")))
        for table, pair in (("teachers", "given"), ("teachers", "stronger"), ("stronger", "all"), ("longer", "all"))
    )
    assert f"{given.mean:.2f} at that" in readme
    assert f"{fresh.mean:.2f} ({fresh.low:.2f} to {fresh.high:.2f}) there with a teacher" in readme
    assert f"Balance was {first.mean:.2f} points ahead of KD" in PAGE
    assert f"it is {-fresh.mean:.2f} behind ({fresh.low:.2f} to {fresh.high:.2f})" in PAGE
    assert f"Balance is {longer.mean:.2f} ahead ({longer.low:.2f} to {longer.high:.2f})" in PAGE
