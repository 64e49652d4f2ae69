"""The console in a browser: what a person does there, and that every page can be used.

The models are fakes; gateway, store, shop window and browser are real.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Response, expect

from newshelf.store.items import ItemColumns, ItemWrite
from tests.e2e.browsers import MOST_BYTES, check_accessible, chromium, watched_page
from tests.fake_predictors import FAKE_IDS
from tests.gateways import Gateway, StartGateway
from tests.unit.gateway.browsing import LOOKS, begin, png, rollout_of
from tests.unit.gateway.units import do

pytestmark = pytest.mark.xdist_group("console")

ON = {"enabled": "always"}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture
def gateway(start_gateway: StartGateway) -> Gateway:
    gateway = start_gateway(shop=ON, console=ON)
    products = [ItemWrite(ItemColumns(id=name, title=f"Ring {name}"), png()) for name in FAKE_IDS]
    gateway.store.items.put(products)
    gateway.store.items.published("host", "1.0", 10**6)
    begin(gateway)
    for look in LOOKS:
        gateway.store.rollouts.add_snapshot("spring", look)
    do(gateway, "ann", "item-199")
    return gateway


@pytest.fixture
def page(browser: Browser, gateway: Gateway) -> Iterator[Page]:
    """Signed in until the test ends."""
    with watched_page(browser, gateway.url) as page:
        page.goto("/console")
        key = gateway.http.headers["Authorization"].removeprefix("Bearer ")
        page.get_by_label("A key with the scope admin").fill(key)
        check_accessible(page)
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("heading", name="Overview")).to_be_visible()
        yield page
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_label("A key with the scope admin")).to_be_visible()


def test_a_product_that_is_added_is_in_the_shop(
    gateway: Gateway, page: Page, tmp_path: Path
) -> None:
    picture = tmp_path / "lantern.png"
    picture.write_bytes(png("red"))
    page.get_by_role("link", name="Shelf", exact=True).click()
    fields = {"Id": "lantern", "Title": "A red lantern", "Brand": "Nightjar", "Price": "80"}
    for name, text in fields.items():
        page.get_by_label(name, exact=True).fill(text)
    page.get_by_label("Picture").set_input_files(picture)
    check_accessible(page)
    page.get_by_role("button", name="Add").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("A red lantern")
    expect(page.locator("#live")).to_contain_text("in all answers")
    check_accessible(page)
    page.goto("/shop/item?id=lantern")
    shown = page.get_by_role("img", name="A red lantern")
    expect(shown).to_be_visible()
    assert shown.evaluate("one => one.complete && one.naturalWidth > 0")

    page.goto("/console/item?id=lantern")
    page.get_by_label("Price").fill("75")
    page.get_by_label("Stock").select_option("out_of_stock")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("dd", has_text="2, ")).to_be_visible()
    page.goto("/shop/item?id=lantern")
    expect(page.get_by_text("Sold out")).to_be_visible()
    expect(page.locator(".item .price")).to_have_text("75.00")
    page.goto("/console")


def test_a_rollout_is_paused_and_rolled_back(gateway: Gateway, page: Page) -> None:
    page.get_by_role("link", name="spring").click()
    expect(page.get_by_role("img", name="Chart of ctr")).to_be_visible()
    check_accessible(page)
    page.get_by_role("button", name="Pause").click()
    status = page.get_by_role("status")
    expect(status).to_contain_text("paused by the key tests")
    # Without a click, the page learns what somebody else does.
    gateway.http.post("/v1/admin/rollouts/spring", json={"command": "resume"}).raise_for_status()
    expect(status).to_contain_text("resumed by the key tests")
    roll_back = page.locator("form", has=page.get_by_role("button", name="Roll back"))
    roll_back.get_by_role("textbox").fill("1.0")
    roll_back.get_by_role("button").click()
    expect(status).to_contain_text("aborted by the key tests")
    check_accessible(page)
    assert rollout_of(gateway).phase == "aborted"


def test_every_page_is_small_and_accessible(gateway: Gateway, page: Page) -> None:
    answers: list[Response] = []
    # Playwright marks the function, and cannot mark a method of a list.
    page.on("response", lambda answer: answers.append(answer))  # noqa: PLW0108
    for path in (
        "", "/shelf", "/shelf?q=ring", "/item?id=item-199", "/rollout?name=spring", "/shopper",
        "/shopper?unit=ann", "/rules", "/retrainings", "/keys", "/keys?lang=zh",
    ):  # fmt: skip
        answers.clear()
        page.goto(f"/console{path}")
        check_accessible(page)
        # A redirection has no body.
        files = [one for one in answers if one.ok and one.request.resource_type != "image"]
        assert 0 < sum(len(one.body()) for one in files) <= MOST_BYTES, path
    page.goto("/console?lang=en")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()


def test_without_scripts_links_and_forms_do(browser: Browser, gateway: Gateway) -> None:
    with browser.new_context(base_url=gateway.url, java_script_enabled=False) as context:
        page = context.new_page()
        page.goto("/console/rollout?name=spring")
        key = gateway.http.headers["Authorization"].removeprefix("Bearer ")
        page.get_by_label("A key with the scope admin").fill(key)
        page.get_by_role("button", name="Sign in").click()
        page.get_by_role("link", name="spring").click()
        page.get_by_role("button", name="Pause").click()
        expect(page.get_by_role("status")).to_contain_text("paused by the key tests")
