import json
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client.parser import text_string_to_metric_families

from newshelf.gateway.observability import GatewayMetrics

REPORT = {
    "triggers": ["price"],
    "measures": [
        {"name": "price", "size": 0.5},
        {"name": "brand", "size": 0.01},
        {"name": "fallback", "size": None},
    ],
}


def samples(page: bytes) -> dict[tuple[str, str], float]:
    families = text_string_to_metric_families(page.decode())
    return {
        (one.name, one.labels.get("measure", "")): one.value
        for family in families
        for one in family.samples
        if one.name.startswith("newshelf_drift")
    }


def test_the_last_report_is_on_the_page_with_its_age(tmp_path):
    path = tmp_path / "report.json"
    metrics = GatewayMetrics(path)
    assert samples(metrics.page()) == {}
    until = datetime.now(UTC) - timedelta(hours=1)
    path.write_text(json.dumps({"until": until.isoformat(), **REPORT}))
    found = samples(metrics.page())
    assert found["newshelf_drift", "price"] == 0.5
    assert found["newshelf_drift_triggered", "price"] == 1
    assert found["newshelf_drift_triggered", "brand"] == 0
    assert found["newshelf_drift", "fallback"] != found["newshelf_drift", "fallback"]
    assert found["newshelf_drift_age_seconds", ""] == pytest.approx(3600, abs=60)
    assert b"newshelf_gateway_unrecorded_total" in metrics.page()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"until": "then", "measures": []}', "{}"])
def test_a_damaged_report_is_no_error(tmp_path, text):
    path = tmp_path / "report.json"
    path.write_text(text)
    assert samples(GatewayMetrics(path).page()) == {}
