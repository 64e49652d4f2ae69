"""TorchServe with a handler that does nothing: what no handler can go beyond."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.serve.contender import JPEG, Endpoint, as_is, read_embedding
from benchmarks.serve.noop_handler import VALUES
from benchmarks.serve.stock import write_mar
from benchmarks.serve.torchserve import serve_archives
from newshelf.server.keys import read_keys

__all__ = ["Noop"]

_HANDLER = Path(__file__).with_name("noop_handler.py")


@dataclass(frozen=True)
class Noop:
    """The handler in ``noop_handler.py`` under Newshelf's settings of TorchServe."""

    name: str
    work: Path
    config: Mapping[str, int]
    """Of ``model-config.yaml``."""
    properties: Mapping[str, str] = field(default_factory=dict)
    """Other settings of TorchServe."""

    @property
    def layout(self) -> str:
        """See ``Contender.layout``."""
        return ", ".join(
            f"{key} {value}" for key, value in {**self.config, **self.properties}.items()
        )

    @contextmanager
    def run(self) -> Iterator[Endpoint]:
        """See ``Contender.run``."""
        folder = self.work / "servers" / "noop"
        mar = write_mar(
            folder / "store", "noop", handler=str(_HANDLER), model=None, config=self.config
        )
        with serve_archives({"noop": mar}, folder, self.properties) as state:
            token = read_keys(state.key_file).inference.header()
            yield Endpoint(
                state.inference_url,
                "/predictions/noop",
                state.process,
                {**JPEG, **token},
                as_is,
                read_embedding,
                _expected,
            )


def _expected(pictures: Sequence[Path]) -> NDArray[np.float32]:
    return np.tile(np.asarray(VALUES, dtype=np.float32), (len(pictures), 1))
