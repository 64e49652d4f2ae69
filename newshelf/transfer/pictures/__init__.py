"""Fine-tuning of the image tower itself, from a rich category to a poor one.

``newshelf.transfer.finetune`` learns on cached features of frozen towers. Here the tower
learns too: read the pictures, tune the tower on them, or read features from its inner
stages and leave it as it is.
"""

from newshelf.transfer.pictures.mean import geometric_mean
from newshelf.transfer.pictures.probe import Probe, fit_probe
from newshelf.transfer.pictures.read import Pictures, read_pictures
from newshelf.transfer.pictures.settings import StageSettings, TowerSettings
from newshelf.transfer.pictures.stage_features import StageFeatures, stage_features
from newshelf.transfer.pictures.tune import TunedTower, tune_tower
from newshelf.transfer.pictures.views import View, cached_stage_features, view_features

__all__ = [
    "Pictures",
    "Probe",
    "StageFeatures",
    "StageSettings",
    "TowerSettings",
    "TunedTower",
    "View",
    "cached_stage_features",
    "fit_probe",
    "geometric_mean",
    "read_pictures",
    "stage_features",
    "tune_tower",
    "view_features",
]
