"""Stock TorchServe as a contender: its own handler, settings and start."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision import transforms

from benchmarks.results import BenchmarkError
from benchmarks.serve.contender import JPEG, Endpoint, as_is, running
from newshelf.server.ports import HOST, Ports, free_ports
from newshelf.server.torchserve import find_java

_CLASSES = 1000
_NAME = "classifier"


@dataclass(frozen=True)
class Stock:
    """The handler ``image_classifier`` on a TorchScript file.

    All settings except ports, tokens, ``config`` and ``threads`` are TorchServe's defaults.
    """

    python: Path
    classifier: Path
    work: Path
    config: Mapping[str, int] = field(default_factory=dict)
    """Keys of ``model-config.yaml``, such as minWorkers and batchSize."""
    threads: int | None = None
    """Threads of torch in each worker, by ``OMP_NUM_THREADS``, as TorchServe's guide to CPUs
    advises; None for torch's default, one per core."""

    @property
    def name(self) -> str:
        """See ``Contender.name``."""
        words = ["stock image_classifier"]
        words += [f"{self.threads} thread per worker"] if self.threads else []
        words += ["batches"] if "batchSize" in self.config else []
        return ", ".join(words)

    @property
    def layout(self) -> str:
        """See ``Contender.layout``."""
        changed = [f"{key} {value}" for key, value in self.config.items()]
        changed += [f"OMP_NUM_THREADS {self.threads}"] if self.threads else []
        return f"TorchScript float32, {', '.join(changed) or 'all settings as they come'}"

    @contextmanager
    def run(self) -> Iterator[Endpoint]:
        """See ``Contender.run``."""
        folder = self.work / "servers" / "stock"
        store = folder / "store"
        write_mar(
            store, _NAME, handler="image_classifier", model=self.classifier, config=self.config
        )
        ports = free_ports()
        properties = folder / "config.properties"
        properties.write_text(_properties(ports, store), encoding="utf-8")
        home = Path(torch.__file__).parents[1]
        command = [
            str(find_java()),
            f"-Dmodel_server_home={home}",
            *("-cp", str(home / "ts" / "frontend" / "*"), "org.pytorch.serve.ModelServer"),
            *("--python", str(self.python), "--ts-config-file", str(properties)),
            *("--model-store", str(store), "--no-config-snapshot", "--disable-token-auth"),
        ]
        env = {
            name: value
            for name, value in os.environ.items()
            if name != "PYTHONPATH" and not name.startswith(("TS_", "OMP_"))
        }
        if self.threads:
            env["OMP_NUM_THREADS"] = str(self.threads)
        with running(command, cwd=folder, env=env, log=folder / "server.log") as process:
            yield Endpoint(
                f"http://{HOST}:{ports.inference}",
                f"/predictions/{_NAME}",
                process,
                JPEG,
                as_is,
                _probabilities,
                partial(_expected, self.classifier),
            )


def _properties(ports: Ports, store: Path) -> str:
    lines = {
        "inference_address": f"http://{HOST}:{ports.inference}",
        "management_address": f"http://{HOST}:{ports.management}",
        "metrics_address": f"http://{HOST}:{ports.metrics}",
        "grpc_inference_port": ports.grpc_inference,
        "grpc_management_port": ports.grpc_management,
        "model_store": store,
        "load_models": f"{_NAME}.mar",
    }
    return "".join(f"{key}={value}\n" for key, value in lines.items())


def write_mar(
    store: Path, name: str, *, handler: str, model: Path | None, config: Mapping[str, int]
) -> Path:
    """Pack an archive with TorchServe's own tool, and return its path.

    Args:
        store: the folder of the archive.
        name: of the model.
        handler: the name of one of TorchServe's own, or a file.
        model: the serialized file, if the handler needs one.
        config: keys of ``model-config.yaml``.

    Raises:
        BenchmarkError: the tool failed.
    """
    store.mkdir(parents=True, exist_ok=True)
    yaml = store / f"{name}.yaml"
    yaml.write_text("".join(f"{key}: {value}\n" for key, value in config.items()) or "{}\n")
    options = {
        "model-name": name,
        "version": "1.0",
        "handler": handler,
        "export-path": str(store),
        "config-file": str(yaml),
        **({"serialized-file": str(model)} if model else {}),
    }
    tool = "from model_archiver.model_packaging import generate_model_archive as run; run()"
    command = [sys.executable, "-c", tool, "--force"]
    command += [f"--{key}={value}" for key, value in options.items()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BenchmarkError(f"torch-model-archiver failed for {name}: {done.stderr.strip()}")
    return store / f"{name}.mar"


def _probabilities(answer: bytes) -> NDArray[np.float32]:
    """Return ``(1000,)`` probabilities from ``{class: probability}`` of the best five."""
    row = np.zeros(_CLASSES, dtype=np.float32)
    for name, value in json.loads(answer).items():
        row[int(name)] = value
    return row


def _expected(classifier: Path, pictures: Sequence[Path]) -> NDArray[np.float32]:
    """Return the right answers, computed without the handler."""
    transform: Callable[[Image.Image], torch.Tensor] = transforms.Compose(
        [
            transforms.Resize(256),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    model = torch.jit.load(str(classifier))
    with torch.inference_mode():
        pixels = torch.stack([transform(Image.open(path)) for path in pictures])
        best = model(pixels).softmax(dim=1).topk(5, dim=1)
    rows = np.zeros((len(pictures), _CLASSES), dtype=np.float32)
    np.put_along_axis(rows, best.indices.numpy(), best.values.numpy(), axis=1)
    return rows
