"""`python -m docs.picture PAGE`: the README's picture of the explorer, from a page that `make explore` built.

It shows what its caption says: the features of the archetypal dictionary that lead in a topic, and the one that tells
it best with the anchors it is made of and its contexts.
"""

import argparse
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser

PICTURE = Path(__file__).with_name("explorer.png")
TOPIC = "sport"
SIZE = {"width": 1010, "height": 860}
"""Pixels of the page: GitHub shows a README about this wide, so that text keeps its size."""
SHARPNESS = 1.2
"""Pixels of the picture to one of the page; more would take more than 300 kB."""


def shot(browser: "Browser", page: Path, topic: str = TOPIC) -> bytes:
    """PNG of the explorer at `page`, in light mode.

    Raises LookupError where it has no archetypal dictionary, or that no feature of `topic`.
    """
    context = browser.new_context(viewport=SIZE, device_scale_factor=SHARPNESS, color_scheme="light")
    tab = context.new_page()
    tab.goto(page.absolute().as_uri())
    tab.wait_for_selector("[data-ready=true]")
    key = tab.evaluate("archsae.index.about.dictionaries.find(each => each.kind === 'archetypal')?.key")
    if key is None:
        raise LookupError(f"{page} shows no archetypal dictionary")
    tab.click(f".ax-tabs button[data-key='{key}']")
    tab.select_option(".ax-place", "topic")
    tab.fill(".ax-search", topic)
    if not tab.locator(".tabulator-row").count():
        raise LookupError(f"{page}: no feature of {key} leads in a topic {topic!r}")
    tab.locator(".tabulator-row").first.click()
    tab.wait_for_selector(".ax-anchor")
    tab.evaluate("document.querySelector('.ax-anchor').closest('section').scrollIntoView()")
    picture = tab.screenshot(animations="disabled")
    context.close()
    return picture


def main() -> None:
    """Write `PICTURE`."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(prog="python -m docs.picture", description=__doc__.splitlines()[0])
    parser.add_argument("page", type=Path, help="index.html of an explorer")
    page = parser.parse_args().page
    options = ["--no-sandbox"] if os.geteuid() == 0 else []  # as root, Chromium starts only without it
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=options)
        PICTURE.write_bytes(shot(browser, page))
        browser.close()
    sys.stdout.write(f"{PICTURE}: {PICTURE.stat().st_size / 1000:.0f} kB\n")


if __name__ == "__main__":
    main()
