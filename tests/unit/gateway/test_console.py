"""The console: who gets in, what its pages show and change, and what a text never becomes."""

import json
import re
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from html import unescape
from pathlib import Path

import httpx
import pytest

from newshelf.files import write_json
from newshelf.gateway.console import ROUTES
from newshelf.gateway.keys import SCOPES, KeyFile, Scope
from newshelf.server.program import GatewayPlan
from newshelf.store.items import ItemColumns, ItemWrite
from tests.fake_predictors import FAKE_IDS
from tests.gateways import Gateway, StartGateway
from tests.unit.gateway.browsing import HOSTILE, LOOK, begin, png, rollout_of, token_in
from tests.unit.gateway.fake_torchserve import FakeTorchServe, status
from tests.unit.gateway.units import do

ON = {"enabled": "always"}
SIGN_IN = "/console/sign-in"
get = partial(httpx.get, timeout=30, trust_env=False)
post = partial(httpx.post, timeout=30, trust_env=False)


@pytest.fixture
def gateway(start_gateway: StartGateway) -> Gateway:
    gateway = start_gateway(console=ON)
    gateway.store.items.put(
        [
            ItemWrite(ItemColumns(id=name, title=f"Ring {name}", price=12.5), png())
            for name in FAKE_IDS[-30:]
        ]
    )
    return gateway


def key_of(gateway: Gateway) -> str:
    return gateway.http.headers["Authorization"].removeprefix("Bearer ")


def add_key(plan: GatewayPlan, scopes: Sequence[Scope]) -> str:
    """Before the gateway starts, which would take a moment to read it."""
    return KeyFile(plan.api_keys).add(
        "other", now=datetime.now(UTC), expires=None, rate_per_s=1000, scopes=scopes
    )


def browser_of(gateway: Gateway) -> httpx.Client:
    return httpx.Client(base_url=gateway.url, follow_redirects=True, timeout=30, trust_env=False)


def sign_in(browser: httpx.Client, key: str) -> httpx.Response:
    return browser.post(SIGN_IN, data={"token": token_in(browser.get(SIGN_IN)), "key": key})


@pytest.fixture
def browser(gateway: Gateway) -> Iterator[httpx.Client]:
    """Signed in."""
    with browser_of(gateway) as opened:
        assert sign_in(opened, key_of(gateway)).status_code == 200
        yield opened


def send(browser: httpx.Client, path: str, page: str = "/console", **form: str) -> httpx.Response:
    return browser.post(path, data={"token": token_in(browser.get(page)), **form})


def test_no_page_and_no_action_answers_without_a_session(gateway: Gateway) -> None:
    stale = f"newshelf_console={'0' * 64}.{'0' * 64}"
    form = {"token": "0" * 64, "name": "spring", "command": "abort", "id": "item-199"}
    key = gateway.http.headers["Authorization"]
    # A key of the API opens no page: no other site can make a browser send one.
    refused = [{}, {"Cookie": stale}, {"Cookie": HOSTILE.encode().hex()}, {"Authorization": key}]
    with browser_of(gateway) as browser:
        browser.follow_redirects = False
        for method, path, _ in ROUTES:
            data = form if method == "POST" else None
            for headers in refused:
                answer = browser.request(method, f"/console{path}", data=data, headers=headers)
                assert answer.status_code == (303 if method == "GET" else 401), path
                assert answer.headers.get("location") == (SIGN_IN if method == "GET" else None)


def test_a_form_of_another_site_changes_nothing(gateway: Gateway, browser: httpx.Client) -> None:
    before = gateway.store.items.last_seq()
    for path in [path for method, path, _ in ROUTES if method == "POST"]:
        for token in ("", "0" * 64, token_in(get(gateway.url + SIGN_IN)), "\xe9"):
            form = {"token": token, "id": "item-199", "price": "1", "unit": "u", "confirm": "u"}
            assert browser.post(f"/console{path}", data=form).status_code == 403, path
    assert gateway.store.items.last_seq() == before
    assert browser.get("/console").status_code == 200


def test_only_an_admin_key_opens_it_and_guesses_are_slow(gateway: Gateway) -> None:
    with browser_of(gateway) as browser:
        refused = sign_in(browser, "nsk_guess")
        assert refused.status_code == 401
        assert "this key is not known" in refused.text
        late = sign_in(browser, key_of(gateway))
        assert late.status_code == 429
        assert int(late.headers["retry-after"]) >= 1
        assert "newshelf_console" not in browser.cookies
        assert httpx.URL(str(browser.get("/console").url)).path == SIGN_IN


def test_a_key_without_the_scope_admin_is_refused(
    start_gateway: StartGateway, gateway_plan: GatewayPlan
) -> None:
    narrow = add_key(gateway_plan, SCOPES[:3])
    with browser_of(start_gateway(console=ON)) as browser:
        assert sign_in(browser, narrow).status_code == 403
        assert "newshelf_console" not in browser.cookies


def test_the_cookie_is_for_these_pages_only(gateway: Gateway) -> None:
    with browser_of(gateway) as browser:
        form = {"token": token_in(browser.get(SIGN_IN)), "key": key_of(gateway)}
        began = browser.post(SIGN_IN, data=form, follow_redirects=False)
    (cookie,) = began.headers.get_list("set-cookie")
    for word in ("HttpOnly", "SameSite=strict", "Path=/console"):
        assert word in cookie
    assert "Max-Age" not in cookie
    assert key_of(gateway) not in cookie


def test_a_key_is_taken_over_tls_or_from_this_machine(start_gateway: StartGateway) -> None:
    gateway = start_gateway(console=ON, trusted_proxies=["127.0.0.1"])
    plain = {"X-Forwarded-For": "192.0.2.1", "X-Forwarded-Proto": "http"}
    assert get(gateway.url + SIGN_IN, headers=plain).status_code == 403
    secure = {**plain, "X-Forwarded-Proto": "https"}
    page = get(gateway.url + SIGN_IN, headers=secure)
    form = {"token": token_in(page), "key": key_of(gateway)}
    assert post(gateway.url + SIGN_IN, data=form, headers=plain).status_code == 403
    began = post(gateway.url + SIGN_IN, data=form, headers=secure)
    assert "Secure" in began.headers["set-cookie"]


def test_a_session_ends_by_signing_out(gateway: Gateway, browser: httpx.Client) -> None:
    kept = {"Cookie": f"newshelf_console={browser.cookies['newshelf_console']}"}
    assert get(f"{gateway.url}/console", headers=kept).status_code == 200
    out = send(browser, "/console/sign-out")
    assert httpx.URL(str(out.url)).path == SIGN_IN
    assert "newshelf_console" not in browser.cookies
    # A copy of the cookie is worth nothing.
    assert get(f"{gateway.url}/console", headers=kept).status_code == 303
    polled = get(f"{gateway.url}/console", headers={**kept, "HX-Request": "true"})
    assert (polled.status_code, polled.headers["hx-redirect"]) == (401, SIGN_IN)


def test_a_session_ends_with_another_one_of_its_key_and_with_the_key(
    start_gateway: StartGateway, gateway_plan: GatewayPlan
) -> None:
    key = add_key(gateway_plan, SCOPES)
    gateway = start_gateway(console=ON, trusted_proxies=["127.0.0.1"])
    sessions = []
    # One address may not sign in again so soon.
    for address in ("192.0.2.1", "192.0.2.2"):
        secure = {"X-Forwarded-Proto": "https", "X-Forwarded-For": address}
        form = {"token": token_in(get(gateway.url + SIGN_IN, headers=secure)), "key": key}
        began = post(gateway.url + SIGN_IN, data=form, headers=secure)
        sessions.append({"Cookie": began.headers["set-cookie"].partition(";")[0]})
    replaced, current = sessions
    assert get(f"{gateway.url}/console", headers=replaced).status_code == 303
    assert get(f"{gateway.url}/console", headers=current).status_code == 200
    gateway.keys.revoke("other")
    while get(f"{gateway.url}/console", headers=current).status_code == 200:
        time.sleep(0.05)


def test_without_the_setting_there_is_no_console(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    for path in ("/console", SIGN_IN, "/page-files/console.css"):
        assert get(gateway.url + path).status_code == 401
        assert gateway.http.get(path).status_code == 404


def test_the_overview_says_what_runs(
    gateway: Gateway, browser: httpx.Client, torchserve: FakeTorchServe
) -> None:
    page = browser.get("/console")
    assert "Something else runs the processes" in page.text
    assert 'class="bad"' not in page.text
    assert len(page.content) + len(browser.get("/page-files/htmx.min.js").content) < 150_000
    torchserve.always = status(503)
    while 'class="bad"' not in browser.get("/console").text:
        pass


def test_products_are_found_added_and_changed(gateway: Gateway, browser: httpx.Client) -> None:
    page = browser.get("/console/shelf")
    assert "Ring item-170" in page.text
    more = unescape(re.findall(r'href="(/console/shelf\?after[^"]+)"', page.text)[0])
    assert "Ring item-199" in browser.get(more).text
    assert "Ring item-199" in browser.get("/console/shelf?q=item-199").text
    assert browser.get("/console/shelf?q=a%00b").status_code == 200

    form = {"id": "new 1/2", "title": "A jade ring", "price": "30", "product_type": "Jewellery"}
    form["token"] = token_in(page)
    added = browser.post("/console/shelf", data=form, files={"image": png("red")})
    assert added.status_code == 200
    assert "A jade ring" in added.text
    stored = gateway.store.items.get(["new 1/2"])["new 1/2"]
    assert (stored.columns.price, stored.columns.product_type) == (30.0, "Jewellery")
    address = unescape(re.findall(r'src="(/console/picture[^"]+)"', added.text)[0])
    assert browser.get(address).content == png("red")
    again = browser.post("/console/shelf", data=form)
    assert again.status_code == 409
    assert "there is a product with this id" in again.text

    changed = send(browser, "/console/item", id="new 1/2", price="", availability="out_of_stock")
    assert 'value="out_of_stock" selected' in changed.text
    stored = gateway.store.items.get(["new 1/2"])["new 1/2"]
    assert (stored.columns.price, stored.columns.title) == (None, "A jade ring")
    for price in ("cheap", "-1", "nan"):
        wrong = send(browser, "/console/item", id="new 1/2", price=price)
        assert wrong.status_code == 422
        assert "price" in wrong.text or "number" in wrong.text
    assert send(browser, "/console/shelf", id="", title="x").status_code == 422
    assert browser.get("/console/item?id=unknown").status_code == 404


def test_a_rollout_is_paused_resumed_and_rolled_back_by_somebody(
    gateway: Gateway, browser: httpx.Client
) -> None:
    begin(gateway)
    gateway.store.rollouts.add_snapshot("spring", json.dumps(LOOK))
    page = browser.get("/console/rollout?name=spring")
    assert "too few" in page.text
    assert "+20.0 %" in page.text
    assert "-5.0 % … –" in page.text
    assert 'class="bad">broken' in page.text
    assert page.text.count("<polygon") == 1
    assert "Pause" in page.text
    assert "Resume" not in page.text
    act = partial(send, browser, "/console/rollout", name="spring")
    paused = act(command="pause")
    assert "paused by the key tests" in paused.text
    assert "Resume" in paused.text
    assert "resumed by the key tests" in act(command="resume").text
    for confirm in ("", "1.1", "1.0 or so"):
        refused = act(command="abort", confirm=confirm)
        assert refused.status_code == 422
        assert "type 1.0" in refused.text
    assert act(command="promote", confirm="1.0").status_code == 422
    assert rollout_of(gateway).phase == "ramp"
    ended = act(command="abort", confirm="1.0")
    assert "aborted by the key tests" in ended.text
    assert rollout_of(gateway).phase == "aborted"
    notes = [one.note for one in gateway.store.rollouts.journal("spring")]
    assert notes[1:] == [f"{done} by the key tests" for done in ("paused", "resumed", "aborted")]
    assert act(command="pause").status_code == 409
    assert act(command="explode").status_code == 422
    assert browser.get("/console/rollout?name=unknown").status_code == 404
    assert browser.get("/console/rollout").status_code == 422
    assert "spring" in browser.get("/console").text


def test_a_chart_stays_in_its_box(gateway: Gateway, browser: httpx.Client) -> None:
    begin(gateway)
    (one, other), name = LOOK["analysis"]["metrics"], "spring"
    for low, high in ((-9.0, "Infinity"), (-0.2, 0.4), (0.05, 0.2)):
        metrics = [one | {"low": low, "effect": 0.1, "high": high}, other]
        gateway.store.rollouts.add_snapshot(
            name, json.dumps({"analysis": {"metrics": metrics, "guardrails": []}})
        )
    gateway.store.rollouts.add_snapshot(name, json.dumps({"analysis": None}))
    page = browser.get("/console/rollout?name=spring").text
    (band,) = re.findall(r'<polygon class="band" points="([^"]+)"', page)
    places = [[float(one) for one in place.split(",")] for place in band.split()]
    assert places == [
        [0, 0], [300, 0], [600, 60], [600, 105], [300, 180], [0, 180],
    ]  # fmt: skip
    assert 'class="zero" points="0.0,120.0 600.0,120.0"' in page
    assert "+40.0 %" in page


def test_a_shopper_is_shown_with_what_would_be_recommended_and_erased(
    gateway: Gateway, browser: httpx.Client, torchserve: FakeTorchServe
) -> None:
    unit = 'ann/née "Ó"?'
    do(gateway, unit, "item-199")
    do(gateway, unit, "item-198", "item-197")
    before = len(gateway.exposures())
    page = browser.get("/console/shopper", params={"unit": unit})
    assert page.status_code == 200
    assert "click" in page.text
    assert "By version" in page.text
    assert page.text.index(">item-197<") < page.text.index(">item-198<")
    assert page.text.index(">item-198<") < page.text.index(">item-199<")
    assert torchserve.last_body()["history"] == ["item-199", "item-198", "item-197"]
    assert len(gateway.exposures()) == before
    wrong = send(browser, "/console/shopper", unit=unit, confirm="ann")
    assert wrong.status_code == 422
    assert len(list(gateway.store.feedback())) == 3
    erased = send(browser, "/console/shopper", unit=unit, confirm=unit)
    assert "has been erased" in erased.text
    assert list(gateway.store.feedback()) == []
    torchserve.always = status(503)
    away = browser.get("/console/shopper?unit=bob")
    assert away.status_code == 200
    assert "By version" not in away.text


def test_rules_and_placements_are_shown_and_previewed(
    start_gateway: StartGateway, torchserve: FakeTorchServe, tmp_path: Path
) -> None:
    placements = tmp_path / "placements.toml"
    placements.write_text('[home]\nkind = "for_you"\nk = 3\n[detail]\nkind = "similar"\nk = 2\n')
    gateway = start_gateway(console=ON, placements=str(placements))
    with browser_of(gateway) as browser:
        sign_in(browser, key_of(gateway))
        assert "The file of rules has none" in browser.get("/console/rules").text
        page = browser.get("/console/rules?placement=home&unit=u1&products=item-001, item-002")
        assert page.text.count("/console/item?") == 3
        assert b'"history":["item-001","item-002"]' in torchserve.asked[-1].body
        similar = browser.get("/console/rules?placement=detail&products=item-001")
        assert similar.text.count("/console/item?") == 2
        nothing = browser.get("/console/rules?placement=detail")
        assert "needs the products it starts from" in nothing.text
        unknown = browser.get("/console/rules?placement=nowhere")
        assert "no placement has this name" in unknown.text
    assert gateway.exposures() == []


def test_retrainings_drift_and_keys_are_listed_and_no_secret_is(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    folder = tmp_path / "retrain"
    record = {
        "name": "0002", "started": "2026-05-01T10:00:00Z", "served": "old", "version": "new",
        "status": "not promoted", "reason": HOSTILE,
    }  # fmt: skip
    folder.mkdir()
    write_json(folder / "0002.json", record)
    drift = tmp_path / "report.json"
    measures = [
        {"name": "scores", "size": 0.4, "limit": 0.2, "before": "a", "now": "b"},
        {"name": "clicks", "size": None, "limit": 0.2, "reason": "too few"},
    ]
    write_json(drift, {"verdict": "Drift: scores.", "measures": measures, "triggers": ["scores"]})
    rules = tmp_path / "rules.toml"
    rules.write_text(
        '[[rule]]\nname = "summer"\naction = "pin"\nposition = 2\nplacements = ["home"]\n'
        'from = 2026-06-01T00:00:00+02:00\nwhen = {column = "id", is = "<b>lamp</b>"}\n'
    )
    files = {"retrain": folder, "drift": drift, "rules": rules}
    gateway = start_gateway(files=files, console=ON)
    with browser_of(gateway) as browser:
        sign_in(browser, key_of(gateway))
        page = browser.get("/console/retrainings")
        assert "not promoted" in page.text
        assert "Drift: scores." in page.text
        assert "unknown: too few" in page.text
        assert "<script>alert" not in page.text
        shown = browser.get("/console/rules").text
        assert "summer" in shown
        assert "&lt;b&gt;lamp" in shown
        listed = browser.get("/console/keys").text
        assert "tests" in listed
        assert key_of(gateway) not in listed
        assert gateway.keys.read()[0].sha256 not in listed
        rules.write_text("[[rule")
        assert "cannot be read" in browser.get("/console/rules").text


def test_a_hostile_text_is_only_a_text(gateway: Gateway, browser: httpx.Client) -> None:
    fields = {"title": HOSTILE, "description": HOSTILE, "brand": HOSTILE, "product_type": HOSTILE}
    columns = ItemColumns.model_construct(id="item-199", attributes={HOSTILE: HOSTILE}, **fields)
    gateway.store.items.put([ItemWrite(columns)])
    begin(gateway, "draft", HOSTILE[:20])
    do(gateway, HOSTILE, "item-199")
    coded = "".join(f"%{byte:02x}" for byte in HOSTILE.encode())
    paths = [
        "/console", "/console/item?id=item-199", "/console/shelf?q=item-199",
        f"/console/shelf?q={coded}", f"/console/shelf?after={coded}", f"/console/item?id={coded}",
        f"/console/shopper?unit={coded}", f"/console/rollout?name={coded}",
        f"/console/rollout?name={coded[:60]}", f"/console/{coded}",
        f"/console/rules?placement={coded}&unit={coded}&products={coded}",
        f"/console?lang={coded}", f"{SIGN_IN}?x={coded}",
    ]  # fmt: skip
    for path in paths:
        page = browser.get(path)
        assert page.headers["content-type"].startswith("text/html"), path
        assert page.status_code in {200, 404, 422}, path
        assert "<script>alert" not in page.text, path
        assert "49 ${x}" not in page.text, path
        assert not re.findall(r"<[a-z][^>]*\son\w+=", page.text), path
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert page.headers["x-frame-options"] == "DENY"
        assert "<style" not in page.text
        assert " style=" not in page.text
        assert not re.findall(r"<script(?! src=)", page.text)


def test_it_speaks_chinese(browser: httpx.Client) -> None:
    page = browser.get("/console/shelf", headers={"Accept-Language": "zh"})
    assert '<html lang="zh">' in page.text
    assert "添加商品" in page.text
