"""The page's answers are those of `counterpoise predict`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from counterpoise.deploy.site import site
from counterpoise.system.server import Server, from_folder
from counterpoise.tasks.overlays import palette

if TYPE_CHECKING:
    from playwright.sync_api import Page

Draw = Callable[..., Image.Image]
Visit = Callable[..., Any]
PICTURES = 100
TRAIN = ["--train.precision", "fp32", "--train.device", "cpu", "--data.workers", "0", "--quiet"]


def counterpoise(folder: Path, *arguments: str | Path) -> str:
    """The command line, in a folder; what it printed."""
    command = [sys.executable, "-m", "counterpoise", *map(str, arguments)]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, env={**os.environ, "COLUMNS": "200"}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def write_pictures(folder: Path, draw: Draw) -> list[Path]:
    """Pictures as people have them: JPEGs of all sizes, a third turned by EXIF, some with transparency or a palette."""
    folder.mkdir()
    rng = np.random.default_rng(7)
    paths = []
    for number in range(PICTURES):
        size = tuple(int(edge) for edge in rng.integers(90, 900, 2))
        picture = draw(("circle", "square", "stripes")[number % 3], number, size)
        kind = number % 10
        path = folder / f"{number:03d}.{'png' if kind >= 8 else 'jpg'}"
        if kind == 8:
            picture.putalpha(Image.radial_gradient("L").resize(size).point(lambda value: 255 - value // 2))
            picture.save(path)
        elif kind == 9:
            picture.quantize(64).save(path)
        else:
            exif = Image.Exif()
            exif[0x0112] = 1 + number % 8 if number % 3 == 0 else 1
            picture.save(path, quality=int(rng.integers(70, 96)), exif=exif, subsampling=(0, 2)[number % 2])
        paths.append(path)
    return paths


def answered(page: Page, path: Path) -> None:
    before = page.evaluate("document.body.dataset.answered ?? '0'")
    page.set_input_files("#file", path)
    page.wait_for_function("(before) => (document.body.dataset.answered ?? '0') !== before", arg=before)
    assert page.locator("#message").is_hidden(), page.locator("#message").inner_text()


def ranked(page: Page, column: int = 0) -> dict[str, float]:
    rows = page.locator(".column").nth(column).locator(".rank")
    shown = rows.evaluate_all("rows => rows.map(r => [...r.querySelectorAll('.name, .share')].map(e => e.textContent))")
    return {name: float(share.removesuffix(" %")) / 100 for name, share in shown}


@pytest.mark.slow
def test_a_hundred_pictures_are_answered_as_python_answers_them(
    tmp_path: Path, image_folder: Path, make_picture: Draw, visit: Visit
) -> None:
    student = ["--student.model", "cifar/resnet8x4", "--train.epochs", "12", "--train.batch_size", "8"]
    counterpoise(tmp_path, "train", "--data", image_folder, *student, *TRAIN, "--out", "run")
    pictures = write_pictures(tmp_path / "pictures", make_picture)
    expected = json.loads(counterpoise(tmp_path, "predict", *pictures, "--student", "run", "--json"))
    counterpoise(tmp_path, "try", "run", "--out", "site")
    policy = {"Content-Security-Policy": site.CONTENT_SECURITY_POLICY}
    found: list[dict[str, float]] = []
    with Server(from_folder(tmp_path / "site", policy)) as server:
        server.start()
        page, errors = visit(server.address)
        page.wait_for_selector("#offline[data-ready]", timeout=60_000)
        for path in pictures[: PICTURES // 2]:
            answered(page, path)
            found.append(ranked(page))
        server.shutdown()
    page.reload()  # the other half with nobody to ask
    page.wait_for_selector("body[data-ready]", timeout=60_000)
    for path in pictures[PICTURES // 2 :]:
        answered(page, path)
        found.append(ranked(page))
    assert errors == []
    same = sum(next(iter(shares)) == answer["class"] for shares, answer in zip(found, expected, strict=True))
    differences = [
        abs(shares[entry["class"]] - entry["probability"])
        for shares, answer in zip(found, expected, strict=True)
        for entry in answer["top"]
    ]
    print(f"{same} of {PICTURES} the same, probabilities within {max(differences):.4f}")
    assert len({answer["class"] for answer in expected}) == 3, "a student that always says the same proves nothing"
    assert same >= 99
    assert max(differences) <= 2e-2


def painted(page: Page, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """The first mask on the page, as classes."""
    found = page.locator(".panel canvas[role=img]").first.evaluate(
        "mask => [...mask.getContext('2d').getImageData(0, 0, mask.width, mask.height).data]"
    )
    colors = {tuple(color): index for index, color in enumerate(palette().tolist())}
    pixels = np.array(found, np.uint8).reshape(*shape, 4)[..., :3]
    return np.array([[colors[tuple(pixel)] for pixel in row] for row in pixels.tolist()])


@pytest.mark.slow
def test_scenes_of_many_sizes_are_painted_as_python_paints_them(tmp_path: Path, visit: Visit) -> None:
    rng = np.random.default_rng(0)
    for half, count in (("train", 8), ("val", 4)):
        for kind in ("images", "masks"):
            (tmp_path / "data" / kind / half).mkdir(parents=True)
        for number in range(count):
            width, height = (int(side) for side in rng.integers(40, 90, 2))
            mask = np.zeros((height, width), np.uint8)
            mask[height // 4 : height // 2, width // 4 : width // 2] = 1
            picture = rng.integers(120, 256, (height, width, 3)).astype(np.uint8)
            picture[mask == 1] //= 4
            Image.fromarray(picture).save(tmp_path / "data" / "images" / half / f"s{number}.png")
            Image.fromarray(mask).save(tmp_path / "data" / "masks" / half / f"s{number}.png")
    (tmp_path / "data" / "classes.txt").write_text("ground\nsquare\n")
    (tmp_path / "run.yaml").write_text(
        "task: segmentation\ndata: {path: data, source: masks_folder, scenes: {size: [32, 32]}}\n"
        "student: {model: digits/unet_8_16}\n"
        "train: {epochs: 8, batch_size: 4, optimizer: {name: adamw, learning_rate: 0.01}}\n"
    )
    counterpoise(tmp_path, "train", "run.yaml", *TRAIN, "--out", "run")
    counterpoise(tmp_path, "predict", "--student", "run", "data/images/val", "--out", "masks")
    counterpoise(tmp_path, "try", "run", "--out", "site")
    with Server(from_folder(tmp_path / "site")) as server:
        server.start()
        page, errors = visit(server.address)
        page.wait_for_selector("body[data-ready]", timeout=60_000)
        for number in range(4):
            answered(page, tmp_path / "data" / "images" / "val" / f"s{number}.png")
            expected = np.asarray(Image.open(tmp_path / "masks" / f"s{number}-mask.png"))
            assert (painted(page, expected.shape) == expected).mean() > 0.999
            assert page.evaluate("document.body.dataset.note") == ""
            assert len(np.unique(expected)) == 2
        server.shutdown()
    assert errors == []


@pytest.mark.slow
def test_scenes_are_painted_as_python_paints_them(tmp_path: Path, visit: Visit) -> None:
    options = json.dumps({"train_size": 400, "val_size": 12, "edge": 48})
    (tmp_path / "run.yaml").write_text(
        f"task: segmentation\ndata: {{source: digit_scenes, options: {options}}}\n"
        "student: {model: digits/unet_16_16_16}\n"
        "objective: {cross_entropy: {weight: 1.0, class_weight: [0.05, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]}}\n"
        "train: {epochs: 3, batch_size: 16, optimizer: {name: adamw, learning_rate: 0.01}}\n"
    )
    counterpoise(tmp_path, "train", "run.yaml", *TRAIN, "--out", "run")
    counterpoise(tmp_path, "predict", "--student", "run", "--data", "run/run.yaml", "--first", "12", "--out", "masks")
    counterpoise(tmp_path, "try", "run", "--out", "site", "--evaluation_pictures", "12")
    kinds = set()
    with Server(from_folder(tmp_path / "site")) as server:
        server.start()
        page, errors = visit(server.address)
        page.wait_for_selector("body[data-ready]", timeout=60_000)
        for number in range(12):
            answered(page, tmp_path / "site" / "samples" / f"{number + 1:02d}.png")
            mask = tmp_path / "masks" / f"val-scene-{number}-mask.png"
            expected = np.asarray(Image.open(mask))
            assert (painted(page, expected.shape) == expected).mean() > 0.999, mask.name
            kinds |= set(np.unique(expected).tolist())
        server.shutdown()
    assert len(kinds) > 2, "a student that sees background alone proves nothing"
    assert errors == []
