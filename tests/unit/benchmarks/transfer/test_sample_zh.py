"""Both languages of the sample are measured on the same cases, each with its own texts."""

from functools import partial

import numpy as np
from rich.console import Console

from benchmarks.results import judge
from benchmarks.transfer import sample_zh
from benchmarks.transfer.command import TransferContext
from newshelf.cli.pipeline import settings_from
from newshelf.sample.build import draw_sample


class Oracle:
    """Finds the relevant items of the first ``share`` of the cases."""

    name = "newshelf"

    def __init__(self, split, share):
        cases = split.cases[: round(share * len(split.cases))]
        self.answers = {tuple(case.history): case.relevant for case in cases}
        self.n_items = split.n_items

    def scores(self, histories):
        found = np.zeros((len(histories), self.n_items), dtype=np.float32)
        for row, history in zip(found, histories, strict=True):
            row[self.answers.get(tuple(history), [])] = 1
        return found


def test_chinese_is_judged_by_english_on_the_same_cases(monkeypatch, tmp_path):
    seen, splits = [], []

    def embedded(context, catalog, seed):
        assert seed == 5
        seen.append((context.settings.text.weights, catalog.items["title"].iloc[0].isascii()))
        return None, None

    def rankers(context, catalog, split, embeddings, features, seed):
        splits.append(split)
        return [], [Oracle(split, 1.0 if seen[-1][1] else 0.5)]

    monkeypatch.setattr(sample_zh, "draw_sample", partial(draw_sample, products=60, shoppers=90))
    monkeypatch.setattr(sample_zh, "embedded", embedded)
    monkeypatch.setattr(sample_zh, "rankers", rankers)
    console = Console(quiet=True)
    settings = settings_from(None)
    context = TransferContext(tmp_path, None, tmp_path, tmp_path, (5,), console, settings)
    result = sample_zh.run(context)
    assert seen == [("auto", True), ("auto", False), ("packaged", False)]
    assert all(split is splits[0] for split in splits)
    (verdict,) = judge(result)
    assert not verdict.reached
    assert verdict.method.mean < 0.8 < verdict.baseline.mean
    assert verdict.baseline.method == "English"
    assert verdict.method.method == "Chinese"
    assert not list(tmp_path.rglob("*.jpg")), "the drawn samples are removed"
