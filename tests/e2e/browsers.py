"""A browser that opens the gateway's pages, and has nothing to complain about."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

__all__ = ["MOST_BYTES", "PATIENT_MS", "check_accessible", "chromium", "watched_page"]

PATIENT_MS = 60_000
MOST_BYTES = 200_000
"""Of a page without its pictures."""


@contextmanager
def chromium() -> Iterator[Browser]:
    program = shutil.which("chromium")
    if program is None:
        pytest.fail("these tests need Chromium: apt-get install chromium (docs/shop.md)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program)
        yield browser
        browser.close()


@contextmanager
def watched_page(browser: Browser, url: str) -> Iterator[Page]:
    """A new visitor with a phone; fails at the end if the browser's log has an entry."""
    with browser.new_context(base_url=url, viewport={"width": 390, "height": 844}) as context:
        page = context.new_page()
        page.set_default_timeout(PATIENT_MS)
        expect.set_options(timeout=PATIENT_MS)
        problems: list[str] = []
        page.on("console", lambda one: problems.append(one.text) if one.type != "log" else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        yield page
        assert problems == []


def check_accessible(page: Page) -> None:
    found = Axe().run(page).response["violations"]
    serious = [one for one in found if one["impact"] in {"serious", "critical"}]
    assert serious == [], page.url
