"""Pages in headless Chromium: on a phone and a desk, light, dark and printed, and by the rules of axe.

Needs the program `chromium` (`make browser` installs Debian's) and the packages `playwright` and `axe-playwright-python`;
without one of them it is skipped. `PAGES_TO=FOLDER` keeps the pictures to be looked at.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from preprocess_jobs import DATA, TOKENIZER

import sft_shards
from sft_shards.preprocess.directories.report import report

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="it brings axe, which judges accessibility")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH; 'make browser' installs it"),
]
QUIET = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
PHONE, DESK = {"width": 360, "height": 780}, {"width": 1280, "height": 900}


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a directory with warnings, rejects, long names, hostile texts and long conversations."""
    folder = tmp_path_factory.mktemp("report")
    rows = [{"instruction": "</pre><h1>" * 30, "output": "<b>\u202e " + "word " * 4000}]
    rows += [{"instruction": "a" * 500, "output": "yes"}] * 9 + [{"instruction": "", "output": ""}] * 5
    (folder / ("long-name" * 20 + ".json")).write_text(json.dumps(rows), "utf-8")
    inputs = [*folder.glob("*.json"), DATA / "chatml_zh.jsonl", DATA / "openai_tr.jsonl"]
    sft_shards.run(*inputs, output=folder / "out", tokenizer=TOKENIZER, valid_fraction=0.1, workers=1)
    (folder / "page.html").write_text(report(folder / "out"), "utf-8")
    return folder / "page.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


def picture(page: Any, name: str, folder: Path) -> bytes:
    kept = Path(os.environ.get("PAGES_TO") or folder)
    return page.screenshot(path=kept / f"{name}.png", full_page=True)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
def test_it_can_be_read_by_everybody(
    browser: Any, page_file: Path, tmp_path: Path, scheme: str, size: dict[str, int]
) -> None:
    page = browser.new_page(viewport=size, color_scheme=scheme)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.goto(page_file.as_uri())
    assert asked == [page_file.as_uri()], "it loads nothing else"
    assert said == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing is wider than the screen"
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0] < 128")
    assert dark == (scheme == "dark")
    lines = page.evaluate("getComputedStyle(document.querySelector('pre mark')).textDecorationLine")
    assert lines == "underline", "colour is not the only sign"
    assert len(picture(page, f"{scheme}-{size['width']}", tmp_path)) > 10_000
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    found = axe.Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    page.close()


def test_all_of_it_is_printed(browser: Any, page_file: Path, tmp_path: Path) -> None:
    page = browser.new_page(viewport={"width": 720, "height": 1050})  # A4 without its margins
    page.goto(page_file.as_uri())
    closed = "[...document.querySelectorAll('details.card pre')].filter(one => !one.checkVisibility({contentVisibilityAuto: true})).length"
    assert page.evaluate(closed) == 19
    page.emulate_media(media="print")
    assert page.evaluate(closed) == 0
    assert not page.locator("nav").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (
        "nothing is cut at the edge of the paper"
    )
    picture(page, "print", tmp_path)
    assert page.pdf(format="A4", print_background=True).startswith(b"%PDF")
    page.close()


def test_it_is_used_by_the_keyboard(browser: Any, page_file: Path) -> None:
    page = browser.new_page(viewport=DESK)
    page.goto(page_file.as_uri())
    second = page.locator("details.card").nth(1)
    second.locator("summary").focus()
    page.keyboard.press("Enter")
    assert second.locator("pre").is_visible()
    page.close()
