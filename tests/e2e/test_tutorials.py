"""The tutorials' commands, as a newcomer gives them: all shops are those of one clone.

Those of the first one are in ``test_readme.py``, on the server that the README starts.
"""

import json
import shutil

import pytest
import yaml

from newshelf.pipeline.workspace import open_workspace
from tests.e2e.newcomer import COMMANDS, Newcomer
from tests.e2e.rollouts import link_or_copy

pytestmark = pytest.mark.xdist_group("readme")


def check_shown(newcomer: Newcomer, page: str, printed: str) -> None:
    """Compare the output of a command, which is the same everywhere, with that of a page."""
    text = (newcomer.root / "docs" / page).read_text(encoding="utf-8")
    assert printed.strip()
    assert [line for line in printed.splitlines() if line not in text] == []


@pytest.fixture(scope="module")
def my_shop(newcomer: Newcomer) -> None:
    """An empty folder whose shop is trained already, when the sample is put there."""
    drawn, shop = newcomer.root / ".newshelf" / "sample", newcomer.root / "my-shop"
    shop.mkdir()
    own = newcomer.root / ".newshelf" / open_workspace(shop).root.name
    ignored = shutil.ignore_patterns("sample", "server", "gateway", "rollout", "shelf*", ".lock")
    shutil.copytree(drawn, own, ignore=ignored, copy_function=link_or_copy)


def test_a_cold_category(newcomer: Newcomer) -> None:
    _, imported, state, suited, new, found, report, gone = newcomer.follow(
        "tutorial-cold-category.md", until={"./run items show watch-1": "visible"}
    )
    check_shown(newcomer, "tutorial-cold-category.md", imported)
    assert "Minimal watch with a plain silver case" in state
    for answer in (suited, new):
        products = json.loads(answer)["items"]
        assert products
        assert {one["id"] for one in products} <= {f"watch-{n}" for n in range(1, 7)}
    assert json.loads(found)["items"][0]["id"] == "watch-1"
    # What the README promises of it, too.
    assert "./run evaluate" in COMMANDS
    assert "newshelf" in report
    assert "EASE" in report
    assert gone.count('"deleted":true') == 6


# What is trained there replaces what was trained before.
@pytest.mark.usefixtures("my_shop")
def test_a_new_model_by_ab_test(newcomer: Newcomer) -> None:
    _, archived, plan, started, ramp, load, figures, _, promote, promoted, back = newcomer.follow(
        "tutorial-ab-test.md",
        until={
            "./run rollout status simpler": "simpler: ramp",
            "./run rollout status simpler | sed -n 1,2p": "simpler: promoted",
        },
    )
    assert "archive: done" in archived
    versions = yaml.safe_load(plan)
    assert versions["control"] != versions["challenger"]
    assert f"{versions['control']} against {versions['challenger']}" in started
    assert "50 % of the units see the challenger" in ramp
    assert "the event store has all of them" in load
    assert "ctr" in figures
    assert (newcomer.root / "simpler.html").is_file()
    assert "by hand" in promote + promoted
    assert "simpler: rolling" in back


@pytest.mark.usefixtures("my_shop")
def test_your_own_catalogue(newcomer: Newcomer) -> None:
    stopped, faults, checked, served, report, ended = newcomer.follow(
        "tutorial-own-catalogue.md", codes={"./run catalog check export": 1}
    )
    assert "stopped" in stopped
    check_shown(newcomer, "tutorial-own-catalogue.md", faults)
    assert "items" in checked
    assert "train: current" in served
    assert "the shop window is at" in served
    assert "EASE" in report
    assert "my-shop" in ended
    # The README gives the same for a shop somewhere else.
    assert {
        "./run catalog check path/to/shop",
        "./run serve --catalog path/to/shop",
        "./run stop",
    } <= set(COMMANDS)


def test_the_keys_and_values_of_a_cluster(newcomer: Newcomer) -> None:
    key, _ = newcomer.follow("tutorial-cluster.md")
    assert key.strip()
    assert (newcomer.root / "keys" / "gateway" / "keys.json").is_file()
    values = yaml.safe_load((newcomer.root / "cluster.yaml").read_text())
    version = values["model"]["version"]
    assert (newcomer.root / "model_store" / f"recommender-{version}.mar").is_file()
