"""Warm start of a training from the weights of an earlier version, where they fit."""

from pathlib import Path

from newshelf.nn.checkpoint import load_checkpoint
from newshelf.nn.encoder import Encoder
from newshelf.nn.scorer import SiameseScorer
from newshelf.training.features import tower_identity
from newshelf.training.run import Run


def start_from(folder: Path | None, encoder: Encoder, run: Run) -> SiameseScorer | None:
    """Load the weights of the checkpoint in ``folder`` into ``encoder``; return its scorer.

    Fusion, attribute tower, and heads of the same classes continue, if both versions read the same
    features. Otherwise nothing is loaded, and the run says why.
    """
    if folder is None:
        return None
    checkpoint = load_checkpoint(folder)
    earlier, name = checkpoint.encoder, f"version {checkpoint.version}"
    if _inputs(encoder) != _inputs(earlier):
        run.tell(
            f"training starts from scratch, not from {name}: its towers, attributes or fusion are "
            "others"
        )
        return None
    encoder.fusion.load_state_dict(earlier.fusion.state_dict())
    encoder.attribute_tower.load_state_dict(earlier.attribute_tower.state_dict())
    new = []
    for head, classes in encoder.spec.labels.items():
        if earlier.spec.labels.get(head) == classes:
            encoder.heads[head].load_state_dict(earlier.heads[head].state_dict())
        else:
            new.append(head)
    also = f"; heads with other classes start from scratch: {', '.join(new)}" if new else ""
    run.tell(f"training starts from {name}{also}")
    return checkpoint.scorer


def _inputs(encoder: Encoder) -> list[object]:
    """Return what two encoders must share, or else one's weights mean nothing to the other."""
    spec = encoder.spec
    towers = [(spec.image, encoder.image_tower), (spec.text, encoder.text_tower)]
    known = [tower_identity(one, tower) if one and tower else None for one, tower in towers]
    return [*known, spec.fusion, spec.embedding, spec.attributes.buckets, spec.attributes.width]
