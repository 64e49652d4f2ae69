"""Pictures of docs/shop.md: ``python docs/images/shop/take.py http://127.0.0.1:8000``.

The shop window must serve the sample, with views switched on. Needs Debian's chromium, and a font
with Chinese characters (fonts-wqy-microhei). Prints when each page was first painted.

Pictures of the tutorials: ``python docs/images/shop/take.py ADDRESS FILE.webp [SELECTOR]`` takes
one of any page, or of a part of it.

Pictures of the console: ``python docs/images/shop/take.py ADDRESS FILE.key``, with a key of the
scope admin, while a rollout runs.
"""

import io
import shutil
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

FOLDER = Path(__file__).parents[1]
SIZES = ((1280, 900), (390, 844))
SENTENCE = "silver ring under 200"
SHOPPER = "visitor-1"
"""Of whom the console's pictures tell; it should have a history."""
QUALITY = 82
PAINTED = """() => new Promise(painted => new PerformanceObserver(
  entries => painted(entries.getEntries()[0].startTime)
).observe({type: "paint", buffered: true}))"""
TIMES = 9


def take(page: Page, name: str, width: int) -> None:
    """Write a picture of what the window shows."""
    page.wait_for_load_state("networkidle")
    name = name if "/" in name else f"shop/{name}"
    write(page.screenshot(), FOLDER / f"{name}-{width}.webp")


def write(data: bytes, path: Path) -> None:
    """Write a screenshot in less space."""
    with Image.open(io.BytesIO(data)) as picture:
        picture.convert("RGB").save(path, quality=QUALITY, method=6)


def take_one(browser: Browser, address: str, path: Path, selector: str = "") -> None:
    """Write a picture of the top of a page, or of the first part that the selector finds."""
    width, height = SIZES[0]
    page = browser.new_page(viewport={"width": width, "height": height}, locale="en")
    page.goto(address)
    page.wait_for_load_state("networkidle")
    write(page.locator(selector).first.screenshot() if selector else page.screenshot(), path)


def visit_console(browser: Browser, url: str, key: str, width: int, height: int) -> None:
    """Walk through the console as somebody who signs in."""
    with browser.new_context(
        base_url=url, viewport={"width": width, "height": height}, locale="en"
    ) as context:
        page = context.new_page()
        page.goto("/console")
        take(page, "console/sign-in", width)
        page.get_by_label("A key with the scope admin").fill(key)
        page.get_by_role("button", name="Sign in").click()
        page.get_by_role("heading", name="Overview").wait_for()
        take(page, "console/overview", width)
        rollout = page.locator("th a").first.get_attribute("href")
        page.goto("/console/shelf?q=ring")
        take(page, "console/shelf", width)
        page.locator("th a").first.click()
        page.get_by_label("Price").wait_for()
        take(page, "console/item", width)
        for name, path in (
            ("rollout", rollout),
            ("shopper", f"/console/shopper?unit={SHOPPER}"),
            ("rules", f"/console/rules?placement=home&unit={SHOPPER}"),
            ("retrainings", "/console/retrainings"),
            ("keys", "/console/keys"),
            ("rollout-zh", f"{rollout}&lang=zh"),
        ):
            page.goto(str(path))
            take(page, f"console/{name}", width)


def print_paints(browser: Browser, url: str) -> None:
    """Print the milliseconds from a request to the first paint."""
    with browser.new_context(base_url=url, locale="en") as context:
        page = context.new_page()
        page.goto(f"/shop/search?q={SENTENCE}")
        item = str(page.locator(".card > a").first.get_attribute("href"))
        for path in ("/shop", f"/shop/search?q={SENTENCE}", item, "/shop/cart"):
            paints = []
            for _ in range(TIMES):
                page.goto(path)
                paints.append(page.evaluate(PAINTED))
            median, longest = statistics.median(paints), max(paints)
            print(f"{path.partition('?')[0]}: {median:.0f} ms, at most {longest:.0f} ms")


def visit(browser: Browser, url: str, width: int, height: int) -> None:
    """Walk through the shop as a new visitor."""
    with browser.new_context(
        base_url=url, viewport={"width": width, "height": height}, locale="en"
    ) as context:
        page = context.new_page()
        for place in range(3):
            page.goto(f"/shop/search?q={SENTENCE}")
            page.locator(".card > a").nth(place).click()
            page.get_by_role("button", name="Put into the cart").click()
            page.get_by_role("status").get_by_role("link").wait_for()
        page.goto("/shop")
        take(page, "home", width)
        page.locator(".feed .card summary").first.click()
        page.evaluate("document.querySelector('#feed').scrollIntoView()")
        take(page, "feed", width)
        page.goto(f"/shop/search?q={SENTENCE}")
        take(page, "search", width)
        page.locator(".card > a").nth(4).click()
        take(page, "item", width)
        page.goto("/shop/cart")
        take(page, "cart", width)
        page.get_by_role("navigation").get_by_role("link").first.click()
        page.wait_for_url("**/category**")
        take(page, "category", width)
        address = page.locator(".card img").first.get_attribute("src")
        image = context.request.get(str(address)).body()
        page.goto("/shop/search")
        page.get_by_label("Search by a picture").set_input_files(
            {"name": "picture.png", "mimeType": "image/png", "buffer": image}
        )
        page.get_by_role("heading", name="Like your picture").wait_for()
        take(page, "picture", width)
        page.goto("/shop/item?id=unknown")
        take(page, "unknown", width)
        page.goto("/shop?lang=zh")
        take(page, "home-zh", width)


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Start Debian's Chromium."""
    program = shutil.which("chromium")
    if program is None:
        sys.exit("this needs Chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program)
        yield browser
        browser.close()


def main(address: str, path: str = "", selector: str = "") -> None:
    """Take all pictures of the shop window or, with a key, of the console; or one."""
    with open_browser() as browser:
        if path.endswith(".key"):
            for width, height in SIZES:
                visit_console(browser, address, Path(path).read_text().strip(), width, height)
                # One address may not sign in more often.
                time.sleep(6)
            return
        if path:
            take_one(browser, address, Path(path), selector)
            return
        print_paints(browser, address)
        for width, height in SIZES:
            visit(browser, address, width, height)


if __name__ == "__main__":
    main(*sys.argv[1:])
