"""A few-shot problem with a known answer, and how often a learner finds it."""

import torch
from torch import Tensor

from benchmarks.methods.meta.episodes import EpisodeSampler, FewShotNet, ResidualAdapter
from benchmarks.methods.meta.learners import FewShotLearner
from benchmarks.methods.meta.maml import MamlLearner, classification_maml
from tests.unit.training.synthetic import WIDTH

WAYS = 3


def maml_learner(prototypes: bool) -> MamlLearner:
    """An untrained one."""
    torch.manual_seed(0)
    net = FewShotNet(ResidualAdapter(WIDTH, hidden=8), WAYS)
    return MamlLearner(classification_maml(net, prototypes=prototypes, steps=3, rate=0.05))


def accuracy(
    learner: FewShotLearner, features: Tensor, sampler: EpisodeSampler, episodes: int = 30
) -> float:
    """The share of right answers to the queries of drawn episodes."""
    generator = torch.Generator().manual_seed(5)
    right = []
    for _ in range(episodes):
        drawn = sampler.draw(generator)
        support, queries = features[drawn.support], features[drawn.queries]
        predicted = learner(support, drawn.support_labels, queries).argmax(dim=1)
        right.append((predicted == drawn.query_labels).float().mean())
    return float(torch.stack(right).mean())
