"""The report as a browser shows it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flowbench.report import write_report
from flowbench.store import Run

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.browser

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

# Anything that sticks out of the page, other than inside what scrolls or inside a figure.
OVERFLOWING = """[...document.querySelectorAll("body *")]
  .filter(e => !e.closest(".scroll, .picture, svg *") && e.getBoundingClientRect().right > innerWidth + 1)
  .map(e => e.outerHTML.slice(0, 80))"""
SIZES = """[...document.querySelectorAll("svg, img")].map(e => {
  const box = e.getBoundingClientRect(); return [box.width, box.height] })"""
# Text of a figure that lies beyond the figure's own edges is clipped.
CLIPPED = """[...document.querySelectorAll("svg")].flatMap(svg => {
  const frame = svg.getBoundingClientRect();
  return [...svg.querySelectorAll("text")].filter(text => {
    const box = text.getBoundingClientRect();
    return box.left < frame.left - 1 || box.right > frame.right + 1
        || box.top < frame.top - 1 || box.bottom > frame.bottom + 1;
  }).map(text => svg.getAttribute("aria-label") + ": " + text.textContent);
})"""


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def report(run_writer: Callable[..., Run], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    name = "a very long name of a data set " * 5 + "<script>document.title = 'run'</script>"
    wide = {"dataset": "wide", "sha256": "cd" * 32, "features": 8, "truth": False, "test_rows": 60}
    runs = [
        run_writer(folder, model, seed=seed) for model in ("cnf", "planar", "gaussian") for seed in (0, 1)
    ]
    runs += [run_writer(folder, model, **wide) for model in ("cnf", "gaussian")]
    runs += [run_writer(folder, name="long", dataset=name, columns=("x" * 90, "$y$ <b>"), truth=False)]
    runs += [run_writer(folder, name="lost", results=False, info={"error": "the solver failed " * 10})]
    return write_report(runs, folder / "report").html


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_page_fits_and_asks_for_nothing(browser: Any, report: Path, width: int, scheme: str) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    requests: list[str] = []
    messages: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on("dialog", lambda dialog: messages.append(dialog.message))
    page.goto(report.as_uri())
    assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
    assert page.evaluate(OVERFLOWING) == []
    sizes = page.evaluate(SIZES)
    assert len(sizes) > 30
    assert all(width > 20 and height > 20 for width, height in sizes)
    assert page.evaluate(CLIPPED) == []
    assert page.evaluate("document.scripts.length") == 0
    assert [url for url in requests if not url.startswith("data:")] == [report.as_uri()]
    assert messages == []
    page.close()
