"""The shop window: what a visitor sees, what the store learns of it, and what a page never does."""

import base64
import re
from collections.abc import Iterator
from functools import partial
from html import unescape
from pathlib import Path
from typing import Any

import httpx
import pytest

from newshelf.store.items import ItemColumns, ItemWrite
from newshelf.store.records import Feedback, TrafficSplit
from tests.fake_predictors import FAKE_IDS
from tests.gateways import Gateway, StartGateway
from tests.unit.gateway.browsing import HOSTILE, png, token_in
from tests.unit.gateway.fake_torchserve import FakeTorchServe, status

ON = {"enabled": "always", "views": True}
SPLIT = TrafficSplit(
    rollout="r1", salt="s", control="control00000", challenger="challenger00", share=0.5
)


@pytest.fixture
def gateway(start_gateway: StartGateway) -> Gateway:
    gateway = start_gateway(shop=ON, timeout_ms=5000)
    fill(gateway)
    return gateway


def fill(gateway: Gateway) -> None:
    gateway.store.items.put(
        [
            ItemWrite(
                ItemColumns(
                    id=name,
                    title=f"Ring {name}",
                    price=12.5,
                    product_type="Jewellery > Rings",
                    attributes={"season": "spring"},
                ),
                png(),
            )
            for name in FAKE_IDS
        ]
    )


@pytest.fixture
def browser(gateway: Gateway) -> Iterator[httpx.Client]:
    """No key, and cookies that are kept."""
    with httpx.Client(
        base_url=gateway.url, follow_redirects=True, timeout=30, trust_env=False
    ) as opened:
        yield opened


get = partial(httpx.get, timeout=30, trust_env=False)
post = partial(httpx.post, timeout=30, trust_env=False)


def links_in(page: httpx.Response, path: str) -> list[str]:
    return [unescape(one) for one in re.findall(rf'href="({path}\?[^"]+)"', page.text)]


def feedback(gateway: Gateway) -> list[Any]:
    return list(gateway.store.feedback())


def test_a_first_visit_shows_products_and_is_recorded_as_the_api_does(
    gateway: Gateway, browser: httpx.Client
) -> None:
    page = browser.get("/shop")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert "Ring item-" in page.text
    assert "12.50" in page.text
    shown = gateway.exposures()
    assert {one.kind for one in shown} == {None, "trending", "new"}
    (unit,) = {one.unit for one in shown}
    assert unit == f"shop-{browser.cookies['newshelf_visitor']}"
    assert len({one.request_id for one in shown}) == 3
    assert all(len(page.content) < 200_000 for page in (page, browser.get("/page-files/shop.css")))


def test_a_click_a_cart_and_a_purchase_are_the_visitors_history(
    gateway: Gateway, browser: httpx.Client, torchserve: FakeTorchServe
) -> None:
    browser.get("/shop")
    link = links_in(browser.get("/shop"), "/shop/item")[0]
    product = browser.get(link)
    assert browser.get(link).status_code == 200
    name = httpx.URL(link).params["id"]
    (clicked,) = feedback(gateway)
    unit = f"shop-{browser.cookies['newshelf_visitor']}"
    assert (clicked.event_type, clicked.item_id, clicked.unit) == ("click", name, unit)
    assert clicked.request_id == httpx.URL(link).params["from"]
    assert clicked.key_name == "shop window"

    form = {"token": token_in(product), "action": "add", "item": name}
    cart = browser.post("/shop/cart", data=form)
    assert str(cart.url).endswith("/shop/cart")
    assert f"Ring {name}" in cart.text
    assert gateway.exposures()[-1].kind == "cart"
    bought = browser.post("/shop/cart", data={"token": token_in(cart), "action": "buy"})
    assert "Thank you" in bought.text
    assert "newshelf_cart" not in browser.cookies
    kinds = [(one.event_type, one.item_id, one.value) for one in feedback(gateway)]
    assert kinds == [("click", name, None), ("cart", name, None), ("purchase", name, 12.5)]
    asked = len(torchserve.asked)
    browser.get("/shop")
    (feed, *_) = [one for one in torchserve.asked[asked:] if b'"cursor"' not in one.body]
    assert f'"history":["{name}"]'.encode() in feed.body


def test_nobody_is_thanked_for_a_purchase_that_is_not_recorded(
    start_gateway: StartGateway,
) -> None:
    # Less than the price, so that the purchase is refused.
    gateway = start_gateway(shop=ON, timeout_ms=5000, max_value=10)
    fill(gateway)
    with httpx.Client(
        base_url=gateway.url, follow_redirects=True, timeout=30, trust_env=False
    ) as browser:
        form = {"token": token_in(browser.get("/shop")), "action": "add", "item": FAKE_IDS[0]}
        cart = browser.post("/shop/cart", data=form)
        bought = browser.post("/shop/cart", data={"token": token_in(cart), "action": "buy"})
        assert bought.status_code == 422
        assert "Thank you" not in bought.text
        assert f"Ring {FAKE_IDS[0]}" in browser.get("/shop/cart").text
    assert [one.event_type for one in feedback(gateway)] == ["cart"]


def test_a_cart_is_changed_and_forgets_what_it_cannot_hold(browser: httpx.Client) -> None:
    token = token_in(browser.get("/shop"))
    for name in FAKE_IDS[:25]:
        browser.post("/shop/cart", data={"token": token, "action": "add", "item": name})
    cart = browser.get("/shop/cart")
    assert "Ring item-024" in cart.text
    assert "Ring item-000</span>" not in cart.text.partition("cross-sell")[0]
    form = {"token": token, "action": "remove", "item": "item-024"}
    lines = browser.post("/shop/cart", data=form).text.partition("cross-sell")[0]
    assert "Ring item-024" not in lines
    assert "Ring item-023" in lines
    unknown = {"token": token, "action": "add", "item": "no-such-thing"}
    assert "no-such-thing" not in browser.post("/shop/cart", data=unknown).text


def test_a_script_gets_the_count_and_not_another_page(
    gateway: Gateway, browser: httpx.Client
) -> None:
    form = {"token": token_in(browser.get("/shop")), "action": "add", "item": "item-001"}
    shown = len(gateway.exposures())
    answer = browser.post("/shop/cart", data=form, headers={"HX-Request": "true"})
    assert "It is in your cart" in answer.text
    assert "<b>1</b>" in answer.text
    # Nothing was recommended that nobody sees.
    assert len(gateway.exposures()) == shown


def test_the_feed_goes_on_without_repeating(browser: httpx.Client) -> None:
    page = browser.get("/shop")
    seen = set(links_in(page, "/shop/item")[-24:])
    (more,) = {one for one in links_in(page, "/shop") if "cursor" in one}
    page = browser.get(more)
    following = {httpx.URL(link).params["id"] for link in links_in(page, "/shop/item")}
    assert len(following) == 24
    assert following.isdisjoint(httpx.URL(link).params["id"] for link in seen)
    spoilt = browser.get("/shop?cursor=abc")
    assert spoilt.status_code == 200
    assert "it was not issued by this gateway" in spoilt.text


def test_search_by_a_sentence_and_by_a_picture(gateway: Gateway, browser: httpx.Client) -> None:
    found = browser.get("/shop/search", params={"q": "blue ring"})
    assert "Found for “blue ring”" in found.text
    assert gateway.exposures()[-1].kind == "search"
    form = {"token": token_in(found)}
    by_picture = browser.post("/shop/search", data=form, files={"image": png()})
    assert by_picture.status_code == 200
    assert "Like your picture" in by_picture.text
    assert links_in(by_picture, "/shop/item")
    nothing = browser.post("/shop/search", data=form, files={"image": b""})
    assert nothing.status_code == 200
    assert not links_in(nothing, "/shop/item")
    assert browser.get("/shop/search").status_code == 200


def test_categories_lead_to_their_products(gateway: Gateway, browser: httpx.Client) -> None:
    links = links_in(browser.get("/shop"), "/shop/category")
    names = {httpx.URL(one).params["name"] for one in links}
    assert names == {"Jewellery", "Home"}
    page = browser.get("/shop/category", params={"name": "Jewellery"})
    assert "<h1>Jewellery</h1>" in page.text
    assert gateway.exposures()[-1].items


def test_pictures_have_a_type_and_are_kept_by_browsers(
    gateway: Gateway, browser: httpx.Client, tmp_path: Path
) -> None:
    page = browser.get("/shop")
    address = unescape(re.findall(r'src="(/shop/picture[^"]+)"', page.text)[0])
    picture = browser.get(address)
    assert (picture.content, picture.headers["content-type"]) == (png(), "image/png")
    assert "immutable" in picture.headers["cache-control"]
    assert picture.headers["x-content-type-options"] == "nosniff"
    assert "max-age=60" in browser.get(address + "0").headers["cache-control"]

    page_file = tmp_path / "page.html"
    page_file.write_text("<script>alert(1)</script>")
    (tmp_path / "ring.jpg").write_bytes(png("red"))
    gateway.store.items.seed(
        [
            ItemWrite(ItemColumns(id="seeded", title="Seeded"), tmp_path / "ring.jpg"),
            ItemWrite(ItemColumns(id="html", title="HTML"), page_file),
            ItemWrite(ItemColumns(id="gone", title="Gone"), tmp_path / "gone.jpg"),
        ]
    )
    # The bytes decide, and not the name.
    seeded = browser.get("/shop/picture?id=seeded&v=1")
    assert (seeded.content, seeded.headers["content-type"]) == (png("red"), "image/png")
    for name in ("html", "gone", "nothing", "../events.db", str(page_file), "", "%00", "a" * 300):
        answer = browser.get(f"/shop/picture?id={name}")
        assert answer.status_code == 404, name
        assert "alert" not in answer.text
    gateway.store.items.delete("seeded")
    assert browser.get("/shop/picture?id=seeded&v=1").status_code == 404


@pytest.mark.parametrize(
    "path", ["/page-files/../pages.py", "/page-files/%2e%2e/pages.py", "/page-files/pages_zh.tsv"]
)
def test_only_the_named_files_are_served(browser: httpx.Client, path: str) -> None:
    # A path that leads out of the folder is one that needs a key.
    assert browser.get(path).status_code in {401, 404}
    assert browser.get("/page-files/htmx.min.js").headers["content-type"].startswith("text/java")


def test_a_hostile_title_is_only_a_title(gateway: Gateway, browser: httpx.Client) -> None:
    # The API cleans texts; another writer of the store may not.
    fields = {"title": HOSTILE, "description": HOSTILE, "brand": HOSTILE, "product_type": HOSTILE}
    columns = ItemColumns.model_construct(id="item-199", attributes={HOSTILE: HOSTILE}, **fields)
    gateway.store.items.put([ItemWrite(columns)])
    long = ItemColumns(id="long", title="x" * 10_000)
    gateway.store.items.put([ItemWrite(long)])
    product = browser.get("/shop/item?id=item-199")
    cart = {"token": token_in(product), "action": "add", "item": "item-199"}
    pages = [product, browser.post("/shop/cart", data=cart), browser.get("/shop/item?id=long")]
    for page in pages:
        assert page.status_code == 200
        assert "<script>alert" not in page.text
        assert "49 ${x}" not in page.text
    assert len(pages[-1].content) < 60_000


@pytest.mark.parametrize(
    "path",
    [
        "/shop?cursor={}",
        "/shop/search?q={}",
        "/shop/search?q={}&cursor={}",
        "/shop/category?name={}",
        "/shop/item?id={}",
        "/shop/item?id=item-001&from={}",
        "/shop?lang={}",
        "/shop/{}",
        "/shop?x={}",
    ],
)
def test_nothing_of_an_address_becomes_part_of_a_page(browser: httpx.Client, path: str) -> None:
    address = path.replace("{}", "".join(f"%{byte:02x}" for byte in HOSTILE.encode()))
    page = browser.get(address)
    assert page.headers["content-type"].startswith("text/html")
    assert "<script>alert" not in page.text
    assert not re.findall(r"<[a-z][^>]*\son\w+=", page.text)
    assert page.status_code in {200, 404}


def test_what_cookies_say_is_checked(gateway: Gateway, browser: httpx.Client) -> None:
    for cookies in (
        {"newshelf_visitor": "account-77", "newshelf_cart": "e30="},
        {"newshelf_visitor": "A" * 32, "newshelf_cart": "%%%", "newshelf_view": HOSTILE},
        {"newshelf_visitor": "0" * 31, "newshelf_cart": base64.b64encode(b"[1]").decode()},
    ):
        header = "; ".join(f"{name}={value}" for name, value in cookies.items())
        page = get(f"{gateway.url}/shop", headers={"Cookie": header})
        assert page.status_code == 200
        (new,) = [one for one in page.headers.get_list("set-cookie") if "visitor" in one]
        assert re.match(r"newshelf_visitor=[0-9a-f]{32};", new)
        assert all(word in new for word in ("HttpOnly", "SameSite=lax", "Path=/"))
    assert not any(one.unit == "account-77" for one in gateway.exposures())


def test_behind_a_proxy_with_tls_cookies_are_secure(start_gateway: StartGateway) -> None:
    proxied = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.1"}
    gateway = start_gateway(shop=ON, trusted_proxies=["127.0.0.1"])
    assert "Secure" in get(f"{gateway.url}/shop", headers=proxied).headers["set-cookie"]
    assert "Secure" not in get(f"{gateway.url}/shop").headers["set-cookie"]


@pytest.mark.parametrize("path", ["/shop/cart", "/shop/view", "/shop/search"])
def test_a_form_of_another_site_changes_nothing(
    gateway: Gateway, browser: httpx.Client, path: str
) -> None:
    other = get(f"{gateway.url}/shop")
    browser.get("/shop")
    for token in ("", "0" * 64, token_in(other), "\xe9"):
        form = {"token": token, "action": "add", "item": "item-001", "view": "newcomer"}
        answer = browser.post(path, data=form)
        assert answer.status_code == 403
        assert "open its page again" in answer.text
    assert "newshelf_cart" not in browser.cookies
    assert feedback(gateway) == []
    expired = post(f"{gateway.url}{path}", data=form)
    assert expired.status_code == 403


def test_pages_have_the_headers_that_browsers_heed(browser: httpx.Client) -> None:
    for path in ("/shop", "/shop/item?id=item-001", "/shop/nothing", "/shop/item?id=none"):
        page = browser.get(path)
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert page.headers["cache-control"] == "no-store"
        assert page.headers["x-frame-options"] == "DENY"
        assert page.headers["cross-origin-opener-policy"] == "same-origin"
        assert "<style" not in page.text
        assert not re.findall(r"<script(?! src=)", page.text)
        assert " style=" not in page.text


def test_a_visitor_has_no_rights_but_the_windows(gateway: Gateway, browser: httpx.Client) -> None:
    browser.get("/shop")
    for path in ("/v1/recommend", "/v1/feedback", "/v1/items", "/v1/rollouts", "/metrics"):
        assert browser.get(path).status_code == 401
    unit = f"shop-{browser.cookies['newshelf_visitor']}"
    assert browser.get(f"/v1/units/{unit}").status_code == 401


def test_an_address_has_a_rate(start_gateway: StartGateway) -> None:
    gateway = start_gateway(shop={**ON, "rate_per_s": 0.001})
    pages = [get(f"{gateway.url}/shop") for _ in range(2)]
    assert [page.status_code for page in pages] == [200, 429]
    assert "One moment" in pages[1].text
    assert int(pages[1].headers["retry-after"]) > 900


def test_without_the_setting_there_is_no_window(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    for path in ("/shop", "/shop/picture", "/page-files/shop.css"):
        assert get(gateway.url + path).status_code == 401
        assert gateway.http.get(path).status_code == 404


def test_it_speaks_chinese_by_header_link_and_from_then_on(browser: httpx.Client) -> None:
    page = browser.get("/shop", headers={"Accept-Language": "zh-CN,zh;q=0.9"})
    assert '<html lang="zh">' in page.text
    assert "购物车" in page.text
    english = browser.get(links_in(page, "/shop")[-1], headers={"Accept-Language": "zh"})
    assert '<html lang="en">' in english.text
    kept = browser.get("/shop/cart", headers={"Accept-Language": "zh"})
    assert '<html lang="en">' in kept.text
    error = get(
        f"{browser.base_url}/shop/item?id=x",
        headers={"Accept-Language": "zh"},
    )
    assert "没有找到" in error.text


def test_every_text_is_translated_and_no_translation_is_left_over() -> None:
    folder = Path(__file__).parents[3] / "newshelf" / "gateway"
    sources = "\n".join(one.read_text() for one in folder.glob("templates/**/*.html"))
    said = set(re.findall(r"""\bt\(\s*["']([^"']+)["']""", sources))
    rows = [line.split("\t") for line in (folder / "pages_zh.tsv").read_text().splitlines()]
    assert {english for english, _ in rows} == said
    for english, chinese in rows:
        assert re.findall(r"\{\w+\}", english) == re.findall(r"\{\w+\}", chinese)


def test_without_a_model_popular_products_are_shown(
    gateway: Gateway, browser: httpx.Client, torchserve: FakeTorchServe
) -> None:
    torchserve.always = status(503)
    page = browser.get("/shop")
    assert page.status_code == 200
    assert links_in(page, "/shop/item")
    assert "popular with other shoppers" in page.text
    product = browser.get("/shop/item?id=item-001")
    assert product.status_code == 200
    assert all(one.fallback for one in gateway.exposures())


def test_products_without_title_picture_or_row_have_a_card(
    start_gateway: StartGateway,
) -> None:
    gateway = start_gateway(shop=ON)
    gateway.store.items.put([ItemWrite(ItemColumns(id=FAKE_IDS[-2], description="A jade ring"))])
    gateway.store.items.put([ItemWrite(ItemColumns(id=FAKE_IDS[-3]), png())])
    page = get(f"{gateway.url}/shop")
    assert page.status_code == 200
    assert "no-picture" in page.text
    category = get(f"{gateway.url}/shop/category?name=Jewellery")
    assert category.status_code == 200
    assert links_in(category, "/shop/item")
    plain = get(f"{gateway.url}/shop/item?id={FAKE_IDS[-3]}")
    assert f"<h1>{FAKE_IDS[-3]}</h1>" in plain.text
    words = get(f"{gateway.url}/shop/item?id={FAKE_IDS[-2]}")
    assert "<h1>A jade ring</h1>" in words.text


def test_views_show_what_others_see_and_no_analysis_counts_them(
    start_gateway: StartGateway, torchserve: FakeTorchServe
) -> None:
    gateway = start_gateway((SPLIT,), shop=ON)
    fill(gateway)
    with httpx.Client(base_url=gateway.url, follow_redirects=True, timeout=30) as browser:
        page = browser.get("/shop")
        names = re.findall(r'<option value="([^"]*)"', page.text)
        assert names == ["", "newcomer", "control%3Ar1", "challenger%3Ar1"]
        for name, version in (
            ("newcomer", "control00000"),
            ("control%3Ar1", "control00000"),
            ("challenger%3Ar1", "challenger00"),
        ):
            before = len(gateway.exposures())
            form = {"token": token_in(page), "view": name}
            page = browser.post("/shop/view", data=form)
            assert f'value="{name}" selected' in page.text
            shown = gateway.exposures()[before:]
            assert {(one.model_version, one.rollout) for one in shown} == {(version, None)}
        page = browser.post("/shop/view", data={"token": token_in(page), "view": ""})
        assert " selected" not in page.text


def test_views_need_the_setting(start_gateway: StartGateway) -> None:
    gateway = start_gateway((SPLIT,), shop={"enabled": "always"})
    page = get(f"{gateway.url}/shop", headers={"Cookie": "newshelf_view=newcomer"})
    assert page.status_code == 200
    assert "/shop/view" not in page.text


def test_somebody_who_was_erased_comes_back_as_somebody_new(
    gateway: Gateway, browser: httpx.Client
) -> None:
    page = browser.get("/shop")
    visitor = browser.cookies["newshelf_visitor"]
    gateway.store.units.erase(f"shop-{visitor}")
    form = {"token": token_in(page), "action": "add", "item": "item-001"}
    assert browser.post("/shop/cart", data=form).status_code == 200
    assert browser.cookies["newshelf_visitor"] != visitor
    assert not [one for one in feedback(gateway) if isinstance(one, Feedback)]
