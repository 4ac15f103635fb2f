"""`counterpoise try` from the command line: what it writes, what it refuses, and its server."""

from __future__ import annotations

import http.client
import json
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from torch import nn

import counterpoise
from counterpoise.commands import app
from counterpoise.deploy.site import samples, site
from counterpoise.engine.student import save_student
from counterpoise.errors import DataError
from counterpoise.models import catalog

Run = Callable[..., tuple[int, str, str]]
Sites = Callable[..., Path]
FAST = [
    "--data.source",
    "digits",
    "--train.epochs",
    "1",
    "--train.device",
    "cpu",
    "--train.precision",
    "fp32",
    "--quiet",
]


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on digits."""
    out = tmp_path_factory.mktemp("run") / "small"
    assert app.run(["train", *FAST, "--student.model", "digits/cnn_4_8", "--out", str(out)]) == 0
    return out


def test_a_run_becomes_a_site(run: Run, digits: Path, tmp_path: Path) -> None:
    photo = Image.new("RGB", (300, 200), "red")
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    photo.save(tmp_path / "photo.jpg", exif=exif)
    code, out, err = run("try", digits, "--samples", "photo.jpg", "--evaluation_pictures", "2", "--json")
    assert code == 0, err
    made = json.loads(out)
    place = tmp_path / "sites" / "small"
    assert made["site"] == "sites/small"
    described = json.loads((place / "site.json").read_text(encoding="utf-8"))
    assert described["name"] == "small"
    assert described["outputs"] == "logits"
    assert described["classes"] == [str(digit) for digit in range(10)]
    assert described["input"] == {
        "size": [8, 8],
        "any_size": False,
        "crop_share": 1.0,
        "fit": "crop",
        "alpha": "white",
        "white_level": None,
        "reduction": 1.0,
        "around": None,
        "window": None,
        "sliding": None,
    }
    assert [model["name"] for model in described["models"]] == list(made["exports"])
    assert all((place / model["file"]).stat().st_size == model["bytes"] for model in described["models"])
    assert [sample["file"] for sample in described["samples"]] == [
        f"samples/{name}" for name in ("01.jpg", "02.png", "03.png")
    ]
    with Image.open(place / "samples" / "01.jpg") as kept:
        assert (kept.size, dict(kept.getexif())) == ((300, 200), {}), "where a picture was taken is nobody's business"
    files = {str(file.relative_to(place)) for file in place.rglob("*") if file.is_file()}
    listed = set(
        re.findall(r'"([^"]+)"', (place / "service-worker.js").read_text(encoding="utf-8").split("\n\n")[0])[1:]
    )
    assert listed == files - {"service-worker.js"}
    code, _, err = run("try", digits)
    assert (code, "Site sites/small exists" in err, "--overwrite" in err) == (2, True, True)


@pytest.mark.slow
def test_a_window_slides_over_scenes_in_float_and_in_8_bits(run: Run, scenes_run: Path, tmp_path: Path) -> None:
    import onnx

    code, out, err = run("try", scenes_run, "--out", "site", "--json")
    assert code == 0, err
    assert list(json.loads(out)["exports"]) == ["float32", "int8"]
    shown = json.loads(Path("site", "site.json").read_text(encoding="utf-8"))["input"]
    assert (shown["size"], shown["sliding"]) == ([16, 20], {"stride": [10, 13], "blend": "mean"})
    for name in ("float32", "int8"):
        (about,) = [
            json.loads(one.value) for one in onnx.load(f"site/{name}.onnx").metadata_props if one.key == "input"
        ]
        assert {kind: about[kind] for kind in ("size", "window")} == {"size": [16, 20], "window": shown["sliding"]}


def test_a_classifier_of_pictures_that_are_no_squares_says_how_they_come_to_its_size(tmp_path: Path) -> None:
    def wide(num_classes: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * 6 * 10, num_classes))

    network = catalog.build(wide, num_classes=3)
    network.task = "classification"
    save_student(network, tmp_path / "student", classes=tuple("abc"), metrics={}, provenance={})
    counterpoise.try_(tmp_path / "student", model=wide, size=(6, 10), out=tmp_path / "site")
    shown = json.loads((tmp_path / "site" / "site.json").read_text(encoding="utf-8"))["input"]
    assert (shown["size"], shown["crop_share"]) == ([6, 10], None)


def test_what_cannot_be_is_refused_before_anything_is_written(run: Run, digits: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "diary.txt").write_text("dear diary")
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.jpg").write_text("text")
    for arguments, part in (
        (["nothing"], "nothing does not exist"),
        ([digits, "--out", "mine", "--overwrite"], "holds no site of ours"),
        ([digits, "--samples", "missing.jpg"], "the file does not exist"),
        ([digits, "--samples", "empty"], "holds no pictures"),
        ([digits, "--samples", "text.jpg"], "not a picture"),
        ([digits, "--evaluation_pictures", "99"], "0 to 24, got 99"),
        ([digits, "--evaluation_pictures", "-1"], "0 to 24, got -1"),
    ):
        code, _, err = run("try", *arguments)
        assert code == 2
        assert part in err
        assert "Traceback" not in err
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["empty", "mine", "text.jpg"]
    assert (tmp_path / "mine" / "diary.txt").read_text() == "dear diary"


def test_without_the_runtime_nothing_is_written(
    run: Run, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", "http://127.0.0.1:9")
    code, _, err = run("try", digits)
    assert code == 2
    assert "onnxruntime-web" in err
    assert "put http://127.0.0.1:9/" in err
    assert not (tmp_path / "sites").exists()


def test_a_site_is_served_until_it_is_stopped(program: list[str], make_site: Sites) -> None:
    place = make_site()
    command = [*program, "try", str(place), "--serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        found = re.match(r"Open http://127\.0\.0\.1:(\d+)/ ", first)
        assert found, first
        connection = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=10)
        connection.request("GET", "/site.json")
        assert connection.getresponse().status == 200
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
        assert process.wait(20) == 0, process.stderr
    assert "HTTPS or localhost" in rest
    assert f"adb reverse tcp:{found[1]} tcp:{found[1]}" in rest
    assert rest.endswith("Stopped.\n")


def test_a_site_keeps_its_port_and_another_has_another(make_site: Sites) -> None:
    one, other = make_site(name="one"), make_site(name="other")
    assert site.version(one) == site.version(one) != site.version(other)
    assert not site.is_site(one.parent)


def test_samples_are_small_and_the_same_every_time(tmp_path: Path) -> None:
    assert samples.drawn(3) == samples.drawn(3)
    assert len({sample.content for sample in samples.drawn()}) == 6
    Image.new("RGB", (4000, 3000), "blue").save(tmp_path / "large.png")
    (large,) = samples.chosen([tmp_path / "large.png"])
    assert (large.width, large.height, large.ending) == (1600, 1200, "jpg")
    (tmp_path / "mine" / "inner").mkdir(parents=True)
    for name in ("b.png", "inner/a.png", ".hidden.png", "notes.txt"):
        Image.new("RGB", (4, 4)).save(tmp_path / "mine" / name, format="PNG")
    assert len(samples.chosen([tmp_path / "mine"])) == 2
    for number in range(samples.MOST + 1):
        Image.new("RGB", (4, 4)).save(tmp_path / f"{number}.png")
    with pytest.raises(DataError, match="28 pictures; a page shows 24"):
        samples.chosen([tmp_path])


def test_the_page_s_own_policy_is_that_of_the_server() -> None:
    page = (Path(site.__file__).parent / "page" / "index.html").read_text(encoding="utf-8")
    own = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', page)
    assert own
    assert f"{own[1]}; frame-ancestors 'none'" == site.CONTENT_SECURITY_POLICY  # which a page cannot say of itself
    assert "'unsafe-eval'" not in own[1].replace("'wasm-unsafe-eval'", "")
    assert "unsafe-inline" not in own[1]
