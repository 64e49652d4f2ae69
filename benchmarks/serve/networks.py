"""Image towers with random weights that keep pictures apart, as trained ones do."""

from typing import cast

import torch
from timm.models.resnet import Bottleneck
from torch import Tensor, nn

_RESIDUAL = 0.2
"""Scale of each block's residual."""
_BATCH = 16


def fit_statistics(model: nn.Module, pixels: Tensor) -> nn.Module:
    """Fit the batch norms of a ResNet with random weights to ``pixels``, in place; return it.

    No package has trained weights of ResNet-50. The time of a forward does not depend on them,
    but the effect of rounding does: a plain random network maps all pictures to nearly the same
    vector, so that no precision below float32 would pass the gate. With small residuals it keeps
    pictures apart as a trained network does.
    """
    for module in model.modules():
        if isinstance(module, Bottleneck):
            cast(nn.BatchNorm2d, module.bn3).weight.data.fill_(_RESIDUAL)
        if isinstance(module, nn.BatchNorm2d):
            # A plain mean, not a moving one.
            module.momentum = None
            module.reset_running_stats()
    with torch.no_grad():
        for batch in pixels.split(_BATCH):
            model.train()(batch)
    return model.eval()
