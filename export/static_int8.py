"""Static int8 of a part of a graph, by ONNX Runtime's quantiser."""

import logging
import tempfile
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from newshelf.errors import SetupError

__all__ = ["Bits", "quantise_static", "quietly"]

Bits = Literal[7, 8]
"""Of the weights."""
Batch = Mapping[str, NDArray[Any]]

_REDUCED_BITS = 7


def quantise_static(
    model: onnx.ModelProto,
    batches: Iterable[Batch],
    scratch: Path,
    *,
    operators: Sequence[str],
    bits: Bits,
    kept: Sequence[str] = (),
    plain_outputs: Collection[str] = (),
) -> onnx.ModelProto:
    """Quantise per channel (Jacob et al., 2018).

    Weights are symmetric int8 with one scale per output channel, activations uint8 with one
    range per tensor, the mean over the batches of each one's least and largest value.

    Args:
        model: float32; not changed.
        batches: its inputs, to find the ranges with.
        scratch: a folder for files that are gone in the end.
        operators: the types of the nodes that are quantised.
        bits: of the weights.
        kept: names of nodes that stay in float32.
        plain_outputs: types whose inputs alone are quantised.

    Raises:
        SetupError: it cannot be quantised.
    """
    with tempfile.TemporaryDirectory(prefix=".int8-", dir=scratch) as folder, quietly():
        source, made = Path(folder) / "part.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, source)
        try:
            quantize_static(
                str(source),
                str(made),
                _Reader(batches),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                weight_type=QuantType.QInt8,
                activation_type=QuantType.QUInt8,
                op_types_to_quantize=list(operators),
                nodes_to_exclude=list(kept),
                reduce_range=bits == _REDUCED_BITS,
                extra_options={
                    "CalibMovingAverage": True,
                    "OpTypesToExcludeOutputQuantization": list(plain_outputs),
                },
            )
        except Exception as error:
            # The quantiser raises anything where it does not know an operator.
            raise SetupError(f"the tower cannot be quantised: {error}") from error
        return onnx.load(made)


@contextmanager
def quietly() -> Iterator[None]:
    """Silence remarks on what could be prepared, and on values that float16 rounds to 0."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Batches one after the other, as the quantiser asks for them."""

    def __init__(self, batches: Iterable[Batch]) -> None:
        self._batches = iter(batches)

    def get_next(self) -> Batch | None:
        """The next batch; None after the last."""
        return next(self._batches, None)
