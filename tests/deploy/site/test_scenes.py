"""The page's masks are those of tasks/segmentation.py."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from counterpoise.decoding import cut
from counterpoise.deploy import runner
from counterpoise.tasks.confusion import upsample

if TYPE_CHECKING:
    from playwright.sync_api import Page

Pixels = NDArray[np.uint8]

CALL = """async ({bytes, width, height, input, weights, stride, least, promise}) => {
    const { segment, slide } = await import("./scenes.js");
    const data = Uint8ClampedArray.from(atob(bytes), (letter) => letter.charCodeAt(0));
    let asked = 0;
    // a network of one 1x1 convolution that looks at every stride-th pixel
    const answer = async (pixels, [rows, columns]) => {
        asked++;
        const [h, w] = [Math.ceil(rows / stride), Math.ceil(columns / stride)];
        const logits = new Float32Array(weights.length * h * w);
        weights.forEach((row, c) => {
            for (let y = 0; y < h; y++) for (let x = 0; x < w; x++) for (let channel = 0; channel < 3; channel++) {
                const value = pixels[(channel * rows + y * stride) * columns + x * stride];
                logits[(c * h + y) * w + x] += row[channel] * value;
            }
        });
        return {data: logits, dims: [1, weights.length, h, w]};
    };
    const told = [], tell = (share) => told.push(share);
    const found = input.sliding
        ? await slide({width, height, data}, input, answer, least, promise, tell, input.sliding.held)
        : await segment({width, height, data}, input, answer, least, promise);
    if (told.some((share, at) => !(share > (told[at - 1] ?? 0) && share <= 1))) throw new Error(`progress ${told}`);
    let text = "";
    for (const value of found.classes) text += String.fromCharCode(value);
    return [found.height, found.width, btoa(text), asked, found.exact];
}"""
WEIGHTS = np.random.default_rng(0).normal(size=(7, 3))


def in_browser(
    page: Page,
    picture: Pixels,
    size: tuple[int, int],
    reduction: float = 1.0,
    stride: int = 1,
    any_size: bool = False,
    around: tuple[int, int, int] | None = None,
    least: list[float] | None = None,
    sliding: dict[str, object] | None = None,
    promise: dict[str, float] | None = None,
) -> tuple[Pixels, int, bool]:
    """The mask, how often the network was asked, and whether the picture was shown as `predict` shows it."""
    height, width = picture.shape[:2]
    opaque = np.dstack([picture, np.full((height, width), 255, np.uint8)])
    given = {"bytes": base64.b64encode(opaque.tobytes()).decode(), "width": width, "height": height, "stride": stride}
    shown = {"size": list(size), "reduction": reduction, "any_size": any_size, "around": around, "sliding": sliding}
    tall, wide, text, asked, exact = page.evaluate(
        CALL, {**given, "input": shown, "weights": WEIGHTS.tolist(), "least": least, "promise": promise}
    )
    return np.frombuffer(base64.b64decode(text), np.uint8).reshape(tall, wide), asked, exact


def expected(
    picture: Pixels, shown: tuple[int, int], stride: int = 1, promise: dict[str, float] | None = None
) -> Pixels:
    """The mask of the same network, to whom the whole picture is shown at a size."""
    resized = Image.fromarray(picture).resize((shown[1], shown[0]), Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.array(resized)).double()[::stride, ::stride]
    logits = torch.einsum("kc,hwc->khw", torch.from_numpy(WEIGHTS), pixels)[None].float()
    mask: Pixels = runner.decided(upsample(logits, picture.shape[:2])[0].numpy(), {"scene_promise": promise})
    return mask


def scene(height: int, width: int) -> Pixels:
    """Blotches, so that classes have areas and not only borders."""
    rng = np.random.default_rng([height, width])
    small = rng.integers(1, 256, (max(2, height // 8), max(2, width // 8), 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BILINEAR))


@pytest.mark.parametrize(
    ("size", "shown", "reduction", "stride"),
    [
        ((24, 32), (24, 32), 1.0, 1),
        ((24, 32), (24, 32), 1.0, 4),
        ((47, 63), (24, 32), 2.0, 4),
        ((30, 45), (20, 30), 1.5, 2),
    ],
    ids=str,
)
def test_a_scene_of_the_export_s_size_is_painted_as_in_python(
    modules: Page, size: tuple[int, int], shown: tuple[int, int], reduction: float, stride: int
) -> None:
    picture = scene(*size)
    mask, asked, exact = in_browser(modules, picture, shown, reduction, stride)
    assert (asked, exact) == (1, True)
    assert (mask == expected(picture, shown, stride)).mean() > 0.999  # ties may fall either way
    assert len(np.unique(mask)) > 2
    promise = {"temperature": 40.0, "threshold": 0.6}
    mask = in_browser(modules, picture, shown, reduction, stride, promise=promise)[0]
    assert (mask == expected(picture, shown, stride, promise)).mean() > 0.999
    assert 0.1 < (mask == 255).mean() < 0.9


@pytest.mark.parametrize(
    ("size", "stride"), [((30, 50), 1), ((90, 40), 4), ((13, 9), 4), ((21, 17), 7), ((8, 400), 5)], ids=str
)
def test_other_shapes_are_fitted_in_as_run_py_fits_them(
    modules: Page, tmp_path: Path, size: tuple[int, int], stride: int
) -> None:
    picture, color = scene(*size), (90, 20, 130)
    mask, asked, exact = in_browser(modules, picture, (20, 28), stride=stride, around=color)
    assert (asked, exact) == (1, False)
    about = {"size": (20, 28), "around": color, "crop_share": None}
    pixels, covered = runner.pixels_of(Image.fromarray(picture), about)
    logits = np.einsum("kc,chw->khw", WEIGHTS, pixels[0, :, ::stride, ::stride].astype(float)).astype(np.float32)
    logits = cut(logits, covered, (20, 28)) if covered != (20, 28) else logits
    wanted = upsample(torch.from_numpy(logits)[None], size).argmax(1)[0].numpy()
    assert (mask == wanted).mean() > 0.995  # ties may fall either way
    runner.write_mask(logits, {"classes": list("abcdefg")}, Image.fromarray(picture), ([tmp_path / "mask.png"], []))
    if size[0] >= logits.shape[1] and size[1] >= logits.shape[2]:
        assert (mask == np.asarray(Image.open(tmp_path / "mask.png"))).mean() > 0.99


@pytest.mark.parametrize(
    ("size", "shown", "reduction"),
    [((31, 57), (31, 57), 1.0), ((90, 40), (45, 20), 2.0), ((8, 400), (8, 400), 1.0)],
    ids=str,
)
def test_an_export_of_any_size_sees_every_scene_whole(
    modules: Page, size: tuple[int, int], shown: tuple[int, int], reduction: float
) -> None:
    picture = scene(*size)
    mask, asked, exact = in_browser(modules, picture, (24, 32), reduction, any_size=True)
    assert (asked, exact) == (1, True)
    assert (mask == expected(picture, shown)).mean() > 0.999


@pytest.mark.parametrize(
    ("size", "reduction", "stride", "blend", "strips"),
    [
        ((61, 130), 1.0, 1, "mean", False),
        ((61, 130), 1.0, 4, "gaussian", True),
        ((90, 75), 1.5, 3, "linear", True),
        ((13, 100), 1.0, 4, "mean", False),
    ],
    ids=str,
)
def test_a_window_slides_as_run_py_slides_it(
    modules: Page, tmp_path: Path, size: tuple[int, int], reduction: float, stride: int, blend: str, strips: bool
) -> None:
    picture, color, window = scene(*size), (90, 20, 130), {"stride": [13, 20], "blend": blend}
    held = {"held": 4000} if strips else {}
    mask, asked, exact = in_browser(
        modules, picture, (20, 28), reduction, stride, around=color, sliding={**window, **held}
    )
    taken = {"size": (20, 28), "reduction": reduction, "around": color, "batch": 1, "window": window}

    def run(pixels: Pixels) -> NDArray[np.float32]:
        seen.append(0)
        return np.einsum("kc,nchw->nkhw", WEIGHTS, pixels[:, :, ::stride, ::stride].astype(float)).astype(np.float32)

    seen: list[int] = []
    out = tmp_path / "mask.png"
    about: dict[str, Any] = {"classes": list("abcdefg"), "input": taken}
    runner.write_by_window(Image.fromarray(picture), about, run, runner.write_mask, ([out], []))
    wanted = np.asarray(Image.open(out))
    assert exact
    assert asked > len(seen) - 1 if strips else asked == len(seen) - 1
    assert mask.shape == wanted.shape == size
    assert (mask == wanted).mean() > 0.995  # ties may fall either way, and Pillow rounds edges otherwise
    assert len(np.unique(mask)) > 2
    about["scene_promise"] = {"temperature": 40.0, "threshold": 0.6}
    sliding, promise = {**window, **held}, about["scene_promise"]
    mask, *_ = in_browser(modules, picture, (20, 28), reduction, stride, around=color, sliding=sliding, promise=promise)
    runner.write_by_window(Image.fromarray(picture), about, run, runner.write_mask, ([out], []))
    assert (mask == np.asarray(Image.open(out))).mean() > 0.99
    assert 0.1 < (mask == 255).mean() < 0.9


def test_questions_are_answered_each_at_its_own_threshold(modules: Page) -> None:
    """As bits: question n is bit n."""
    picture, least = scene(24, 32), [-40.0, -10.0, 0.0, 20.0, 60.0, 1e4, -1e4]
    mask, _, _ = in_browser(modules, picture, (24, 32), stride=4, least=least)
    logits = np.einsum("kc,hwc->khw", WEIGHTS, picture[::4, ::4].astype(float)).astype(np.float32)
    wanted = upsample(torch.from_numpy(logits)[None], (24, 32))[0].numpy() >= np.array(least)[:, None, None]
    told = (mask >> np.arange(7)[:, None, None]) & 1
    assert (told == wanted).mean() > 0.999
    assert [told[5].any(), told[6].all(), 0 < told[2].mean() < 1] == [False, True, True]


def test_what_the_network_answers_is_shown_as_probabilities(modules: Page) -> None:
    """Of a student that answers probabilities these, as `predict` and run.py give them."""
    call = """async () => {
        const { shares } = await import("./worker.js");
        return ["logits", "probabilities"].map((outputs) => [...shares([0.25, 0.75], outputs)]);
    }"""
    of_logits, own = modules.evaluate(call)
    assert own == [0.25, 0.75]
    assert of_logits == pytest.approx(torch.tensor([0.25, 0.75], dtype=torch.float64).softmax(0).tolist())


def test_a_photo_of_many_megapixels_is_reduced_and_that_is_said(modules: Page) -> None:
    call = """async () => {
        const { plan } = await import("./scenes.js");
        return plan({width: 4000, height: 3000}, {size: [24, 32], any_size: true, reduction: 1});
    }"""
    view = modules.evaluate(call)
    assert view["exact"] is False
    assert (view["width"], view["height"]) == (view["columns"], view["rows"]) == (1632, 1224)
