"""The served version's ranking of a later catalogue, and its comparison with the candidate."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from export.gate import carried_over, gate, judge, pass_gate
from newshelf.catalog.interactions import read_interactions
from newshelf.config import RetrainSettings, Settings
from newshelf.evaluation.significance import paired_test
from newshelf.evaluation.splits import newest_split
from newshelf.evaluation.types import Split
from newshelf.nn.blend import Blend
from newshelf.nn.blend_lookup import BlendLookup
from newshelf.nn.checkpoint import load_checkpoint
from newshelf.pipeline.workspace import Workspace
from newshelf.training.run import Run
from newshelf.training.train import train
from tests.said import Said
from tests.unit.evaluation.conftest import daily_shoppers
from tests.unit.training.conftest import shop_events, shop_items


def test_a_version_meets_products_that_left_and_that_are_new(
    write_catalog, tmp_path: Path, tiny_settings: Settings, said: Said
) -> None:
    folder = tmp_path / "shop"
    items, events = shop_items(48, folder), shop_events(48, users=60)
    before = write_catalog("shop", items=items[:40], events=[
        event for event in events if int(str(event["item_id"])[1:]) < 40
    ])  # fmt: skip
    settings = tiny_settings.model_copy(
        update={"retrain": tiny_settings.retrain.model_copy(update={"min_cases": 30})}
    )
    run = Run(settings.seed, said.console)
    features = tmp_path / "features"
    train(before, settings, tmp_path / "served", features, run)
    # The first product left; the last eight are new.
    after = write_catalog("shop", items=items[1:], events=[
        event for event in events if event["item_id"] != items[0]["id"]
    ])  # fmt: skip
    served = tmp_path / "served"
    train(after, settings, tmp_path / "checkpoint", features, run, start=served)
    interactions = read_interactions(after)
    assert interactions.timestamps is not None
    middle = int(np.median(np.concatenate(interactions.timestamps)))
    longer = settings.retrain.model_copy(update={"gate_days": 1000.0})
    split = newest_split(interactions, middle, longer, 0)
    place = Workspace(tmp_path, folder, is_sample=False)
    result = gate(served, place, settings, after, split, console=said.console)
    (compared, *_) = result.compared
    assert compared.cases == len(split.cases) >= 30
    assert 0 < compared.served <= 1
    assert 0 < compared.candidate <= 1


def test_signals_of_known_products_stay_and_new_ones_take_those_of_the_nearest(
    write_catalog, tmp_path: Path, tiny_settings: Settings, said: Said
) -> None:
    catalog = write_catalog("shop", items=shop_items(48, tmp_path / "shop"), events=shop_events())
    run = Run(tiny_settings.seed, said.console)
    train(catalog, tiny_settings, tmp_path / "model", tmp_path / "features", run)
    model = load_checkpoint(tmp_path / "model")
    blend, (_, trained) = model.blend, model.embeddings()
    assert blend is not None

    def signals(of: Blend, history: int) -> np.ndarray:
        links = BlendLookup(of)
        return links.signals(links.sums(np.array([history])), np.arange(len(of)))

    same = carried_over(blend, np.arange(48), trained, trained)
    np.testing.assert_allclose(same.prior, blend.prior, rtol=1e-6)
    np.testing.assert_allclose(signals(same, 3), signals(blend, 3), rtol=1e-4, atol=1e-6)
    # Product 7 again, as a new one; the others backwards.
    rows = np.concatenate([np.arange(48)[::-1], [-1]])
    moved = carried_over(blend, rows, torch.cat([trained.flip(0), trained[7:8]]), trained)
    np.testing.assert_allclose(moved.prior[:48], blend.prior[::-1], rtol=1e-6)
    direct = signals(moved, 44)[0]
    np.testing.assert_allclose(direct[:48], signals(blend, 3)[0, ::-1], rtol=1e-4)
    assert moved.unlinked[48]
    assert blend.prior.min() <= moved.prior[48] <= blend.prior.max()
    nearest = trained @ trained[7]
    assert moved.prior[48] == pytest.approx(
        float((torch.softmax(nearest.topk(20).values / 0.05, 0) * torch.from_numpy(
            blend.prior[nearest.topk(20).indices.numpy()])).sum()), rel=1e-3,
    )  # fmt: skip


SETTINGS = RetrainSettings(min_cases=30)


@dataclass(frozen=True)
class Knows:
    """Scores the products of the cases' answers, of a share of the shoppers."""

    split: Split
    share: float
    name: str = "knows"

    def scores(self, histories):
        answers = {case.history.tobytes(): case.relevant for case in self.split.cases}
        rows = np.random.default_rng(0).random((len(histories), self.split.n_items))
        for place, history in enumerate(histories):
            if place < self.share * len(histories):
                rows[place, answers[history.tobytes()]] = 2
        return rows.astype(np.float32)


@pytest.mark.parametrize(
    ("served", "candidate", "passed"),
    [(0.3, 0.9, True), (0.9, 0.3, False), (0.6, 0.6, False)],
)
def test_only_a_better_candidate_passes(served: float, candidate: float, passed: bool) -> None:
    split = newest_split(daily_shoppers(), 0, SETTINGS, 0)
    result = pass_gate(split, Knows(split, served), Knows(split, candidate), SETTINGS)
    assert result.passed is passed
    assert [one.name for one in result.compared] == ["newest", "new products"]
    assert result.compared[1].cases == 30
    (first, *_) = result.compared
    assert (first.candidate > first.served) is passed
    assert f"{first.candidate:.4f}" in result.reason


def verdict(difference: float, spread: float, gate: str, cases: int = 400) -> bool:
    rng = np.random.default_rng(3)
    served = rng.uniform(0.3, 0.7, cases)
    change = rng.normal(0, spread, cases)
    candidate = served + change - change.mean() + difference
    settings = RetrainSettings.model_validate({"gate": gate})
    return judge(paired_test(candidate, served, np.arange(cases)), settings)[0]


@pytest.mark.parametrize(
    ("difference", "spread", "better", "no_worse"),
    [
        (0.05, 0.1, True, True),
        (0.0, 0.1, False, True),  # the margin is 0.025, and the interval ends at -0.01
        (0.0, 0.5, False, False),  # too uncertain
        (-0.015, 0.05, False, False),  # within the margin, and significantly worse
        (-0.1, 0.1, False, False),
    ],
)
def test_gates_differ_in_what_an_equal_candidate_may_do(
    difference: float, spread: float, better: bool, no_worse: bool
) -> None:
    assert verdict(difference, spread, "better") is better
    assert verdict(difference, spread, "no-worse") is no_worse
