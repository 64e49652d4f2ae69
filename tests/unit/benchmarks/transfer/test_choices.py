"""No choice is made on what a seed tests on, and no method gets what another does not."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional as F

from benchmarks.methods.adapt.source_only import DEFAULT, METHODS
from benchmarks.transfer import episodes, home, jewellery, maml, office, wild
from benchmarks.transfer.episodes import BASELINES, TOGETHER, WITH_TITLE, Method, _measure
from benchmarks.transfer.jewellery import _DEVELOPMENT, _drawn, _Shelf
from newshelf.catalog.interactions import Sequences
from newshelf.evaluation.types import Case, Split
from newshelf.training.adaptation import AdaptSettings

TARGET = torch.arange(600) % 5


def test_the_development_photographs_are_never_tested():
    tested = []
    for seed in range(4):
        development, learn, test = wild._parts(TARGET, seed)
        assert not set(learn.tolist()) & set(test.tolist())
        assert set(development.tolist()) <= set(learn.tolist())
        assert len(learn) + len(test) == len(TARGET)
        tested.append(set(test.tolist()))
    assert len(development) == 150
    assert set(tested[0]) != set(tested[1])
    assert set.union(*tested).isdisjoint(development.tolist())


def test_the_development_pictures_of_jewellery_are_never_tested():
    development = _drawn(TARGET, torch.ones(600, dtype=torch.bool), _DEVELOPMENT)
    shelf = _Shelf(None, TARGET, tuple("abcde"), torch.zeros(600, dtype=bool), development, {})
    assert torch.bincount(TARGET[development]).tolist() == [30] * 5
    tests = [shelf.split(seed)[1] for seed in range(4)]
    assert not torch.equal(tests[0], tests[1])
    for seed, test in enumerate(tests):
        assert torch.bincount(TARGET[test]).tolist() == [36] * 5
        assert not development[test].any()
        pool = shelf.split(seed)[0]
        assert development[pool].sum() == development.sum()


def test_every_method_of_domain_adaptation_gets_the_same_steps(monkeypatch, tmp_path):
    """The library's defaults, which are compared on the development photographs."""
    calls: dict[str, list] = {}

    def adapt(source, labels, target, run, *, method, settings=None):
        calls.setdefault(method, []).append(settings)
        return lambda rows: (rows, torch.zeros(len(rows), 2))

    items = pd.DataFrame(
        {
            "product_type": ["mug", "bike"] * 20,
            "domain": np.repeat(["amazon", "caltech10", "dslr", "webcam"], 10),
        }
    )
    image = torch.rand(40, 8)
    context = SimpleNamespace(
        catalog=lambda name: SimpleNamespace(items=items),
        backbone=lambda catalog: SimpleNamespace(table=SimpleNamespace(image=image)),
        measured=lambda task, seed, measure: measure(),
        seeds=(0,),
        console=SimpleNamespace(print=lambda text: None),
        figures=tmp_path,
    )
    monkeypatch.setattr(office, "adapt", adapt)
    monkeypatch.setattr(office, "_viewed", lambda context, catalog, plain: plain)
    for name in ("draw_rows", "draw_table", "draw_domains"):
        monkeypatch.setattr(office, name, lambda *words: None)
    result = office.run(context)
    assert set(calls) == set(METHODS.values())
    assert all(given is None for settings in calls.values() for given in settings)
    assert result.goals[0].method == "MCC"


@pytest.mark.parametrize("setting", ["", f", {TOGETHER}", f", {WITH_TITLE}"])
def test_a_linear_probe_is_a_baseline_of_every_kind_of_episode(setting):
    measure = f"accuracy, 5 shots{setting}"
    assert any("linear probe" in name for name in BASELINES if _measure(5, name) == measure)


def test_choices_read_features_that_know_no_validation_type(monkeypatch):
    seen = []

    def accuracies(method, labels, shots, episodes):
        seen.append(method.features)
        return np.ones(1)

    monkeypatch.setattr(episodes, "accuracies", accuracies)
    final, choosing = torch.zeros(1), torch.ones(1)
    episodes._chosen_by(Method(None, final, choosing), torch.zeros(1))
    episodes._chosen_by(Method(None, final), torch.zeros(1))
    assert seen[0] is choosing
    assert seen[1] is final


def test_the_general_model_has_its_best_rate_at_every_number_of_steps(monkeypatch):
    """One step is best at a high rate, twenty at a low one."""

    def curve(world, categories, model, steps):
        return [-abs(step * model.rate - 0.3) for step in steps]

    monkeypatch.setattr(maml, "ndcg_curve", curve)
    monkeypatch.setattr(maml, "Maml", lambda *_, **given: SimpleNamespace(**given))
    world = SimpleNamespace(validation=[])
    found = maml.best_rates(world, None, (1, 3, 20))
    assert {step: model.rate for step, model in found.items()} == {1: 0.3, 3: 0.1, 20: 0.01}


def test_meta_learning_is_compared_with_the_best_rate():
    names = (*maml._GENERALS, maml._FIRST, maml._SECOND, maml._SCRATCH)
    steps = maml._STEPS
    curves = {name: [[0.01 * step for step in steps]] for name in names}
    curves[maml._BEST] = [[1.0 for _ in steps]]
    rows = [row for row in maml._rows(curves) if row.measure == maml._FEWER]
    values = {row.method: row.values[0] for row in rows if row.baseline}
    assert values[maml._BEST] == 0
    assert values[maml._GENERAL] == maml.COMPARED


def test_a_variant_has_title_and_description_of_what_is_known():
    items = pd.DataFrame(
        {
            "title": ["Storage box", "storage  box", "Storage box", "Lamp", "Lamp"],
            "description": ["Fits TROFAST.", "Fits TROFAST.", "With lid.", None, None],
        }
    )
    designs, titles = home._families(items)
    case = Case(np.array([0]), np.array([1]))
    split = Split("all", Sequences([np.array([0])]), [case], np.ones(5, bool), "")
    assert home._unknown(designs, split).tolist() == [False, False, True, True, True]
    assert home._unknown(titles, split).tolist() == [False, False, False, True, True]


def test_every_baseline_of_the_episodes_is_measured_and_one_method_is_chosen(monkeypatch):
    """On types that two numbers tell apart, with a stand-in for what trains for long."""
    generator = torch.Generator().manual_seed(0)
    classes = torch.arange(18).repeat_interleave(24)
    features = 3 * torch.randn(18, 12, generator=generator)[classes]
    features += torch.randn(len(classes), 12, generator=generator)
    nothing = torch.full_like(classes, -1)
    types = episodes.Types(
        torch.where(classes < 8, classes, nothing),
        torch.where((classes >= 8) & (classes < 13), classes - 8, nothing),
        torch.where(classes >= 13, classes - 13, nothing),
    )
    monkeypatch.setattr(episodes, "_CHOOSING", 3)
    monkeypatch.setattr(episodes, "_MAML_WIDTH", 8)
    monkeypatch.setattr(episodes, "_all_types", lambda *_: torch.nn.Identity())
    plain = episodes.Prototypes()
    monkeypatch.setattr(episodes, "_maml", lambda rows, *_: Method(plain, rows))
    run = SimpleNamespace(seed=0)
    methods, said = episodes.all_methods(features, features, features, types, run)
    assert set(BASELINES) <= set(methods)
    for suffix in ("", f", {TOGETHER}"):
        picked = methods[episodes.CHOSEN + suffix]
        others = {name for name, method in methods.items() if method is picked}
        assert others - {episodes.CHOSEN + suffix} - set(BASELINES)
    whitened = methods["linear probe, whitened"]
    assert not torch.equal(whitened.choosing, whitened.features)
    assert "shrinkage" in said


def test_jewellery_chooses_on_the_development_pictures(monkeypatch):
    """One option tells the classes apart; the tuned tower and the source's tower guess."""
    generator = torch.Generator().manual_seed(0)
    target = torch.arange(1200) % 5
    everything = torch.ones(1200, dtype=torch.bool)
    development = _drawn(target, everything, _DEVELOPMENT)
    pictures = jewellery.PictureSet(torch.arange(1200), torch.arange(1200))
    shelf = _Shelf(pictures, target, tuple("abcde"), ~everything, development, {})
    good = jewellery._STAGES[1]
    asked = []

    def stage_features(tower, spec, pixels, option):
        asked.append(pixels)
        noise = torch.randn(len(pixels), 5, generator=generator)
        told = torch.nn.functional.one_hot(target[pixels], 5).float()
        return 10 * told + noise if option == good else noise

    def tune(part, spec, tower, settings, train, test, run):
        return torch.randn(len(test), 5, generator=generator).log_softmax(dim=1)

    monkeypatch.setattr(jewellery, "stage_features", stage_features)
    monkeypatch.setattr(jewellery, "_tune", tune)
    choice = jewellery._choose(SimpleNamespace(console=None), shelf, None, None, None)
    assert choice.stages == good
    assert set(choice.judged) == set(jewellery._SHOTS)
    assert choice.judged[20] == jewellery._INNER
    assert "300 development pictures" in choice.said
    for pixels in asked:
        assert development[pixels].all()


def test_wild_chooses_the_method_that_is_best_on_the_development_photographs(monkeypatch):
    target = torch.arange(40) % 2
    lengths = []

    def adapt(source, labels, unlabelled, run, *, method, settings):
        lengths.append((method, settings.epochs))
        right = method is METHODS["cdan"]
        return lambda rows: (rows, F.one_hot(rows[:, 0].long() ^ (not right), 2))

    monkeypatch.setattr(wild, "adapt", adapt)
    monkeypatch.setattr(wild, "Projection", lambda *_: lambda rows: rows)
    features = target.float().unsqueeze(1)
    context = SimpleNamespace(console=None)
    judged, said = wild._choose(context, (None, None), features, target)
    assert judged == "CDAN"
    assert {epochs for method, epochs in lengths if method is not METHODS[DEFAULT]} == {
        AdaptSettings().epochs
    }
    assert "40 photographs" in said
