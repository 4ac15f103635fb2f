"""The page as a person meets it, in a real Chromium."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from PIL import Image

from counterpoise.deploy.site import site
from counterpoise.system.server import Server, from_folder

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

Visit = Callable[..., Any]
NASTY = (
    "<script>document.body.dataset.hacked = 1</script>",
    '"\'><img src=x onerror="document.body.dataset.hacked = 1">',
    "\u202eright to left\u202c \u05e9\u05dc\u05d5\u05dd",
    "\N{CAT FACE}\u200d\N{SPARKLES} \N{FAMILY}",
    "long " * 2000,
    "unbroken" * 1250,
)


class Opened(NamedTuple):
    """A page, what its console complained of, and what it asked for."""

    page: Page
    errors: list[str]
    asked: list[str]


def opened(chromium: Browser, server: Server) -> Iterator[Opened]:
    """A page for several tests: loading the runtime takes longer than most of them."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    errors: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    context.on("request", lambda request: asked.append(request.url))
    page.goto(server.address)
    yield Opened(ready(page), errors, asked)
    assert errors == []
    context.close()


@pytest.fixture(scope="module")
def classified(chromium: Browser, classifier: Server) -> Iterator[Opened]:
    yield from opened(chromium, classifier)


@pytest.fixture(scope="module")
def segmented(chromium: Browser, segmenter: Server) -> Iterator[Opened]:
    yield from opened(chromium, segmenter)


def png(color: str, size: tuple[int, int] = (40, 30)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, color).save(file, format="PNG")
    return file.getvalue()


def ready(page: Page) -> Page:
    page.wait_for_selector("body[data-ready]", timeout=60_000)
    return page


def choose(page: Page, content: bytes, name: str = "picture.png") -> None:
    """Give the page a picture by its file dialog, and wait for what it says of it."""
    before = page.evaluate("document.body.dataset.answered ?? '0'")
    with page.expect_file_chooser() as dialog:
        page.get_by_role("button", name="Choose a picture").click()
    dialog.value.set_files([{"name": name, "mimeType": "application/octet-stream", "buffer": content}])
    page.wait_for_function(
        "(before) => (document.body.dataset.answered ?? '0') !== before || !document.getElementById('message').hidden",
        arg=before,
    )


def first_answers(page: Page) -> list[str]:
    return page.locator(".ranks li:first-child .name").all_inner_texts()


def serious(page: Page) -> list[str]:
    """What axe-core finds that is serious or critical."""
    from axe_playwright_python.sync_playwright import Axe

    response = Axe().run(page).response
    assert len(response["passes"]) > 10
    found = response["violations"]
    return [
        f"{one['id']}: {node['html']}"
        for one in found
        for node in one["nodes"]
        if one["impact"] in ("serious", "critical")
    ]


def test_pictures_are_answered_that_come_to_a_size_that_is_no_square(
    chromium: Browser, make_site: Callable[..., Path]
) -> None:
    with Server(from_folder(make_site(size=(6, 10), exports=1))) as server:
        server.start()
        for page, errors, _ in opened(chromium, server):
            choose(page, png("red"))
            assert page.locator("#message").is_hidden(), page.locator("#message").inner_text()
            assert (len(first_answers(page)), errors) == (1, [])
        server.shutdown()


def test_a_picture_is_answered_by_float_and_8_bits_with_their_cost(classified: Opened) -> None:
    page = classified.page
    assert page.evaluate("crossOriginIsolated")
    assert page.locator("#altered").is_hidden()
    choose(page, png("red"))
    assert len(first_answers(page)) == 2
    assert page.locator(".ranks").first.locator("li").count() == 5
    assert page.locator(".cost b").first.inner_text().endswith(" ms")
    assert "KB" in page.locator(".cost").nth(1).inner_text()
    choose(page, png("#204080"))
    assert "of 2 pictures" in page.locator("#agreement").inner_text()
    assert page.locator("#announcement").inner_text().startswith("Answer: ")
    page.get_by_role("button", name="Measure again").click()
    page.wait_for_selector("#measure:enabled")
    assert page.locator("#message").is_hidden()


def test_nothing_is_asked_of_any_other_host(classified: Opened, classifier: Server) -> None:
    choose(classified.page, png("red"))
    assert len(classified.asked) > 10
    ours = (classifier.address, f"blob:{classifier.address}")
    assert [url for url in classified.asked if not url.startswith(ours)] == []


def test_pictures_come_by_sample_drop_and_paste(classified: Opened) -> None:
    page = classified.page

    def count() -> int:
        return int(page.evaluate("document.body.dataset.answered ?? 0"))

    before = count()
    page.get_by_role("button", name="Sample 1").click()
    page.wait_for_selector(f"body[data-answered='{before + 1}']")
    assert page.locator("#samples [aria-pressed=true]").count() == 1
    give = """([kind, bytes]) => {
        const data = new DataTransfer();
        data.items.add(new File([new Uint8Array(bytes)], "x.png", {type: "image/png"}));
        const options = {bubbles: true, cancelable: true};
        if (kind === "paste") document.dispatchEvent(new ClipboardEvent("paste", {...options, clipboardData: data}));
        else document.getElementById("drop").dispatchEvent(new DragEvent("drop", {...options, dataTransfer: data}));
    }"""
    for number, kind in enumerate(("drop", "paste"), before + 2):
        page.evaluate(give, [kind, list(png("blue"))])
        page.wait_for_selector(f"body[data-answered='{number}']")
    assert page.locator("#samples [aria-pressed=true]").count() == 0


def test_a_tampered_or_oversized_picture_gets_a_sentence_and_the_next_one_an_answer(classified: Opened) -> None:
    page = classified.page
    huge = bytearray(png("red"))
    huge[16:24] = (60_000).to_bytes(4, "big") * 2
    for content, part in ((b"no picture", "not a JPEG"), (bytes(huge), "megapixels"), (png("red")[:60], "damaged")):
        choose(page, content)
        assert part in page.get_by_role("alert").inner_text()
    choose(page, png("green"))
    assert page.locator("#message").is_hidden()
    assert len(first_answers(page)) == 2


def test_a_camera_that_is_not_allowed_is_explained(classified: Opened) -> None:
    page = classified.page
    page.get_by_role("button", name="Use the camera").click()
    page.wait_for_selector("#message:not([hidden])")
    assert "camera" in page.get_by_role("alert").inner_text()
    assert page.get_by_role("button", name="Use the camera").is_visible()


def test_all_of_it_works_by_keyboard(classified: Opened) -> None:
    page = classified.page
    page.locator("body").evaluate("body => { body.tabIndex = -1; body.focus(); body.removeAttribute('tabindex'); }")
    seen = []
    for _ in range(8):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.id || document.activeElement.firstChild?.alt"))
    assert seen[:5] == ["choose", "camera", "Sample 1", "Sample 2", "Sample 3"]
    assert "measure" in seen
    before = int(page.evaluate("document.body.dataset.answered ?? 0"))
    page.get_by_role("button", name="Sample 2").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector(f"body[data-answered='{before + 1}']")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_no_serious_barrier_and_no_sideways_scroll(classified: Opened, scheme: Any, width: int) -> None:
    page = classified.page
    page.set_viewport_size({"width": width, "height": 844})
    page.emulate_media(color_scheme=scheme)
    choose(page, png("red"))
    page.wait_for_timeout(300)  # bars grow
    assert serious(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    background = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert (sum(map(int, background[4:-1].split(","))) < 200) == (scheme == "dark")
    page.set_viewport_size({"width": 1280, "height": 900})


def test_it_can_be_installed(classified: Opened) -> None:
    page = classified.page
    page.wait_for_selector("#offline[data-ready]", timeout=30_000)
    client = page.context.new_cdp_session(page)
    manifest = client.send("Page.getAppManifest")
    assert manifest["errors"] == []
    assert json.loads(manifest["data"])["display"] == "standalone"
    errors = client.send("Page.getInstallabilityErrors")["installabilityErrors"]
    assert [error["errorId"] for error in errors] in ([], ["in-incognito"])  # as every context of a test is


def test_segmentation_paints_under_a_slider_with_a_legend(segmented: Opened) -> None:
    page = segmented.page
    assert serious(page) == []
    choose(page, png("red", (80, 80)))
    masks = page.locator(".panel canvas[role=img]")
    assert masks.count() == 2
    assert "mostly" in str(masks.first.get_attribute("aria-label"))
    page.get_by_role("slider", name="Opacity").focus()
    page.keyboard.press("Home")
    assert masks.first.evaluate("mask => mask.style.opacity") == "0"
    page.keyboard.press("End")
    assert masks.first.evaluate("mask => mask.style.opacity") == "1"
    assert page.locator("#opacity-value").inner_text() == "100 %"
    painted = "mask => mask.getContext('2d').getImageData(0, 0, mask.width, mask.height).data.some(Boolean)"
    assert masks.first.evaluate(painted)
    for switch in page.locator("#legend button").all():
        switch.focus()
        page.keyboard.press("Space")
        assert switch.get_attribute("aria-pressed") == "false"
    assert not masks.first.evaluate(painted), "all classes are hidden"
    assert "of the pixels" in page.locator("#agreement").inner_text()
    assert "Fitted into the 8 × 8 pixels that this file takes" in page.locator("#agreement").inner_text()  # noqa: RUF001
    assert serious(page) == []


def test_the_camera_is_watched_until_a_picture_is_held(classified: Opened) -> None:
    page = classified.page
    page.context.grant_permissions(["camera"])
    before = int(page.evaluate("document.body.dataset.answered ?? 0"))
    page.get_by_role("button", name="Use the camera").click()
    page.wait_for_function(f"() => Number(document.body.dataset.answered) >= {before + 3}")
    assert page.locator("#video").is_visible()
    page.get_by_role("button", name="Hold this picture").press("Enter")
    # At once: no frame needs to be on its way to the network.
    assert page.evaluate("document.querySelector('#shown').hidden") is False
    assert page.locator("#video").is_hidden()
    assert page.locator(".ranks.placeholder").count() == 0
    page.context.clear_permissions()


@pytest.mark.parametrize("task", ["classification", pytest.param("segmentation", marks=pytest.mark.slow)])
def test_names_are_text_whatever_is_in_them(visit: Visit, make_site: Callable[..., Path], task: str) -> None:
    place = make_site(name=NASTY[0] + NASTY[4], classes=NASTY, task=task)
    with Server(from_folder(place, {"Content-Security-Policy": site.CONTENT_SECURITY_POLICY})) as server:
        server.start()
        page, errors = visit(server.address, width=390)
        ready(page)
        for color in ("red", "blue"):
            choose(page, png(color, (80, 80)))
        assert page.evaluate("document.body.dataset.hacked") is None
        assert page.locator("main script, main img[src='x']").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert page.evaluate("document.documentElement.scrollHeight") < 4000
        shown = page.locator(".ranks .name, #legend .name").all_inner_texts()
        assert {text.strip() for text in shown} <= {name.strip() for name in NASTY}
        assert serious(page) == []
        server.shutdown()
    assert errors == []
    assert json.loads((place / "site.json").read_text(encoding="utf-8"))["classes"] == list(NASTY)


def test_offline_after_the_first_visit(visit: Visit, make_site: Callable[..., Path]) -> None:
    with Server(from_folder(make_site())) as server:  # without any header, as a plain static host
        server.start()
        page, _ = visit(server.address)
        ready(page)
        page.wait_for_selector("#offline[data-ready]", timeout=30_000)
        server.shutdown()
    page.reload()  # nobody listens any more
    ready(page)
    assert page.evaluate("crossOriginIsolated"), "threads need the headers that the service worker adds"
    page.get_by_role("button", name="Sample 1").click()
    page.wait_for_selector("body[data-answered='1']")
    choose(page, png("red"))
    assert len(first_answers(page)) == 2


@pytest.mark.slow
def test_a_newer_student_is_offered_and_taken(visit: Visit, make_site: Callable[..., Path]) -> None:
    older, newer = make_site(name="older"), make_site(name="newer")
    place = [older]
    with Server(lambda path: from_folder(place[0])(path)) as server:
        server.start()
        page, _ = visit(server.address)
        ready(page)
        page.wait_for_selector("#offline[data-ready]", timeout=30_000)
        place[0] = newer
        page.reload()
        assert page.locator("h1").inner_text() == "older"
        page.get_by_role("button", name="A newer student is here").click(timeout=30_000)
        page.wait_for_function("() => document.querySelector('h1').textContent === 'newer'")
        server.shutdown()


@pytest.mark.slow
def test_the_gpu_gives_the_same_answers(gpu: Browser, classifier: Server) -> None:
    page = gpu.new_page()
    page.goto(classifier.address)
    choose(ready(page), png("#4060a0"))
    on_cpu = page.locator("#columns .rank").all_inner_texts()
    page.get_by_label("Processor").select_option("GPU")
    page.wait_for_selector("body[data-ready=gpu]", timeout=120_000)
    assert page.locator("#processor-note").inner_text() == "WebGPU"
    choose(page, png("#4060a0"))
    assert page.locator("#columns .rank").all_inner_texts() == on_cpu


@pytest.mark.slow
def test_a_browser_that_changes_pixels_is_told_of(visit: Visit, classifier: Server) -> None:
    page, _ = visit("about:blank")
    noise = """{
        const read = OffscreenCanvasRenderingContext2D.prototype.getImageData;
        OffscreenCanvasRenderingContext2D.prototype.getImageData = function (...place) {
            const pixels = read.apply(this, place);
            pixels.data[0] ^= 1;
            return pixels;
        };
    }"""

    def altered(route: Any) -> None:
        response = route.fetch()
        route.fulfill(response=response, body=response.text() + noise)

    page.context.route("**/pictures.js", altered)
    page.goto(classifier.address)
    assert ready(page).locator("#altered").is_visible()
    assert "may be wrong" in page.locator("#altered").inner_text()


def test_a_site_that_lost_a_file_says_which(visit: Visit, make_site: Callable[..., Path]) -> None:
    place = make_site()
    (place / "int8.onnx").unlink()
    with Server(from_folder(place)) as server:
        server.start()
        page, _ = visit(server.address)
        page.wait_for_selector("#message:not([hidden])", timeout=60_000)
        assert "int8.onnx is missing" in page.get_by_role("alert").inner_text()
        server.shutdown()


def test_labels_at_their_thresholds_are_told_first(chromium: Browser, make_site: Any) -> None:
    """A gray picture: all logits are near 0, all probabilities near one half."""
    place = make_site(task="multilabel", thresholds=(0.6, 0.4, 0.6, 0.6, 0.4, 0.6))
    with Server(from_folder(place, {"Content-Security-Policy": site.CONTENT_SECURITY_POLICY})) as server:
        server.start()
        for found in opened(chromium, server):
            choose(found.page, png("#808080"))
            found.page.wait_for_selector(".rank.there")
            column = found.page.locator(".column").first
            told = {kind: column.locator(f".rank.{kind} .name").all_inner_texts() for kind in ("there", "absent")}
            assert sorted(told["there"]) == ["amber", "green"]
            assert len(told["absent"]) == 3
            assert column.locator(".rank .name").all_inner_texts() == [*told["there"], *told["absent"]]
            found.page.wait_for_function("document.getElementById('announcement').textContent.includes('; ')")
            assert "give the same labels here" in found.page.locator("#agreement").inner_text()
        server.shutdown()


@pytest.mark.slow
def test_questions_above_their_thresholds_are_painted_and_each_is_a_switch(chromium: Browser, make_site: Any) -> None:
    """A gray picture: all logits are near 0, all probabilities near one half."""
    place = make_site(task="multilabel_segmentation", thresholds=(0.6, 0.4, 0.6, 0.6, 0.4, 0.6))
    with Server(from_folder(place, {"Content-Security-Policy": site.CONTENT_SECURITY_POLICY})) as server:
        server.start()
        for found in opened(chromium, server):
            page = found.page
            choose(page, png("#808080", (8, 8)))
            page.wait_for_selector("#legend button")
            assert sorted(page.locator("#legend .name").all_inner_texts()) == ["amber", "green"]
            assert page.locator("#legend .share").all_inner_texts() == ["100.0 %"] * 2
            mask = page.locator(".panel canvas[role=img]").first
            pixel = "mask => [...mask.getContext('2d').getImageData(3, 3, 1, 1).data]"
            colors = json.loads((place / "site.json").read_text(encoding="utf-8"))["colors"]
            both = [round((one + other) / 2) for one, other in zip(colors[1], colors[4], strict=True)]
            assert mask.evaluate(pixel) == [*both, 255], "where two overlap, the mean of their colors"
            page.locator("#legend button").first.click()
            assert mask.evaluate(pixel) in ([*colors[1], 255], [*colors[4], 255])
            page.locator("#legend button").last.click()
            assert mask.evaluate(pixel)[3] == 0
            assert "agree on 100.0 % of the pixels" in page.locator("#agreement").inner_text()
        server.shutdown()


def test_a_picture_that_the_student_has_promised_not_to_answer_is_said_to_be_unsure(
    chromium: Browser, make_site: Any
) -> None:
    """Float answers what is as likely as that, 8 bits do not; each column by its own promise."""
    lax = {"temperature": 1.0, "threshold": 0.1, "least": 0.1}
    strict = {"temperature": 2.0, "threshold": 1.0, "least": 0.0}
    place = make_site(promises={"float32": strict, "int8": lax})
    with Server(from_folder(place, {"Content-Security-Policy": site.CONTENT_SECURITY_POLICY})) as server:
        server.start()
        for found in opened(chromium, server):
            choose(found.page, png("#ff0000"))
            found.page.wait_for_selector(".doubt:not([hidden])")
            first, second = (found.page.locator(".column").nth(place) for place in (0, 1))
            likeliest = first.locator(".rank .name").first.inner_text()
            assert first.locator(".doubt").inner_text().startswith(f"Not sure: {likeliest}, ")
            assert first.locator(".doubt").inner_text().endswith(" or 1 more?")  # of six classes five are named
            assert second.locator(".doubt").is_hidden()
            found.page.wait_for_function("document.getElementById('announcement').textContent.startsWith('Not sure')")
        server.shutdown()


def test_pixels_that_the_student_has_promised_not_to_answer_have_no_color(chromium: Browser, make_site: Any) -> None:
    nothing = {"temperature": 1.0, "threshold": 1.0}
    place = make_site(task="segmentation", exports=1, promises={"float32": nothing})
    with Server(from_folder(place, {"Content-Security-Policy": site.CONTENT_SECURITY_POLICY})) as server:
        server.start()
        for found in opened(chromium, server):
            choose(found.page, png("#ff0000"))
            found.page.wait_for_selector("#legend .unsure")
            assert found.page.locator("#legend li").all_inner_texts() == ["not sure\n100.0 %"]
            found.page.wait_for_function(
                "document.getElementById('announcement').textContent.endsWith('none of the classes')"
            )
        server.shutdown()


@pytest.mark.slow
def test_a_scene_that_is_reduced_is_said_to_be_none_that_was_promised_of(chromium: Browser, make_site: Any) -> None:
    lax = {"temperature": 1.0, "threshold": 0.01}
    place = make_site(task="segmentation", exports=1, promises={"float32": lax}, any_size=True)
    with Server(from_folder(place, {"Content-Security-Policy": site.CONTENT_SECURITY_POLICY})) as server:
        server.start()
        for found in opened(chromium, server):
            choose(found.page, png("#ff0000", (1600, 1200)))
            assert "Resized" not in found.page.locator("#agreement").inner_text()
            choose(found.page, png("#ff0000", (1800, 1350)))
            said = "Resized for the student, which sees 1632 × 1224 pixels at once. What it promises is not of such."  # noqa: RUF001
            assert said in found.page.locator("#agreement").inner_text()
        server.shutdown()
