"""Labelled rows and cases of a shop: what is learned from, what is asked, and what is unknown."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from benchmarks.methods.ctr.fields import field_table
from benchmarks.methods.ctr.xdeepfm import XDeepFMSettings
from benchmarks.transfer.deepctr import run_peer
from benchmarks.transfer.xdeepfm import _CHECKED_FIELDS, labelled_rows, read_shop, time_case_split
from newshelf.catalog.catalog import read_catalog
from newshelf.errors import SettingsError, TrainingError

CUT = 1000


def write(folder, events, items=12):
    folder.mkdir()
    titles = [{"id": f"i{at}", "title": "a thing", "price": 1.0} for at in range(items)]
    pd.DataFrame(titles).to_csv(folder / "items.csv", index=False)
    columns = ["user_id", "item_id", "event_type", "timestamp"]
    pd.DataFrame(events, columns=columns).to_csv(folder / "events.csv", index=False)
    return read_catalog(folder)


@pytest.fixture
def context(tmp_path):
    """Ten users take two items before the cut, and two after it; another comes only then."""
    past = [
        (f"u{user}", f"i{(user + at) % 10}", "purchase", 10 * user + at)
        for user in range(10)
        for at in range(2)
    ]
    later = [(f"u{user}", f"i{(user + 2) % 10}", "purchase", CUT + user) for user in range(10)]
    again = [("u0", "i0", "purchase", CUT + 20), ("new", "i11", "purchase", CUT + 21)]
    data = write(tmp_path / "data", past)
    kept = write(tmp_path / "kept", [*later, *again])
    return SimpleNamespace(
        catalog=lambda name: data, kept_back_catalog=lambda name: kept, work=tmp_path
    )


def test_what_was_kept_back_is_the_test(context):
    shop = read_shop(context, "retail")
    assert shop.cut == CUT
    split = time_case_split(shop, 100, seed=0)
    assert sum(map(len, split.train.sequences)) == 20
    assert max(int(times.max()) for times in split.train.timestamps) < CUT
    asked = {tuple(case.history.tolist()): case.relevant.tolist() for case in split.cases}
    assert asked == {(u, (u + 1) % 10): [(u + 2) % 10] for u in range(10)}
    assert len(time_case_split(shop, 3, seed=0).cases) == 3


def test_without_anything_kept_back_the_latest_are_the_test(context):
    context.kept_back_catalog = lambda name: None
    shop = read_shop(context, "retail")
    assert shop.cut == 81
    assert sum(map(len, time_case_split(shop, 100, seed=0).train.sequences)) == 17


def test_rows_of_the_test_have_later_histories_but_no_later_knowledge(context):
    shop = read_shop(context, "retail")
    train, test, users = labelled_rows(shop, 1000, 1000, 4, seed=0)
    assert (train.timestamp < CUT).all()
    assert (test.timestamp >= CUT).all()
    assert train.label.mean() == test.label.mean() == 0.5
    # The one who came later is unknown, and what was taken again is no first purchase.
    assert users == 11
    assert sorted(test.user[test.label == 1].tolist()) == list(range(11))
    taken = {(int(u), int(i)) for rows in (train, test) for u, i in pairs(rows, 1)}
    assert not taken & {(int(u), int(i)) for u, i in pairs(test, 0)}
    known = set(train.item[train.label == 1].tolist())
    assert set(train.item.tolist()) <= known
    history = test.history[(test.label == 1) & (test.user == 1)][0]
    assert set(history[history >= 0].tolist()) == {0, 1}


def pairs(rows, label):
    chosen = rows.label == label
    return zip(rows.sequence[chosen], rows.item[chosen], strict=True)


def test_no_events_are_named(context):
    data = context.catalog("retail")
    context.catalog = lambda name: replace(data, events=None)
    context.kept_back_catalog = lambda name: None
    with pytest.raises(TrainingError, match="retail has no events"):
        read_shop(context, "retail")


def test_a_peer_that_fails_says_why(context, tmp_path):
    shop = read_shop(context, "retail")
    train, test, users = labelled_rows(shop, 1000, 1000, 4, seed=0)
    table = field_table(shop.catalog, np.unique(train.item), _CHECKED_FIELDS, users=users)
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho no module named deepctr_torch >&2\nexit 1\n")
    broken.chmod(0o755)
    with pytest.raises(SettingsError, match="deepctr_torch"):
        run_peer(broken, tmp_path / "work", table, train, test, XDeepFMSettings(), seed=0)
