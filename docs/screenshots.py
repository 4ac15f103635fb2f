"""Pictures of reports for the docs, of the demos' embedded images alone.

make demo && counterpoise demo segmentation
python docs/screenshots.py --digits runs/demo/report.html --scenes runs/demo-segmentation/report.html
"""

from __future__ import annotations

import argparse
import io
import shutil
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

IMAGES = Path(__file__).parent / "images"
WIDTH = 1160


def main() -> None:
    """Take all pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--digits", type=Path, required=True, help="report of the demo of digits")
    parser.add_argument("--scenes", type=Path, required=True, help="report of the demo of segmentation")
    options = parser.parse_args()
    program = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        take(browser, options.digits, "report-digits.png", "#answer", "light")
        take(browser, options.digits, "report-digits-balance.png", "#balance", "light")
        take(browser, options.digits, "report-digits-dark.png", "#failures", "dark", 1000)
        take(browser, options.scenes, "report-scenes.png", "#failures", "light", 1000)
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


if __name__ == "__main__":
    main()
