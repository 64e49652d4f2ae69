"""One embedding from what is known of a product; what is absent is masked.

Three kinds, chosen by ``[fusion] kind``::

    early       what the modalities say is put side by side, and a network reads all of it
    late        each modality has its own embedding, and a gate weighs those that are there
    attention   a learned query attends to the modalities that are there
"""

from newshelf.nn.fusion.attention import AttentionFusion
from newshelf.nn.fusion.early import EarlyFusion
from newshelf.nn.fusion.late import LateFusion
from newshelf.nn.spec import FusionSpec

__all__ = ["AttentionFusion", "EarlyFusion", "Fusion", "LateFusion", "build_fusion"]

Fusion = AttentionFusion | EarlyFusion | LateFusion

_KINDS: dict[str, type[AttentionFusion] | type[EarlyFusion] | type[LateFusion]] = {
    "attention": AttentionFusion,
    "early": EarlyFusion,
    "late": LateFusion,
}


def build_fusion(spec: FusionSpec, widths: list[int], embedding: int) -> Fusion:
    """A fusion with random weights.

    Args:
        spec: its kind and sizes.
        widths: of the features of each modality.
        embedding: width of the result.
    """
    return _KINDS[spec.kind](spec, widths, embedding)
