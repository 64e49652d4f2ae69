"""Pictures of architecture.md and of the tutorial's cluster.

``python docs/images/architecture/draw.py`` writes them.
"""

from html import escape
from itertools import pairwise
from pathlib import Path

LANE, ROW, BOX_WIDTH, BOX_HEIGHT, TOP = 232, 66, 212, 46, 56
STYLE = """
  .page { fill: #ffffff } .lane { fill: #f3f5f8 } .box { fill: #ffffff; stroke: #57708f }
  .arrow { stroke: #57708f; fill: none; stroke-width: 1.4 } .tip { fill: #57708f }
  text { font-family: "DejaVu Sans", Verdana, sans-serif; fill: #1d2733; text-anchor: middle }
  .name { font-size: 14px; font-weight: bold } .step { font-size: 12.5px }
  .file { font-family: "DejaVu Sans Mono", Consolas, monospace; font-size: 10.5px; fill: #3d5675 }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0d1117 } .lane { fill: #171d26 } .box { fill: #0d1117; stroke: #8fa8c8 }
    .arrow { stroke: #8fa8c8 } .tip { fill: #8fa8c8 } text { fill: #e6edf3 }
    .file { fill: #a9c1de }
  }
"""

# Lanes, then steps from top to bottom: lane, what happens, where.
PICTURES: dict[str, tuple[str, list[str], list[tuple[int, str, str]]]] = {
    "recommend-request": (
        "A recommend request, from the gateway to a worker and back",
        ["Gateway", "TorchServe", "Worker", "Event store"],
        [
            (0, "1 id, key, rate, limits", "gateway/middleware.py"),
            (0, "2 validate the body", "gateway/schemas.py"),
            (0, "3 choose the version", "rollout/assignment.py"),
            (0, "4 send, with the deadline", "gateway/upstream.py"),
            (1, "5 queue and batch", "config.properties"),
            (2, "6 requests of the batch", "handlers/adapter.py"),
            (2, "7 parse", "serving/requests.py"),
            (2, "8 encode inline products", "serving/encode.py"),
            (2, "9 look up, filter", "serving/resolve.py"),
            (2, "10 retrieve, score, blend", "serving/ranking.py"),
            (0, "11 exposure", "gateway/recommend.py"),
            (3, "12 commit", "store/group_commit.py"),
            (0, "13 answer", "gateway/middleware.py"),
        ],
    ),
    "catalogue-row": (
        "A catalogue row, from the shop's file to the served index",
        ["Catalogue", "Training", "Export", "Worker"],
        [
            (0, "1 read the table", "catalog/read.py"),
            (0, "2 check and convert cells", "catalog/checks.py"),
            (0, "3 clean the texts", "catalog/clean.py"),
            (1, "4 tower features", "training/features.py"),
            (1, "5 fine-tune, embed", "training/finetune.py"),
            (1, "6 scorer and signals", "training/ranking.py"),
            (1, "7 attributes", "attributes/build.py"),
            (1, "8 checkpoint", "nn/checkpoint.py"),
            (2, "9 graphs, parity gate", "export/parity.py"),
            (2, "10 index", "export/index.py"),
            (2, "11 archive", "export/archive.py"),
            (3, "12 load, golden products", "serving/encoder_predictor.py"),
            (3, "13 map the index", "serving/index.py"),
        ],
    ),
    "feedback-event": (
        "A feedback event, from the front end to a rollout's decision",
        ["Gateway", "Event store", "Controller", "Training"],
        [
            (0, "1 key, rate, size", "gateway/middleware.py"),
            (0, "2 validate each event", "gateway/schemas.py"),
            (0, "3 store, or spool", "gateway/record.py"),
            (1, "4 join to the answer", "store/write.py"),
            (1, "5 commit in a group", "store/group_commit.py"),
            (1, "6 sums per unit", "store/aggregates.py"),
            (2, "7 metrics and intervals", "rollout/analysis.py"),
            (2, "8 decide", "rollout/decide.py"),
            (2, "9 act on the servers", "rollout/controller.py"),
            (1, "10 export", "store/export.py"),
            (3, "11 next training run", "training/train.py"),
        ],
    ),
    "cluster": (
        "A cluster, from your machine to the pods",
        ["Your machine", "Bucket, secrets", "Each of three pods", "PostgreSQL"],
        [
            (0, "1 keys, made once", "gateway/keys.py"),
            (1, "2 secrets", "deploy/helm/newshelf"),
            (0, "3 archives of a version", "export/archive.py"),
            (1, "4 bucket", "model_store"),
            (2, "5 fetch, prepare", "deploy/helm/newshelf/files"),
            (2, "6 models: TorchServe", "server/torchserve.py"),
            (2, "7 controller", "rollout/controller.py"),
            (3, "8 state, for all pods", "store/rollouts.py"),
            (2, "9 shelf", "shelf/publish.py"),
            (3, "10 products, vectors", "store/items.py"),
            (2, "11 gateway", "gateway/app.py"),
            (3, "12 answers, feedback", "store/write.py"),
        ],
    ),
}


def draw(title: str, lanes: list[str], steps: list[tuple[int, str, str]]) -> str:
    """Return the picture as SVG: a column per lane, a row per step."""
    width, height = LANE * len(lanes) + 8, TOP + ROW * len(steps) + 12
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img">',
        f"<title>{escape(title)}</title><style>{STYLE}</style>",
        f'<rect class="page" width="{width}" height="{height}"/>',
    ]
    for at, name in enumerate(lanes):
        x = 8 + LANE * at
        lines.append(
            f'<rect class="lane" x="{x}" y="8" width="{LANE - 8}" height="{height - 16}" rx="6"/>'
            f'<text class="name" x="{_centre(at)}" y="34">{escape(name)}</text>'
        )
    for at, ((source, *_), (target, *_)) in enumerate(pairwise(steps)):
        lines.append(_arrow(at, source, target))
    for at, (lane, what, where) in enumerate(steps):
        x, y = _centre(lane), TOP + ROW * at
        lines.append(
            f'<rect class="box" x="{x - BOX_WIDTH / 2}" y="{y}" width="{BOX_WIDTH}" '
            f'height="{BOX_HEIGHT}" rx="5"/>'
            f'<text class="step" x="{x}" y="{y + 20}">{escape(what)}</text>'
            f'<text class="file" x="{x}" y="{y + 37}">{escape(where)}</text>'
        )
    return "\n".join([*lines, "</svg>", ""])


def _centre(lane: int) -> float:
    return 8 + LANE * lane + (LANE - 8) / 2


def _arrow(row: int, source: int, target: int) -> str:
    bottom = TOP + ROW * row + BOX_HEIGHT
    end, x = TOP + ROW * (row + 1), _centre(target)
    if source == target:
        path = f"M {x} {bottom} V {end - 6}"
    else:
        side = BOX_WIDTH / 2 if target > source else -BOX_WIDTH / 2
        path = f"M {_centre(source) + side} {bottom - BOX_HEIGHT / 2} H {x} V {end - 6}"
    tip = f"M {x} {end} l -4.5 -8 h 9 z"
    return f'<path class="arrow" d="{path}"/><path class="tip" d="{tip}"/>'


if __name__ == "__main__":
    for name, (title, lanes, steps) in PICTURES.items():
        path = Path(__file__).with_name(f"{name}.svg")
        path.write_text(draw(title, lanes, steps), encoding="utf-8")
