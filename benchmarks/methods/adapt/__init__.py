"""Domain adaptation: labels of one domain, pictures without labels of another.

One interface for all methods: an ``AdaptationLoss`` takes a labelled batch of the source
and an unlabelled one of the target and gives losses by name; ``adapt`` trains a bottleneck
and a classifier with it on features from any extractor, and returns a classifier for both
domains.
"""

from benchmarks.methods.adapt.adapt import DEFAULT, METHODS, AdaptSettings, adapt
from benchmarks.methods.adapt.domains import Labelled, Unlabelled
from benchmarks.methods.adapt.losses import AdaptationLoss, mk_mmd
from benchmarks.methods.adapt.network import DomainClassifier, Projection

__all__ = [
    "DEFAULT",
    "METHODS",
    "AdaptSettings",
    "AdaptationLoss",
    "DomainClassifier",
    "Labelled",
    "Projection",
    "Unlabelled",
    "adapt",
    "mk_mmd",
]
