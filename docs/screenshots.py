"""Pictures of reports and of a site for the docs, of the demos' embedded images alone.

make demo && counterpoise demo segmentation
counterpoise try runs/demo-segmentation/teacher --evaluation_pictures 8 --out sites/digits-in-scenes
python docs/screenshots.py --digits runs/demo/report.html --scenes runs/demo-segmentation/report.html \\
    --site sites/digits-in-scenes
"""

from __future__ import annotations

import argparse
import io
import shutil
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

from counterpoise.system.server import Server, from_folder

IMAGES = Path(__file__).parent / "images"
WIDTH = 1160


def main() -> None:
    """Take all pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--digits", type=Path, help="report of the demo of digits")
    parser.add_argument("--scenes", type=Path, help="report of the demo of segmentation")
    parser.add_argument("--site", type=Path, help="site of its teacher")
    options = parser.parse_args()
    program = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        if options.digits:
            take(browser, options.digits, "report-digits.png", "#answer", "light")
            take(browser, options.digits, "report-digits-balance.png", "#balance", "light")
            take(browser, options.digits, "report-digits-dark.png", "#failures", "dark", 1000)
        if options.scenes:
            take(browser, options.scenes, "report-scenes.png", "#failures", "light", 1000)
        if options.site:
            try_it(browser, options.site, "try-scenes.png", "light", 1160)
            try_it(browser, options.site, "try-scenes-phone.png", "dark", 390)
        browser.close()


def take(browser: Any, report: Path, name: str, part: str, scheme: str, longest: int | None = None) -> None:
    """A picture of a part of a page, from its top, at most `longest` pixels high."""
    context = browser.new_context(viewport={"width": WIDTH, "height": 1000}, color_scheme=scheme)
    page = context.new_page()
    page.goto(report.resolve().as_uri())
    page.evaluate("document.querySelector('nav').style.position = 'static'")
    box = page.locator(part).bounding_box()
    height = min(box["height"] + 24, longest or box["height"] + 24)
    clip = {"x": 0, "y": box["y"] + 1, "width": WIDTH, "height": height}
    png = page.screenshot(full_page=True, clip=clip)
    context.close()
    IMAGES.mkdir(exist_ok=True)
    Image.open(io.BytesIO(png)).convert("RGB").save(IMAGES / name, optimize=True)


def try_it(browser: Any, site: Path, name: str, scheme: str, width: int) -> None:
    """A picture of a site that has answered a sample."""
    with Server(from_folder(site)) as server:
        server.start()
        context = browser.new_context(viewport={"width": width, "height": 700}, color_scheme=scheme)
        page = context.new_page()
        page.goto(server.address)
        page.wait_for_selector("#offline[data-ready]", timeout=60_000)
        page.get_by_role("button", name="Sample 4").click()
        page.wait_for_selector("body[data-answered='1']")
        page.mouse.move(0, 0)
        page.wait_for_timeout(500)
        png = page.screenshot(full_page=True)
        context.close()
        server.shutdown()
    Image.open(io.BytesIO(png)).convert("RGB").save(IMAGES / name, optimize=True)


if __name__ == "__main__":
    main()
