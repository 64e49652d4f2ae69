"""Placements: their file, and the requests that name one."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from newshelf.config import Limits
from newshelf.errors import InvalidField, SettingsError
from newshelf.gateway.placements import Placements, read_placements
from newshelf.gateway.schemas import parse_recommend_body
from newshelf.pipeline.workspace import ROOT
from tests.gateways import StartGateway
from tests.unit.gateway.fake_torchserve import FakeTorchServe

FILE = """
[home]
k = 2
diversity = 0.5
filters = { brand = "Acme", availability = ["in_stock"] }

[product]
kind = "similar"
explain = true
"""
FILTERS = {"brand": ["Acme"], "availability": ["in_stock"]}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "placements.toml"
    path.write_text(FILE)
    return path


def test_the_shipped_file_has_the_usual_places() -> None:
    shipped = read_placements(ROOT / "configs" / "placements.toml", Limits().max_k)
    assert set(shipped) == {"home", "category", "product", "cart", "feed", "email"}
    assert [name for name, placement in shipped.items() if placement.feed] == ["feed"]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("[home]\nkid = 3", "home.kid"),
        ('[home]\nkind = "best"', "home.kind"),
        ("[home]\nk = 0", "home.k"),
        ("[home]\nk = 101", "home.k"),
        ("[home]\ndiversity = nan", "home.diversity"),
        ("[home.filters]\nprice = { min = 3, max = 2 }", "home.filters.price"),
        ("[home.filters]\ncolour = 'red'", "home.filters.colour"),
        ("home = 3", "home"),
        ("[home", "not TOML"),
    ],
)
def test_a_broken_file_is_refused_with_its_place(file: Path, text: str, place: str) -> None:
    file.write_text(text)
    with pytest.raises(SettingsError) as caught:
        read_placements(file, 100)
    assert str(file) in caught.value.message
    assert place in caught.value.message


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"absent\.toml"):
        Placements(tmp_path / "absent.toml", 100)


@pytest.mark.parametrize(
    ("own", "joined"),
    [
        ({}, {"k": 2, "diversity": 0.5, "filters": FILTERS}),
        ({"k": 9}, {"k": 9}),
        ({"diversity": 0}, {"diversity": 0}),
        ({"filters": {"color": "red"}}, {"filters": {**FILTERS, "color": "red"}}),
        ({"filters": {"brand": None}}, {"filters": {"brand": None, "availability": ["in_stock"]}}),
    ],
)
def test_a_request_takes_what_it_does_not_set(
    file: Path, own: dict[str, Any], joined: dict[str, Any]
) -> None:
    body = orjson.dumps({"unit": "u", "placement": "home", **own})
    query = parse_recommend_body(body, "", Limits(), Placements(file, 100))
    assert orjson.loads(query.body).items() >= {**joined, "placement": "home"}.items()


@pytest.mark.parametrize("name", ["hone", "", 3, ["home"]])
def test_an_unknown_placement_is_refused_with_the_known_ones(file: Path, name: object) -> None:
    body = orjson.dumps({"unit": "u", "placement": name})
    with pytest.raises(InvalidField) as caught:
        parse_recommend_body(body, "", Limits(), Placements(file, 100))
    assert caught.value.field == "placement"
    assert "home, product" in caught.value.message


def test_a_changed_file_is_read_again_and_a_broken_one_is_not(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    placements = Placements(file, 100)
    for text in ("[home]\nk = 'many'", "[home"):
        file.write_text(text)
        placements.refresh()
        assert placements.completed({"placement": "home"})["k"] == 2
    assert len(caplog.records) == 2
    assert str(file) in caplog.text
    file.unlink()
    placements.refresh()
    assert placements.completed({"placement": "home"})["k"] == 2
    file.write_text("[home]\nk = 7")
    placements.refresh()
    assert placements.completed({"placement": "home"})["k"] == 7


def test_the_exposure_has_placement_and_kind(
    start_gateway: StartGateway, torchserve: FakeTorchServe, file: Path
) -> None:
    gateway = start_gateway(placements=str(file))
    home = gateway.http.post("/v1/recommend", json={"unit": "u", "placement": "home"})
    product = gateway.http.post(
        "/v1/recommend", json={"unit": "u", "placement": "product", "items": ["item-001"], "k": 4}
    )
    assert [len(answer.json()["items"]) for answer in (home, product)] == [2, 4]
    assert [(one.placement, one.kind) for one in gateway.exposures()] == [
        ("home", None),
        ("product", "similar"),
    ]
    sent = orjson.loads(torchserve.asked[1].body)
    assert (sent["kind"], sent["placement"], sent["explain"]) == ("similar", "product", True)
    assert sent["history"] == ["item-001"]


@pytest.mark.parametrize(
    ("fields", "field", "said"),
    [
        ({"kind": "best"}, "kind", "'bought_together'"),
        ({"kind": 3}, "kind", "'for_you'"),
        ({"kind": "cart"}, "items", "'cart'"),
        ({"kind": "popular", "items": ["a"]}, "items", "'popular'"),
        ({"kind": "similar", "items": []}, "items", "1 item"),
        ({"kind": "similar", "items": [""]}, "items[0]", ""),
        ({"placement": "nowhere"}, "placement", "none at all"),
    ],
)
def test_a_wrong_kind_or_start_is_named(
    start_gateway: StartGateway, fields: dict[str, Any], field: str, said: str
) -> None:
    answer = start_gateway().http.post("/v1/recommend", json={"unit": "u", **fields})
    assert (answer.status_code, answer.json()["field"]) == (422, field)
    assert said in answer.json()["message"]
