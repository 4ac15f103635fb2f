"""What a page holds, and what it keeps out."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from counterpoise.data.epochs import Batch
from counterpoise.data.sources.arrays import ArraySet
from counterpoise.data.sources.base import ImageSet
from counterpoise.models import catalog
from counterpoise.objectives.gauge import Gauge
from counterpoise.pages.report.charts import POINTS, thinned
from counterpoise.pages.report.findings import gather
from counterpoise.pages.report.findings.base import STUDENT, TEACHER
from counterpoise.pages.report.findings.cases import cases, worst_first
from counterpoise.pages.report.findings.classification import Classification
from counterpoise.pages.report.page import render
from counterpoise.pages.report.reading import find, read
from counterpoise.pages.report.writing import report
from counterpoise.tasks.scores.cases import Counts
from counterpoise.tasks.scores.overlap import OVERLAP

Copy = Callable[[str], Path]
Run = Callable[..., tuple[int, str, str]]
BAD_NAMES = ("<script>alert(1)</script>", "\"'><img src=x onerror=alert(1)>", "\u202eesrever\u2066", "🦊{{ 7 * 7 }}")


class Elements(HTMLParser):
    """Tags and their attributes, and the text outside of scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.raw = False
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        self.raw = tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self.raw = False

    def handle_data(self, data: str) -> None:
        if not self.raw:
            self.texts.append(data)


def charts(page: str) -> dict[str, dict[str, Any]]:
    found = re.findall(r'<script type="application/json" id="data-([\w-]+)">(.*?)</script>', page, re.S)
    return {name: json.loads(data) for name, data in found}


def test_a_page_holds_every_part_of_several_runs(digit_page: Path) -> None:
    page = digit_page.read_text(encoding="utf-8")
    shown = charts(page)
    learning = {"scores", "terms", "balance-by-epoch", "rate", "speed", "moving"}
    assert set(shown) == learning | {
        "standing",
        "masses",
        "split",
        "classes",
        "reliability",
        "risk",
        "intervals",
        "latency",
        "size",
    }
    assert [row["name"] for row in shown["standing"]["methods"]] == ["Teacher", "Student alone", "KD", "Balance"]
    assert {row["who"] for row in shown["masses"]["rows"]} == {"Teacher", "Student alone", "KD", "Balance"}
    moving = shown["moving"]["series"][0]
    assert moving["points"][0][1] < moving["points"][-1][1] == pytest.approx(1.0, abs=0.1)
    for words in (
        "Both right",
        "Only the teacher",
        "Only the student",
        "Both wrong",
        "taken for",
        "Where it comes from",
    ):
        assert words in page
    assert re.search(r"counterpoise distill \S+/balance-\d/run.yaml --out \S+-again", page)


def test_a_page_of_scenes_shows_the_worst_first_and_not_only_the_best(scene_page: Path) -> None:
    page = scene_page.read_text(encoding="utf-8")
    assert page.count("data-scene ") == 9
    assert page.count('data-layer="difference"') == 9
    titles = re.findall(r'<h4 class="panel-title">(\w+)</h4>', page)
    assert titles == ["Worst", "Median", "Best"]
    scores = [float(score) for score in re.findall(r"student ([\d.]+)", page)]
    assert scores[0] == min(scores)
    assert scores[6] == max(scores)


def test_a_page_of_scenes_lists_its_cases_the_worst_first(scene_page: Path) -> None:
    page = scene_page.read_text(encoding="utf-8")
    assert "each a picture, since the data say of no group" in page
    assert '<figure class="chart wide">' in page
    assert "Dice of cases, %" in page
    table = page.partition('aria-label="Cases, the worst first"')[2].partition("</table>")[0]
    rows = re.findall(r'<tr><th scope="row">.*?</th><td class="n">([\d.]+)</td>', table)
    assert len(rows) >= 6
    assert [float(row) for row in rows] == sorted(map(float, rows))


def test_of_cases_of_several_pictures_the_worst_picture_of_each_is_shown() -> None:
    truth = torch.zeros(6, 4, 4, dtype=torch.uint8)
    truth[:, :2] = 1
    images = ArraySet(torch.zeros(6, 3, 4, 4, dtype=torch.uint8), torch.zeros(6), ("ground", "cell"), masks=truth)
    images.groups = torch.tensor([0, 0, 1, 1, 2, 2])
    counts = Counts([OVERLAP], images.classes, images)
    for index, wrong in enumerate((0, 1, 4, 0, 2, 3)):  # pixels of a picture
        answer = truth[index].flatten().long()
        answer[:wrong] = 0
        counts.coming(torch.tensor([index]))
        counts.update(torch.nn.functional.one_hot(answer, 2).T.reshape(1, 2, 4, 4).float(), truth[index : index + 1])
    found = cases({"student": counts})
    assert [(row["case"], row["pictures"]) for row in found["rows"]] == [
        ("image #4", 2),
        ("image #2", 2),
        ("image #0", 2),
    ]
    scores = [float(part.values["iou"].mean()) for part in counts.pictures()]
    assert worst_first(counts, scores) == [5, 2, 1]
    images.groups = None
    assert worst_first(counts, scores) == [2, 5, 4, 1, 0, 3]


def test_a_page_of_scenes_tells_dice_beside_intersection_over_union(scene_page: Path, scene_runs: Path) -> None:
    page = scene_page.read_text(encoding="utf-8")
    last = json.loads(sorted(scene_runs.glob("balance*/summary.json"))[0].read_text())["last"]
    told = re.search(r"mean IoU ([\d.]+), mean Dice ([\d.]+)\.", page)
    assert told is not None
    assert [float(value) for value in told.groups()] == pytest.approx([last["miou"], last["dice"]], abs=0.006)
    assert "Dice %</th>" in page


def test_a_page_asks_for_nothing(digit_page: Path, scene_page: Path) -> None:
    for path in (digit_page, scene_page):
        elements = Elements(path.read_text(encoding="utf-8"))
        for tag, attributes in elements.tags:
            for name in ("src", "href", "action", "poster", "data"):
                value = attributes.get(name)
                assert value is None or value.startswith(("data:", "#")), (tag, value[:80])
            assert not any(name.startswith("on") or name == "style" for name in attributes)
        policies = [a["content"] for tag, a in elements.tags if a.get("http-equiv") == "Content-Security-Policy"]
        assert len(policies) == 1
        assert policies[0] is not None
        assert policies[0].startswith("default-src 'none'; img-src data:; script-src 'sha256-")
        assert "unsafe" not in policies[0]


def test_pictures_are_webp_and_few(digit_page: Path, scene_page: Path) -> None:
    for path, most in ((digit_page, 96), (scene_page, 45)):
        sources = [a["src"] for tag, a in Elements(path.read_text(encoding="utf-8")).tags if tag == "img"]
        assert 0 < len(sources) <= most
        assert all(source is not None and source.startswith("data:image/webp;base64,") for source in sources)


@pytest.mark.parametrize("name", [*BAD_NAMES, "long " * 2000])
def test_names_of_users_are_shown_and_not_run(copied: Copy, name: str) -> None:
    folder = copied("balance-1")
    student = json.loads((folder / "student" / "student.json").read_text())
    student["architecture"] = name
    student["provenance"]["versions"] = {name: name}
    (folder / "student" / "student.json").write_text(json.dumps(student))
    line = {"kind": "step", "step": 7, "terms": {name: 1.0, "b": 2.0}, "moving": {name: 1.0}, "learning_rate": 0.1}
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n" + json.dumps({**line, "step": 8}) + "\n")
    page = render([folder], command=name)
    elements = Elements(page)
    assert [tag for tag, _ in elements.tags].count("script") == 2 + len(charts(page))
    assert not any("onerror" in attributes for _, attributes in elements.tags)
    text = "".join(elements.texts)
    assert "🦊49" not in text
    assert (name if len(name) < 60 else name[:40]) in text
    for data in charts(page).values():
        assert "\u202e" not in json.dumps(data, ensure_ascii=False)
    assert len(page) < 500_000


def test_runs_without_data_or_teacher_say_so_and_show_the_rest(copied: Copy) -> None:
    folder = copied("balance-1")
    text = (folder / "run.yaml").read_text()
    teacher = re.search(r"checkpoint: (\S+teacher)", text)
    assert teacher is not None
    (folder / "run.yaml").write_text(text.replace(teacher[1], "/nowhere/teacher"))
    page = report([folder]).read_text(encoding="utf-8")
    assert "What the teacher answers is left out" in page
    assert {"classes", "reliability"} <= set(charts(page))
    assert "masses" not in charts(page)
    text = text.replace("source: digits", "source: image_folder").replace("path: null", "path: /nowhere", 1)
    (folder / "run.yaml").write_text(text)
    page = report([folder], overwrite=True).read_text(encoding="utf-8")
    assert "Pictures, confusions and the gauge are left out" in page
    assert "scores" in charts(page)


def test_classes_that_do_not_match_are_told(copied: Copy) -> None:
    folder = copied("balance-1")
    path = folder / "student" / "student.json"
    student = json.loads(path.read_text())
    student["classes"][3] = "three"
    path.write_text(json.dumps(student))
    page = report([folder]).read_text(encoding="utf-8")
    assert "only in the data: 3; only in the student: three" in page
    assert "scores" in charts(page)


def test_exports_measurements_and_candidates_are_in_the_table(copied: Copy) -> None:
    folder = copied("balance-1")
    export = folder / "exports" / "onnx-int8"
    export.mkdir(parents=True)
    agreement = {"metric": "top1", "student": 70.0, "export": 69.25, "same": 98.75}
    files = {"model.onnx": {"bytes": 2_000_000}, "run.py": {"bytes": 900}}
    described = {"format": "onnx", "precision": "int8", "files": files, "agreement": agreement, "verified": True}
    (export / "export.json").write_text(json.dumps(described))
    case = {"batch": 1, "low_ms": 1.1, "high_ms": 1.4}
    cases = [{**case, "threads": threads, "median_ms": ms} for threads, ms in ((2, 0.9), (1, 1.25))]
    measured = {"name": str(export), "runtime": "onnxruntime", "precision": "int8", "bytes": 2_000_000, "cases": cases}
    many = {"name": "eight", "runtime": "eight", "cases": [{"batch": 8, "threads": 1, "median_ms": 9.0}]}
    found = {"machine": {"processor": "Test 3000"}, "measured": [measured, many]}
    (folder / "measure.json").write_text(json.dumps(found))
    with (folder / "frontier.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["candidate", "status", "latency_ms", "megabytes", "top1_2_epochs", "top1_6_epochs"])
        writer.writerow(["wide", "winner", "3.5", "4.0", "70.1", "80.5"])
        writer.writerow(["wider", "over budget", "30.5", "14.0", "", ""])
    (folder / "exports" / "measure-broken.json").write_text("{")
    page = report([folder], predictions=False).read_text(encoding="utf-8")
    shown = charts(page)
    points = {point["name"]: (point["x"], point["y"]) for point in shown["latency"]["points"]}
    assert points == {"onnx 8 bits": (1.25, 69.25), "wide": (3.5, 80.5)}
    for words in (
        "98.75%",
        "1.25 ms",
        "1.1 ms to 1.4 ms",
        "Test 3000",
        "eight, 8 pictures at once",
        "measure-broken.json is damaged",
        "over budget",
    ):
        assert words in page


def test_tables_of_a_comparison_are_shown(digit_runs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "compared"
    folder.mkdir()
    (folder / "table.csv").write_text("pair,method,n,last_mean,last_std,params\nsmall,kd,3,61.5,0.5,510\n")
    (folder / "differences.csv").write_text(
        "pair,method,baseline,primary,n,difference,low,high,verdict\nsmall,balance,kd,yes,3,1.5,0.5,2.5,higher\n"
    )
    page = render(find(digit_runs), compared=folder)
    (row,) = charts(page)["intervals"]["rows"]
    assert (row["mean"], row["low"], row["high"], row["verdict"]) == (1.5, 0.5, 2.5, "higher")
    assert "61.50" in page
    (folder / "results.csv").write_text("pair,method,metric\nsmall,kd,top5\n")
    page = render(find(digit_runs), compared=folder)
    assert charts(page)["intervals"]["unit"] == "top-5 accuracy"
    assert re.search(r"Last epoch, .*top-5 accuracy.*</th>", page)


def test_the_command_line_writes_a_page_and_keeps_an_older_one(run: Run, copied: Copy) -> None:
    folder = copied("balance-1")
    code, out, err = run("report", folder, "--no-predictions")
    assert (code, out.strip(), err) == (0, f"open {folder}/report.html", "")
    first = (folder / "report.html").read_bytes()
    code, _, err = run("report", folder)
    assert code == 2
    assert "--overwrite" in err
    assert (folder / "report.html").read_bytes() == first
    assert run("report", folder, "--overwrite", "--images", "50")[0] == 0
    assert "50 of 1,737 evaluation images" in (folder / "report.html").read_text(encoding="utf-8")


def test_what_is_no_run_is_told(run: Run, copied: Copy, tmp_path: Path) -> None:
    copied("balance-1")
    code, _, err = run("report", tmp_path / "balance-2")
    assert code == 2
    assert "Did you mean 'balance-1'" in err
    (tmp_path / "empty").mkdir()
    code, _, err = run("report", tmp_path / "empty")
    assert code == 2
    assert "holds no run" in err
    assert run("report")[0] == 2
    assert run("report", tmp_path / "balance-1", "--images", "0")[0] == 2


def test_a_section_without_contents_is_left_out_and_said_above(copied: Copy) -> None:
    page = render([copied("balance-1")])
    assert 'id="deployment"' not in page
    assert 'href="#deployment"' not in page
    assert page.count("No export was found") == 1


def test_long_curves_are_thinned_to_means() -> None:
    points = thinned([(x, float(x % 2)) for x in range(10_001)])
    assert len(points) <= POINTS
    assert points[-1] == (10_000.0, 0.0)
    assert all(0.3 < y < 0.7 for _, y in points[:-1])
    assert thinned([(0, float("nan")), (1, 2.0)]) == [(1.0, 2.0)]


class Drawn(ImageSet):
    """Pictures of noise, drawn when they are read."""

    def name(self, index: int) -> str:
        return f"{index}.png"

    def read(self, index: int) -> Tensor:
        generator = torch.Generator().manual_seed(index)
        return torch.randint(0, 256, (3, 160, 160), dtype=torch.uint8, generator=generator)

    def extent(self, index: int) -> tuple[int, int]:
        return 160, 160

    def identity(self, index: int) -> bytes:
        return str(index).encode()


def test_a_page_of_a_thousand_classes_and_fifty_thousand_images_stays_small(copied: Copy) -> None:
    classes, count, part = 1000, 50_000, 2000
    names = [f"class number {index} of a long list of words" for index in range(classes)]
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, classes, (count,), generator=generator)
    images = Drawn(labels, names)
    network = catalog.build("digits/cnn_4_8", num_classes=classes)
    models = {STUDENT: network, TEACHER: network}
    gathering = Classification(names, models, images)
    gauge = Gauge(classes)
    for start in range(0, count, part):
        target = labels[start : start + part]
        logits = {}
        for name, wrong in ((STUDENT, 0.3), (TEACHER, 0.15)):
            errs = torch.rand(part, generator=generator) < wrong
            answer = torch.where(errs, (target + target % 7 + 1) % classes, target)
            logits[name] = torch.zeros(part, classes).scatter_(1, answer[:, None], 8.0)
        gathering.update(Batch(torch.zeros(1, 3, 8, 8), target, torch.arange(start, start + part), part), logits)
        if not start:
            gauge.update(logits[STUDENT], logits[TEACHER], target)
    bins = gauge.reliability()
    findings = {**gathering.result(), "gauges": {STUDENT: gauge.compute()}, "reliability": bins, "images": count}
    page = render([copied("balance-1")], findings=findings)
    assert findings["labeled"] == count
    assert page.count("<img ") == 48 + 48
    assert len(findings["per_class"]) == classes
    assert len(page.encode()) < 8_000_000 / 4


def test_a_task_that_pages_do_not_show_is_said(digit_runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(gather.GATHERINGS, "classification")
    found = gather.gather(read(digit_runs / "balance-1"), {})
    assert list(found) == ["missing"]
    assert (
        "A page shows multilabel, segmentation, multilabel_segmentation, not answers of classification."
        in found["missing"][0]
    )
