import io
import json

import numpy as np
import pytest
from rich.console import Console

from newshelf.errors import SetupError
from newshelf.evaluation.compare_reports import compare_reports, print_pairs
from newshelf.evaluation.evaluate import compare
from newshelf.evaluation.report import EvaluationReport, write_report


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
