import numpy as np
import pandas as pd
import pytest

from newshelf.evaluation.funnel import funnel

ITEMS = pd.DataFrame(
    {"id": ["a", "b", "c"], "product_type": ["Jewellery > Rings", "Jewellery", None]}
)


def events(**counts):
    """``events(a_view=3)``: three views of item a."""
    rows = [name.split("_") for name, count in counts.items() for _ in range(count)]
    return pd.DataFrame(rows, columns=["item_id", "event_type"])


def wilson(part, whole):
    """The formula as in the textbook."""
    z, p = 1.959963984540054, part / whole
    middle = (p + z * z / (2 * whole)) / (1 + z * z / whole)
    reach = z / (1 + z * z / whole) * np.sqrt(p * (1 - p) / whole + (z / (2 * whole)) ** 2)
    return middle - reach, middle + reach


def test_rates_by_category_with_wilsons_interval():
    found = funnel(events(a_view=30, b_view=10, a_click=8, b_click=4, a_cart=3, a_purchase=3,
                          c_view=2), ITEMS)  # fmt: skip
    assert (found.total.views, found.total.clicks, found.total.purchases) == (42, 12, 3)
    assert found.total.ctr.value == pytest.approx(12 / 42)
    assert found.total.ctr.interval == pytest.approx(wilson(12, 42))
    assert found.cvr_base == "click"
    assert found.total.cvr.interval == pytest.approx(wilson(3, 12))
    assert [(row.name, row.views) for row in found.rows] == [("Jewellery", 40), ("(no type)", 2)]
    assert found.rows[0].carts == 3
    assert found.missing == []


def test_nothing_clicked_of_what_was_seen_is_a_rate_of_0():
    found = funnel(events(a_view=30, a_click=8, c_view=5), ITEMS)
    assert found.rows[1].ctr.value == 0
    assert found.rows[1].ctr.interval == pytest.approx(wilson(0, 5), abs=1e-12)
    assert found.rows[1].cvr is None


def test_purchases_alone_give_no_rate_and_say_why():
    found = funnel(events(a_purchase=9), ITEMS)
    assert (found.total.ctr, found.total.cvr, found.cvr_base) == (None, None, None)
    ctr, cvr = found.missing
    assert ctr.startswith("CTR needs views and clicks")
    assert cvr.startswith("CVR needs")
    assert "0 clicks and 0 views for 9 purchases" in cvr


def test_without_clicks_purchases_are_divided_by_views():
    found = funnel(events(a_view=10, a_purchase=2), ITEMS)
    assert found.total.ctr is None
    assert found.total.cvr.value == 0.2
    ctr, cvr = found.missing
    assert ctr.startswith("CTR needs views and clicks")
    assert cvr.startswith("CVR is purchases per view")


def test_more_clicks_than_views_are_no_rate():
    found = funnel(events(a_view=2, a_click=5), ITEMS)
    assert found.total.ctr is None
    assert found.missing[0].startswith("CTR: 5 clicks on 2 views")
    assert found.missing[1].startswith("CVR needs purchases")


def test_no_events_are_refused():
    with pytest.raises(ValueError, match="needs events"):
        funnel(events(), ITEMS)
