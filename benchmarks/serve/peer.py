"""Peers as contenders: one script each, run in the peers' environment."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.serve.contender import JPEG, Endpoint, as_is, read_embedding, running
from benchmarks.serve.peers.pipeline import VARIABLE, PeerPlan
from newshelf.config import Precision, RuntimeKind
from newshelf.pipeline.workspace import ROOT
from newshelf.server.ports import HOST, free_ports

_MODULE = "benchmarks.serve.peers"
_BOUNDARY = "newshelf-benchmark"
PEERS: Mapping[str, tuple[str, ...]] = {
    "FastAPI": ("-m", f"{_MODULE}.fastapi_server"),
    "LitServe": ("-m", f"{_MODULE}.litserve_server"),
    "Ray Serve": ("-m", f"{_MODULE}.ray_server"),
    "BentoML": ("-m", "bentoml", "serve", f"{_MODULE}.bentoml_server:Embed"),
}
"""Name → arguments of the interpreter."""
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "BENTOML_DO_NOT_TRACK": "True",
    "LITSERVE_DISABLE_TELEMETRY": "1",
}


@dataclass(frozen=True)
class ServedModel:
    """The model that all contenders serve."""

    directory: Path
    """An export: graphs and preprocessing."""
    runtime: RuntimeKind
    precision: Precision
    device: Literal["cpu", "cuda"] = "cpu"


@dataclass(frozen=True)
class PeerLayout:
    """Workers, threads and batching of one peer."""

    kind: str
    """A key of ``PEERS``."""
    workers: int
    threads: int
    """Threads of the runtime in each worker."""
    batch_size: int = 1
    batch_wait_ms: float = 0.0
    onnxruntime: bool = False
    """Use ONNX Runtime also if Newshelf serves with another runtime."""

    def words(self) -> str:
        """Return the layout in words."""
        batch = f"batch ≤ {self.batch_size}, wait ≤ {self.batch_wait_ms:g} ms"
        if self.batch_size == 1:
            batch = "no batching"
        elif self.kind == "BentoML":
            batch = f"adaptive batch ≤ {self.batch_size}"
        return f"{self.workers} × {self.threads} threads, {batch}"


@dataclass(frozen=True)
class Peer:
    """One peer with one layout."""

    given: PeerLayout
    python: Path
    served: ServedModel
    work: Path

    @property
    def name(self) -> str:
        """The peer's name, with the runtime where the user chooses it."""
        if self.given.kind != "FastAPI":
            return self.given.kind
        words = {
            "onnxruntime": "ONNX Runtime",
            "openvino": "OpenVINO",
            "torchscript": "TorchScript",
        }
        return f"FastAPI + {words[self.served.runtime]}"

    @property
    def layout(self) -> str:
        """See ``Contender.layout``."""
        return f"{self.given.words()}, {self.served.runtime} {self.served.precision}"

    @contextmanager
    def run(self) -> Iterator[Endpoint]:
        """See ``Contender.run``."""
        port = free_ports().inference
        folder = self.work / "servers" / self.given.kind.split()[0].lower()
        folder.mkdir(parents=True, exist_ok=True)
        command = [str(self.python), *PEERS[self.given.kind]]
        if self.given.kind == "BentoML":
            command += ["--host", HOST, "--port", str(port)]
        env = {**os.environ, **_QUIET, **self._environment(port, folder)}
        with running(command, cwd=folder, env=env, log=folder / "server.log") as process:
            url = f"http://{HOST}:{port}"
            if self.given.kind == "BentoML":
                form = {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"}
                yield Endpoint(url, "/embed", process, form, _as_form, _first_row)
            else:
                yield Endpoint(url, "/embed", process, JPEG, as_is, read_embedding)

    def _environment(self, port: int, folder: Path) -> dict[str, str]:
        given, served = self.given, self.served
        plan = PeerPlan(
            directory=str(served.directory),
            runtime=served.runtime,
            precision=served.precision,
            port=port,
            workers=given.workers,
            threads=given.threads,
            batch_size=given.batch_size,
            batch_wait_ms=given.batch_wait_ms,
            device=served.device,
        )
        return {
            VARIABLE: json.dumps(asdict(plan)),
            "PYTHONPATH": str(ROOT),
            # The runtime has its own pool; numpy and others must not add one.
            "OMP_NUM_THREADS": str(self.given.threads),
            "BENTOML_HOME": str(folder / "home"),
        }


def _as_form(picture: bytes) -> bytes:
    head = (
        f"--{_BOUNDARY}\r\n"
        'Content-Disposition: form-data; name="images"; filename="picture.jpg"\r\n'
        "Content-Type: image/jpeg\r\n\r\n"
    )
    return head.encode() + picture + f"\r\n--{_BOUNDARY}--\r\n".encode()


def _first_row(answer: bytes) -> NDArray[np.float32]:
    return np.asarray(json.loads(answer)[0], dtype=np.float32)
