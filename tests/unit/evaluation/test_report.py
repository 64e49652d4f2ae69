import io
import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from rich.console import Console

from newshelf.errors import SetupError
from newshelf.evaluation.evaluate import Comparison, compare
from newshelf.evaluation.funnel import funnel
from newshelf.evaluation.metrics import few_shot
from newshelf.evaluation.plots import draw_comparisons
from newshelf.evaluation.report import (
    EvaluationReport,
    compare_reports,
    print_pairs,
    print_report,
    write_report,
)
from newshelf.evaluation.types import Metrics
from newshelf.report.page import Picture


def metrics(name, ndcg, cases=8):
    others = ("Coverage", "HitRate", "Novelty", "ARP", "Head", "Gini")
    return Metrics(
        ranker=name,
        split="time",
        cases=cases,
        values={
            "Recall@10": 0.25,
            "Recall@20": 0.5,
            "NDCG@10": ndcg,
            "NDCG@20": ndcg,
            "MRR": 0.125,
            **{f"{other}@{k}": value for other in others for k, value in ((10, 0.5), (20, 0.75))},
        },
        intervals={"NDCG@10": (ndcg - 0.05, ndcg + 0.06)},
        per_case={f"NDCG@{k}": np.full(cases, ndcg, dtype=np.float32) for k in (10, 20)},
        groups=np.arange(cases),
        top=np.empty((0, 0), dtype=np.int64),
    )


def comparison(model=0.3, best=0.2, cases=8):
    return Comparison(
        split="time",
        description="Asked for [everything] | <later>.",
        k=(10, 20),
        items=50,
        baselines=(metrics("random", 0.0, cases), metrics("EASE [x]|y", best, cases)),
        model=None if model is None else metrics("siamese", model, cases),
    )


def report(*comparisons, **more):
    created = "2024-01-02T03:04:05"
    return EvaluationReport(
        "shop", 60, 7, comparisons, model_version="abc", created=created, **more
    )


def test_all_files_are_written(tmp_path):
    write_report(report(comparison()), tmp_path / "evaluation")
    names = {path.name for path in (tmp_path / "evaluation").iterdir()}
    assert names == {"report.json", "report.md", "report.html", "cases.npz", "ndcg.png"}


def test_every_case_is_kept_for_later_tests(tmp_path):
    write_report(report(comparison()), tmp_path)
    kept = np.load(tmp_path / "cases.npz", allow_pickle=False)
    assert kept["time/groups"].tolist() == list(range(8))
    assert kept["time/EASE [x]|y/NDCG@10"].tolist() == [np.float32(0.2)] * 8
    rankers = {name.split("/")[1] for name in kept.files}
    assert rankers == {"groups", "random", "EASE [x]|y", "siamese"}


def test_the_page_needs_no_other_file_and_no_network(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "map.png")
    found = report(comparison(), pictures=[Picture("map.png", "A <map>")], notes=["No curves."])
    write_report(found, tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 2
    for outside in ("http:", "https:", "<script", "<link", "url(", "@import"):
        assert outside not in page
    assert "Asked for [everything] | &lt;later&gt;." in page
    assert "A &lt;map&gt;" in page
    assert "No curves." in page
    assert '<tr class="main">' in page
    assert '<span class="interval">0.2500 – 0.3600</span>' in page


def test_a_picture_that_was_not_drawn_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_report(report(comparison(), pictures=[Picture("none.png", "")]), tmp_path)


def test_sections_of_clicks_and_of_few_labels(tmp_path):
    items = pd.DataFrame({"id": ["a"], "product_type": ["Rings"]})
    events = pd.DataFrame({"item_id": ["a"] * 3, "event_type": ["view", "view", "click"]})
    features = np.eye(12, dtype=np.float32)
    shots = few_shot({"towers": features}, ["x", "y"] * 6, shots=(1, 2), repeats=2)
    found = report(comparison(), funnel=funnel(events, items), shots=shots)
    text = found.page()
    assert [section.title for section in text.sections] == [
        "time",
        "Clicks and purchases",
        "Few labels",
    ]
    write_report(found, tmp_path)
    lines = (tmp_path / "report.md").read_text().splitlines()
    assert any(line.startswith("| all | 2 | 1 | 0 | 0 | 50.00% (") for line in lines)
    assert any(line.startswith("CVR needs purchases") for line in lines)
    kept = json.loads((tmp_path / "report.json").read_text())
    assert kept["funnel"]["total"]["ctr"]["value"] == 0.5
    assert kept["few_shot"]["shots"] == [1, 2]


def test_json_holds_every_figure(tmp_path):
    write_report(report(comparison()), tmp_path)
    found = json.loads((tmp_path / "report.json").read_text())
    assert (found["catalog"], found["items"], found["seed"]) == ("shop", 60, 7)
    assert (found["model_version"], found["created"]) == ("abc", "2024-01-02T03:04:05")
    assert set(found["versions"]) == {"python", "numpy", "scipy", "pandas", "scikit-learn"}
    assert found["format"] == 2
    (split,) = found["splits"]
    assert (split["cases"], split["items_ranked"], split["k"]) == (8, 50, [10, 20])
    assert (split["best_baseline"], split["model"]) == ("EASE [x]|y", "siamese")
    assert split["ratio"] == pytest.approx(1.5)
    assert split["ratio_interval_95"] == pytest.approx([1.5, 1.5])
    assert split["p_value"] < 0.02  # of 2^8 changes of sign, two are as far out
    row = split["rankers"][2]
    assert (row["name"], row["mrr"]) == ("siamese", 0.125)
    assert row["ndcg"] == {"10": 0.3, "20": 0.3}
    assert row["intervals_95"]["NDCG@10"] == pytest.approx([0.25, 0.36])
    assert set(row) == {
        "name",
        "mrr",
        "recall",
        "ndcg",
        "hit_rate",
        "coverage",
        "novelty",
        "popularity",
        "head_share",
        "gini",
        "intervals_95",
    }


def test_markdown_has_tables_per_split_with_the_model_in_bold(tmp_path):
    write_report(report(comparison()), tmp_path)
    lines = (tmp_path / "report.md").read_text().splitlines()
    assert "2024-01-02T03:04:05 · model abc · 60 items · seed 7" in lines[2]
    row = "| **siamese** | **0.2500** | **0.3000** (0.2500 – 0.3600) | **0.5000** | **0.1250** |"
    assert row in lines
    assert any(line.startswith("| EASE [x]\\|y | 0.2500") for line in lines)
    (found,) = [line for line in lines if line.startswith("Best baseline")]
    assert "siamese reaches 1.50 times" in found
    assert "paired test: better, p = 0.0" in found


def test_too_few_cases_tell_nothing_apart():
    found = report(comparison(cases=3)).to_json()["splits"][0]
    assert found["ratio_interval_95"] is None
    assert "only 3 independent cases" in found["verdict"]


def test_the_terminal_shows_names_with_brackets_as_they_are():
    out = io.StringIO()
    print_report(report(comparison()).to_json(), Console(file=out, width=80))
    shown = out.getvalue()
    assert "EASE [x]|y" in shown
    assert "Asked for [everything]" in shown
    assert "Best baseline: EASE [x]|y, NDCG@10 0.2000." in shown


def test_without_a_model_the_best_baseline_is_the_verdict(tmp_path):
    found = report(comparison(model=None))
    write_report(found, tmp_path)
    assert found.to_json()["splits"][0]["ratio"] is None
    assert found.to_json()["splits"][0]["verdict"].endswith("NDCG@10 0.2000.")


def test_baselines_that_find_nothing_give_no_ratio():
    found = report(comparison(best=0.0))
    assert found.to_json()["splits"][0]["ratio"] is None
    assert "No baseline found anything" in found.to_json()["splits"][0]["verdict"]


def test_the_plot_is_a_picture_that_grows_with_the_splits(tmp_path):
    draw_comparisons([comparison()], tmp_path / "one.png", "shop")
    draw_comparisons([comparison(), comparison(model=None)], tmp_path / "two.png", "shop")
    widths = [Image.open(tmp_path / name).width for name in ("one.png", "two.png")]
    assert widths[1] > 1.4 * widths[0]


def test_nothing_to_draw_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="no panel"):
        draw_comparisons([], tmp_path / "none.png", "shop")


class Noisy:
    """Knows the answer of every case, more or less."""

    def __init__(self, name, strength, seed=0):
        self.name, self.strength, self.seed = name, strength, seed

    def scores(self, histories):
        generator = np.random.default_rng(self.seed)
        rows = generator.random((len(histories), 40))
        rows[np.arange(len(histories)), [history[0] + 1 for history in histories]] += self.strength
        return rows.astype(np.float32)


@pytest.fixture
def written(make_split, tmp_path):
    def write(name, model, cases=100, version="v1"):
        asked = [([number % 39], [number % 39 + 1]) for number in range(cases)]
        split = make_split([[0, 1]], 40, asked)
        found = compare([Noisy("random", 0)], split, (5,), model=model, console=Console(file=None))
        write_report(
            EvaluationReport("shop", 40, 7, [found], model_version=version), tmp_path / name
        )
        return tmp_path / name

    return write


def test_the_better_model_is_named_with_its_advantage(written):
    ours = written("ours", Noisy("strong", 0.8), version="v2")
    theirs = written("theirs", Noisy("weak", 0.1, seed=1))
    (pair,) = compare_reports(ours, theirs)
    assert (pair.split, pair.ours, pair.theirs) == ("hand", "strong v2", "weak v1")
    assert set(pair.tests) == {"NDCG@5", "Recall@5", "HitRate@5", "MRR"}
    test = pair.tests["NDCG@5"]
    assert (test.verdict, test.groups) == ("better", 100)
    kept = json.loads((ours / "report.json").read_text())["splits"][0]["rankers"][1]
    assert test.first == pytest.approx(kept["ndcg"]["5"], abs=1e-6)
    assert compare_reports(theirs, ours / "report.json")[0].tests["NDCG@5"].verdict == "worse"
    out = io.StringIO()
    print_pairs([pair], Console(file=out, width=120))
    assert "better" in out.getvalue()
    assert "this: strong v2; other: weak v1; 100 independent groups" in out.getvalue()


def test_a_report_is_not_told_apart_from_itself(written):
    ours = written("ours", Noisy("strong", 0.5))
    (pair,) = compare_reports(ours, ours)
    assert {test.verdict for test in pair.tests.values()} == {"not told apart"}


def test_other_cases_cannot_be_paired(written):
    ours, theirs = written("a", Noisy("m", 1)), written("b", Noisy("m", 1), cases=90)
    with pytest.raises(SetupError, match="no split with the same cases"):
        compare_reports(ours, theirs)


def test_a_report_without_a_model_has_nothing_to_compare(written):
    ours, theirs = written("a", Noisy("m", 1)), written("b", None)
    with pytest.raises(SetupError, match="without a model"):
        compare_reports(ours, theirs)


def test_what_is_no_report_says_what_is_missing(written, tmp_path):
    ours = written("a", Noisy("m", 1))
    with pytest.raises(SetupError, match=r"report\.json and cases\.npz"):
        compare_reports(ours, tmp_path / "nowhere")
    whole = (ours / "cases.npz").read_bytes()
    for damaged in (b"", b"no archive", whole[:-30]):
        (ours / "cases.npz").write_bytes(damaged)
        with pytest.raises(SetupError, match="no report to compare with"):
            compare_reports(ours, ours)


def test_a_report_of_another_format_is_to_be_made_anew(written):
    ours = written("a", Noisy("m", 1))
    report = json.loads((ours / "report.json").read_text()) | {"format": 1}
    (ours / "report.json").write_text(json.dumps(report))
    with pytest.raises(SetupError, match="another format"):
        compare_reports(ours, ours)
