import pytest
import torch
from torch import Tensor

from tests.unit.benchmarks.methods.few_shot import WAYS
from tests.unit.training.synthetic import WIDTH, clusters


@pytest.fixture
def support() -> tuple[Tensor, Tensor]:
    """Four rows of each class of a few-shot problem, and their classes."""
    labels = torch.arange(WAYS).repeat(4)
    return clusters(labels, WIDTH, 0.3, seed=2), labels
