import io
import json

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from newshelf.evaluation.comparison import Comparison
from newshelf.evaluation.plot import draw
from newshelf.evaluation.report import Report, write_report
from newshelf.evaluation.terminal import print_report
from newshelf.evaluation.types import Metrics


def metrics(name, ndcg):
    return Metrics(
        ranker=name,
        split="time",
        cases=4,
        recall={10: 0.25, 20: 0.5},
        ndcg={10: ndcg, 20: ndcg},
        mrr=0.125,
        coverage={10: 0.5, 20: 0.75},
        ndcg_per_case={10: np.full(4, ndcg), 20: np.full(4, ndcg)},
    )


def comparison(model=0.3, best=0.2):
    return Comparison(
        split="time",
        description="Asked for [everything] | later.",
        k=(10, 20),
        items=50,
        baselines=(metrics("random", 0.0), metrics("EASE [x]|y", best)),
        model=None if model is None else metrics("siamese", model),
    )


def report(*comparisons):
    return Report("shop", 60, 7, comparisons, model_version="abc", created="2024-01-02T03:04:05")


def test_both_files_and_the_plot_are_written(tmp_path):
    write_report(report(comparison()), tmp_path / "evaluation")
    names = {path.name for path in (tmp_path / "evaluation").iterdir()}
    assert names == {"report.json", "report.md", "ndcg.png"}


def test_json_holds_every_figure(tmp_path):
    write_report(report(comparison()), tmp_path)
    found = json.loads((tmp_path / "report.json").read_text())
    assert (found["catalog"], found["items"], found["seed"]) == ("shop", 60, 7)
    assert (found["model_version"], found["created"]) == ("abc", "2024-01-02T03:04:05")
    assert set(found["versions"]) == {"python", "numpy", "scipy", "pandas"}
    (split,) = found["splits"]
    assert (split["cases"], split["items_ranked"], split["k"]) == (4, 50, [10, 20])
    assert (split["best_baseline"], split["model"]) == ("EASE [x]|y", "siamese")
    assert split["ratio"] == pytest.approx(1.5)
    assert split["ratio_interval_95"] == pytest.approx([1.5, 1.5])
    assert split["rankers"][2] == {
        "name": "siamese",
        "recall": {"10": 0.25, "20": 0.5},
        "ndcg": {"10": 0.3, "20": 0.3},
        "mrr": 0.125,
        "coverage": {"10": 0.5, "20": 0.75},
    }


def test_markdown_has_a_table_per_split_with_the_model_in_bold():
    lines = report(comparison()).to_markdown().splitlines()
    assert "2024-01-02T03:04:05 · model abc · 60 items · seed 7" in lines[2]
    row = "| **siamese** | **0.2500** | **0.5000** | **0.3000** | **0.3000** | **0.1250** |"
    assert any(line.startswith(row) for line in lines)
    assert any(line.startswith("| EASE [x]\\|y | 0.2500") for line in lines)
    assert "siamese reaches 1.50 times that" in lines[-1]


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
    assert found.to_markdown().rstrip().endswith("NDCG@10 0.2000.")


def test_baselines_that_find_nothing_give_no_ratio():
    found = report(comparison(best=0.0))
    assert found.to_json()["splits"][0]["ratio"] is None
    assert "No baseline found anything" in found.to_markdown()


def test_the_plot_is_a_picture_that_grows_with_the_splits(tmp_path):
    draw([comparison()], tmp_path / "one.png", "shop")
    draw([comparison(), comparison(model=None)], tmp_path / "two.png", "shop")
    widths = [Image.open(tmp_path / name).width for name in ("one.png", "two.png")]
    assert widths[1] > 1.5 * widths[0]


def test_nothing_to_draw_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="no split"):
        draw([], tmp_path / "none.png", "shop")
