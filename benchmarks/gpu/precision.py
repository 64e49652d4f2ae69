"""Answers of the device compared with the CPU's in float32, and its decoder with the CPU's."""

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.gpu.command import GpuContext
from benchmarks.gpu.inprocess import graph_inputs
from benchmarks.gpu.models import GpuModel, seeded_encoder
from benchmarks.gpu.pictures import SMALL, jpegs, mixture
from benchmarks.report import markdown_table
from benchmarks.results import BenchmarkError, Goal, Row, TaskResult
from benchmarks.serve.contender import cosines
from newshelf.nn.encoder import Encoder
from newshelf.nn.gpu_inputs import decode_on_gpu
from newshelf.nn.inputs import decode_picture, prepare_pictures
from newshelf.nn.spec import ImageInput
from newshelf.serving.runtimes.base import Device

_LEAST = {"fp32": 0.9999, "fp16": 0.999, "bf16": 0.999}
_DECODED, _DECODED_MEDIAN = 0.99, 0.998
_DECODER, _DECODER_MEDIAN = "decoder, least cosine", "decoder, median cosine"
_ROWS = 48


def run(context: GpuContext) -> TaskResult:
    """Compare every runtime and precision, and the decoder."""
    rows: list[Row] = []
    for text in (False, True):
        rows += _precisions(context, context.model(text=text), text=text)
    decoded, details = _decoder(context, context.model(text=False))
    return TaskResult(
        task="precision",
        title="Parity with the CPU",
        protocol=(
            f"Embeddings of {_ROWS} products by each runtime and precision, from the same pixels "
            "and tokens, compared with those of the CPU in float32: the least cosine. bf16 is the "
            "network under autocast, as in training; it is not served. The decoder's pictures are "
            "compared with the CPU's by the image tower's features."
        ),
        rows=[*rows, *decoded],
        goals=[
            *(
                Goal(measure, _LEAST[measure.rpartition(" ")[2]])
                for measure in dict.fromkeys(row.measure for row in rows)
            ),
            Goal(_DECODER, _DECODED),
            Goal(_DECODER_MEDIAN, _DECODED_MEDIAN),
        ],
        details=details,
        percent=False,
    )


def _precisions(context: GpuContext, model: GpuModel, *, text: bool) -> list[Row]:
    spec, device = model.spec.encoder, context.torch_device
    count = min(_ROWS, context.scale.mixed)
    cpu = model.load(Device(), "torchscript", "fp32")
    tokens = [[2, *range(10, 10 + 3 + at % 40), 3] if text else [] for at in range(count)]
    squares = [decode_picture(data, model.image) for data in jpegs(count)]
    pixels = torch.from_numpy(prepare_pictures(squares, model.image))
    wanted = cpu.encoder.runtime.run(graph_inputs(cpu, pixels, tokens, count))["embedding"]
    kind = "pictures and texts" if text else "pictures"
    rows = []
    for runtime, precision in context.ways:
        served = model.load(context.device, runtime, precision)
        inputs = graph_inputs(served, pixels.to(device), tokens, count)
        found = served.encoder.runtime.run(inputs)["embedding"]
        least = float(cosines(found, wanted).min())
        rows.append(Row(f"{kind}, {runtime} {precision}", "the device's", [least]))
    network = seeded_encoder(spec, context.scale).to(device)
    given = graph_inputs(cpu, pixels, tokens, count)
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16):
        embedding, *_ = network(*(torch.as_tensor(value).to(device) for value in given.values()))
    least = float(cosines(embedding.float().cpu().numpy(), wanted).min())
    return [*rows, Row(f"{kind}, autocast bf16", "the device's", [least])]


def _decoder(context: GpuContext, model: GpuModel) -> tuple[list[Row], str]:
    network = seeded_encoder(model.spec.encoder, context.scale)
    sent = [(one.kind, one.data) for one in mixture(context.scale.large) if one.good]
    sent += [(f"JPEG {SMALL[0]}×{SMALL[1]}", data) for data in jpegs(16)]
    images, failed = decode_on_gpu([data for _, data in sent], model.image, context.torch_device)
    ours = _features(network, images.cpu())
    whole = _features(network, _on_cpu([data for _, data in sent], model.image))
    cosine = cosines(ours, whole)
    kinds: dict[str, float] = {}
    for (kind, _), value in zip(sent, cosine.tolist(), strict=True):
        kinds[kind] = min(value, kinds.get(kind, 1.0))
    name = "the device's"
    rows = [
        Row(_DECODER, name, [float(cosine.min())]),
        Row(_DECODER_MEDIAN, name, [float(np.median(cosine))]),
    ]
    table = [[kind, f"{value:.4f}"] for kind, value in kinds.items()]
    refused = f"\n\nRefused: {len(failed)} of {len(sent)}." if failed else ""
    return rows, markdown_table(("picture", "least cosine"), "lr", table) + refused


def _on_cpu(pictures: list[bytes], spec: ImageInput) -> torch.Tensor:
    squares = [decode_picture(data, spec, scaled=False) for data in pictures]
    return torch.from_numpy(prepare_pictures(squares, spec))


@torch.inference_mode()
def _features(network: Encoder, pixels: torch.Tensor) -> NDArray[np.float32]:
    if network.image_tower is None:
        raise BenchmarkError("the network has no image tower")
    features: NDArray[np.float32] = network.image_tower(pixels).numpy()
    return features
