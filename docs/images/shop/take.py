"""Pictures of docs/shop.md: ``python docs/images/shop/take.py http://127.0.0.1:8000``.

The shop window must serve the sample, with views switched on. Needs Debian's chromium, and a font
with Chinese characters (fonts-wqy-microhei).
"""

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

FOLDER = Path(__file__).parent
SIZES = ((1280, 900), (390, 844))
SENTENCE = "silver ring under 200"
QUALITY = 82


def take(page: Page, name: str, width: int) -> None:
    """Write a picture of what the window shows."""
    page.wait_for_load_state("networkidle")
    data = page.screenshot()
    with Image.open(io.BytesIO(data)) as picture:
        picture.convert("RGB").save(FOLDER / f"{name}-{width}.webp", quality=QUALITY, method=6)


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


def main(url: str) -> None:
    """Take all pictures."""
    program = shutil.which("chromium")
    if program is None:
        sys.exit("this needs Chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program)
        for width, height in SIZES:
            visit(browser, url, width, height)
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
