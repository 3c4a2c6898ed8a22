"""The HTML report of an evaluation in headless Chromium: complete without a network, readable at any width and scheme.

Chromium is the one on PATH; playwright drives it.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from command_line import Done

playwright = pytest.importorskip("playwright.sync_api")
np = pytest.importorskip("numpy")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install chromium")]

WIDTHS = (400, 800, 1400)
SCHEMES = ("light", "dark")
PLOTS = 4
READABLE = 4.5  # contrast ratio of text (WCAG 2, level AA); 3 of the parts of a picture
DISTINCT = 3.0
TEXT = "h1, h2, p, li, th, td, pre, figcaption"

# what sticks out on the right of the window, unless its own box scrolls
OUTSIDE = """
() => [...document.body.querySelectorAll("*")]
  .filter(e => !e.parentElement.closest(".scroll, pre, svg") && e.getBoundingClientRect().right > innerWidth + 1)
  .map(e => e.tagName + " " + e.className)
"""
# [text, its colour, the first opaque background behind it] of every element with text of its own
COLOURS = """
(selector) => [...document.querySelectorAll(selector)].filter(e => e.innerText.trim()).map(e => {
  let behind = e;
  while (behind.parentElement && getComputedStyle(behind).backgroundColor === "rgba(0, 0, 0, 0)")
    behind = behind.parentElement;
  const numbers = text => text.match(/[\\d.]+/g).slice(0, 3).map(Number);
  return [e.innerText, numbers(getComputedStyle(e).color), numbers(getComputedStyle(behind).backgroundColor)];
})
"""


@dataclass(frozen=True)
class Opened:
    """A page in a window, and everything that it said or asked for."""

    page: Any
    width: int
    scheme: str
    said: list[str]
    asked: list[str]


@pytest.fixture(scope="module", params=[(scheme, width) for scheme in SCHEMES for width in WIDTHS], ids=str)
def opened(request: pytest.FixtureRequest, report: tuple[Path, Done]) -> Iterator[Opened]:
    scheme, width = request.param
    said: list[str] = []
    asked: list[str] = []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM)
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda sent: asked.append(sent.url))
        page.goto((report[0] / "eval.html").as_uri())
        yield Opened(page, width, scheme, said, asked)
        browser.close()


def luminance(rgb: Any) -> Any:
    """Relative luminance (WCAG 2) of colours from 0 to 255, in the last axis."""
    part = np.asarray(rgb, float) / 255
    linear = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


def contrast(one: Any, other: Any) -> Any:
    a, b = luminance(one), luminance(other)
    return (np.maximum(a, b) + 0.05) / (np.minimum(a, b) + 0.05)


def pixels(element: Any) -> Any:
    """A picture of the element, as (rows, columns, RGB from 0 to 255)."""
    image = pytest.importorskip("matplotlib.image")
    return image.imread(io.BytesIO(element.screenshot()))[:, :, :3] * 255


def test_nothing_is_fetched_and_nothing_goes_wrong(opened: Opened) -> None:
    assert opened.asked == [opened.page.url]
    assert opened.said == []


def test_nothing_sticks_out_of_the_window(opened: Opened) -> None:
    assert opened.page.evaluate(OUTSIDE) == []
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= opened.width


def test_the_page_follows_the_scheme_and_its_text_is_readable(opened: Opened) -> None:
    found = opened.page.evaluate(COLOURS, TEXT)
    assert len(found) > 100
    assert {text: ratio for text, ink, paper in found if (ratio := contrast(ink, paper)) < READABLE} == {}
    paper = luminance(found[0][2])
    assert paper > 0.9 if opened.scheme == "light" else paper < 0.1


def test_every_plot_is_large_enough_and_stands_out(opened: Opened) -> None:
    plots = opened.page.query_selector_all("figure svg")
    assert len(plots) == PLOTS
    for plot in plots:
        box = plot.bounding_box()
        assert box["width"] > 0.7 * min(opened.width, 500)
        assert box["height"] > 0.2 * box["width"]
        seen = pixels(plot)
        assert np.mean(contrast(seen, seen[0, 0]) >= DISTINCT) > 0.004  # lines, letters and marks; the corner is empty
