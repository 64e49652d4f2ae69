"""ResNet-50, the production tower."""

from benchmarks.serve.context import Context
from benchmarks.serve.encoder import STOCK, Comparison, compare
from benchmarks.serve.inprocess import Loop
from benchmarks.serve.peer import PeerLayout
from benchmarks.serve.torchserve import Layout
from benchmarks.transfer.result import TaskResult

__all__ = ["COMPARISON", "run"]

COMPARISON = Comparison(
    task="resnet50",
    title="Encoder with ResNet-50",
    # As many workers, threads and pictures at once as the peers have.
    layout=Layout(workers=2, threads=1, batch_size=8),
    stock=STOCK,
    peers=(
        PeerLayout("FastAPI", 2, 1, onnxruntime=True),
        PeerLayout("FastAPI", 2, 1),
        PeerLayout("LitServe", 2, 1, 8, 5.0),
        PeerLayout("Ray Serve", 2, 1, 8, 5.0),
        PeerLayout("BentoML", 2, 1, 8),
    ),
    loops=(Loop(1, 2, 8, 2), Loop(2, 1, 1), Loop(2, 1, 8), Loop(3, 1, 4)),
    weights=(
        "The weights are random, of a fixed seed, with batch norms that were fitted to the "
        "pictures: no trained ones come with a package, and the time does not depend on them."
    ),
)


def run(context: Context) -> TaskResult:
    """See ``benchmarks.serve.encoder``."""
    return compare(COMPARISON, context)
