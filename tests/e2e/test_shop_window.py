"""The shop window in a browser, before a real model: what a visitor does changes what is shown."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from playwright.sync_api import (
    Browser,
    Locator,
    Page,
    Response,
    TimeoutError,  # noqa: A004
    expect,
)

from newshelf.catalog.catalog import Catalog
from newshelf.pipeline.serve import Served
from newshelf.pipeline.workspace import ROOT, Workspace
from tests.e2e.browsers import MOST_BYTES, PATIENT_MS, check_accessible, chromium, watched_page

PAINTED = """() => new Promise(painted => new PerformanceObserver(
  entries => painted(entries.getEntries()[0].startTime)
).observe({type: "paint", buffered: true}))"""
KEPT = ROOT / "test-reports" / "shop"
"""Not in git; whoever runs the tests may keep it. A busy machine breaks every limit of time."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture
def page(browser: Browser, server: Served) -> Iterator[Page]:
    assert server.state.gateway is not None
    with watched_page(browser, server.state.gateway.url) as opened:
        yield opened


def until(shown: Locator, act: Callable[[], object], *, patient_ms: int = 5_000) -> None:
    """Do something until a model answers: on a busy machine, the fallback may."""
    for _ in range(PATIENT_MS // patient_ms):
        act()
        with suppress(TimeoutError):
            shown.first.wait_for(timeout=patient_ms)
            return
    expect(shown.first).to_be_visible()


def test_what_a_visitor_does_changes_what_is_shown(page: Page) -> None:
    answers: list[Response] = []
    # Playwright marks the function, and cannot mark a method of a list.
    page.on("response", lambda answer: answers.append(answer))  # noqa: PLW0108
    page.goto("/shop")
    expect(page.get_by_role("heading", name="Popular", exact=True)).to_be_visible()
    check_accessible(page)
    files = [one for one in answers if one.request.resource_type != "image"]
    assert {"document", "script", "stylesheet"} <= {one.request.resource_type for one in files}
    assert sum(len(one.body()) for one in files) <= MOST_BYTES
    painted_ms = page.evaluate(PAINTED)
    KEPT.mkdir(parents=True, exist_ok=True)
    (KEPT / "first-paint.json").write_text(json.dumps({"/shop": painted_ms}))

    page.get_by_role("searchbox").fill("silver ring")
    page.get_by_role("searchbox").press("Enter")
    expect(page.get_by_role("heading", level=1)).to_contain_text("silver ring")
    check_accessible(page)
    until(page.locator(".card"), page.reload)
    page.locator(".card a").first.click()
    expect(page.get_by_role("heading", name="Similar")).to_be_visible()
    title = page.get_by_role("heading", level=1).inner_text()
    check_accessible(page)
    page.get_by_role("button", name="Put into the cart").click()
    expect(page.get_by_role("status")).to_contain_text("in your cart")
    expect(page.locator("#cart-link b")).to_have_text("1")
    assert "/shop/item" in page.url

    page.locator("#cart-link").click()
    expect(page.locator(".lines")).to_contain_text(title)
    expect(page.get_by_role("heading", name="Goes well with it")).to_be_visible()
    check_accessible(page)

    for_you = page.get_by_role("heading", name="For you", exact=True)
    until(for_you, lambda: page.goto("/shop"))
    page.locator("section", has=page.locator("#feed")).get_by_text("Why this?").first.click()
    expect(page.locator("details[open] p")).not_to_be_empty()

    page.goto("/shop/cart")
    page.get_by_role("button", name="Buy").click()
    expect(page.get_by_text("Thank you")).to_be_visible()
    expect(page.locator("#cart-link b")).to_have_text("0")


def test_a_picture_is_dropped_and_the_feed_goes_on(page: Page, catalog: Catalog) -> None:
    page.goto("/shop")
    shown = page.locator(".feed .card")
    expect(shown).to_have_count(24)
    page.locator("footer").scroll_into_view_if_needed()
    expect(shown.nth(24)).to_be_visible()
    links = [link.get_attribute("href") for link in shown.locator("> a").all()]
    ids = [str(link).partition("&")[0] for link in links]
    assert len(set(ids)) == len(ids)

    picture = next(path for row in range(9) if (path := catalog.image_path(row)) is not None)
    dropped = page.get_by_label("Search by a picture")
    heading = page.get_by_role("heading", name="Like your picture")
    found = page.locator("main", has=heading).locator(".card")
    until(found, lambda: dropped.set_input_files(Path(picture)))
    check_accessible(page)


def test_what_is_added_in_the_console_is_found_in_the_shop(
    page: Page, workspace: Workspace
) -> None:
    page.goto("/console")
    key = (workspace.gateway / "local.key").read_text().strip()
    page.get_by_label("A key with the scope admin").fill(key)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("link", name="Shelf", exact=True).click()
    page.get_by_label("Id", exact=True).fill("quokka")
    page.get_by_label("Title", exact=True).fill("Quokka lantern")
    page.get_by_role("button", name="Add").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Quokka lantern")
    added_s = time.monotonic()
    page.goto("/shop/search?q=quokka")
    until(page.locator(".card", has_text="Quokka lantern"), page.reload, patient_ms=250)
    KEPT.mkdir(parents=True, exist_ok=True)
    measured = {"from the console to the shop, s": time.monotonic() - added_s}
    (KEPT / "console-to-shop.json").write_text(json.dumps(measured))
    removed = page.request.delete("/v1/items/quokka", headers={"Authorization": f"Bearer {key}"})
    assert removed.ok


def test_keyboard_language_and_views(page: Page) -> None:
    page.goto("/shop")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    page.get_by_label("See the shop as").select_option("A known shopper")
    page.get_by_role("button", name="Show", exact=True).click()
    expect(page.locator("option[selected]")).to_have_text("A known shopper")
    page.get_by_role("link", name="中文").click()
    expect(page.locator("html")).to_have_attribute("lang", "zh")
    check_accessible(page)


def test_without_scripts_links_and_forms_do(browser: Browser, server: Served) -> None:
    assert server.state.gateway is not None
    with browser.new_context(
        base_url=server.state.gateway.url, java_script_enabled=False
    ) as context:
        page = context.new_page()
        page.set_default_timeout(PATIENT_MS)
        page.goto("/shop")
        page.get_by_role("link", name="Show more").click()
        page.wait_for_url("**cursor=**")
        page.locator(".card a").first.click()
        page.get_by_role("button", name="Put into the cart").click()
        page.wait_for_url("**/shop/cart")
        page.locator(".lines button").click()
        expect(page.get_by_text("Your cart is empty")).to_be_visible()
