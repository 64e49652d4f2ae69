"""Meta-training on some types: MAML, ProtoMAML, all types at once."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call

from benchmarks.methods.meta.episodes import (
    AllTypes,
    Episode,
    EpisodeSampler,
    FewShotNet,
    ResidualAdapter,
)
from benchmarks.methods.meta.learners import Prototypes
from benchmarks.methods.meta.maml import EpisodeMaml, EpisodePart, MamlLearner, classification_maml
from newshelf.training.loop import fit
from newshelf.training.run import Run
from tests.unit.benchmarks.methods.few_shot import WAYS, accuracy, maml_learner
from tests.unit.training.synthetic import WIDTH, noisy_types

EPOCHS = {"maml": 6, "protomaml": 4, "all types": 16}


def test_protomaml_is_a_prototypical_network_before_its_first_step(support):
    rows, labels = support
    learner = maml_learner(prototypes=True)
    first = next(learner.maml.trajectory(EpisodePart(rows, labels)))
    got = learner.maml.predict(first, rows).log_softmax(dim=1)
    embedded = learner.maml.model.adapter(rows)
    expected = Prototypes()(embedded, labels, embedded)
    torch.testing.assert_close(got, expected.log_softmax(dim=1), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["maml", "protomaml", "all types"])
def test_meta_training_on_some_types_helps_others(kind):
    rows, labels = noisy_types(40, 25)
    seen = labels < 30
    train = torch.where(seen, labels, -1)
    unseen = EpisodeSampler(torch.where(seen, -1, labels), ways=WAYS, shots=2, queries=8)
    sampler = EpisodeSampler(train, ways=WAYS, shots=2, queries=8)
    frozen = accuracy(Prototypes("cosine"), rows, unseen)
    torch.manual_seed(0)
    adapter = ResidualAdapter(WIDTH, hidden=64)
    batches = sampler.batches(tasks=8, steps=25)
    if kind == "all types":
        objective = AllTypes(adapter, rows, train, drop=0.0)

        def learner(support, labels, queries):
            return Prototypes("cosine")(adapter(support), labels, adapter(queries))

        def batches(epoch, generator):
            order = torch.nonzero(seen).flatten()
            return order[torch.randperm(len(order), generator=generator)].split(32)
    else:
        maml = classification_maml(
            FewShotNet(adapter, WAYS), prototypes=kind == "protomaml", steps=2, rate=0.02
        )
        objective, learner = EpisodeMaml(maml, rows), MamlLearner(maml)
    optimizer = torch.optim.Adam(objective.parameters(), lr=3e-3)
    history = fit("meta", objective, batches, optimizer, Run(0, quiet=True), epochs=EPOCHS[kind])
    assert history.loss[-1] < history.loss[0]
    assert accuracy(learner, rows, unseen) > frozen + 0.08


def test_the_objective_makes_no_tensor_on_another_device():
    there = torch.device("meta")
    net = FewShotNet(ResidualAdapter(WIDTH, hidden=8), WAYS)
    maml = classification_maml(net, prototypes=True, steps=2, rate=0.1)
    objective = EpisodeMaml(maml, torch.zeros(9, WIDTH))
    with FakeTensorMode():
        tensors = (*objective.named_parameters(), *objective.named_buffers())
        state = {n: torch.empty(t.shape, dtype=t.dtype, device=there) for n, t in tensors}
        sizes = (WAYS * 2, WAYS * 2, WAYS * 4, WAYS * 4)
        batch = Episode(*(torch.zeros(2, n, dtype=torch.int64, device=there) for n in sizes))
        assert functional_call(objective, state, (batch,))["loss"].device == there
