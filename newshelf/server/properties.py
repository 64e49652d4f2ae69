"""TorchServe's properties: the repository's file, and the final ones of a start."""

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from newshelf.errors import ServerError
from newshelf.files import write_private
from newshelf.server.ports import HOST, Ports

_PATHS = ("model_store", "metrics_config")


def read_properties(path: Path) -> dict[str, str]:
    """Read ``key=value`` lines, without comments and empty lines."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ServerError(f"cannot read {path}: {error.strerror}") from error
    properties: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text or text.startswith(("#", "!")):
            continue
        key, equals, value = text.partition("=")
        if not equals or key.strip() in properties:
            raise ServerError(f"{path}, line {number}: {line!r} must be key=value, each key once")
        properties[key.strip()] = value.strip()
    return properties


def final_properties(
    base: Mapping[str, str],
    *,
    root: Path,
    ports: Ports | None,
    model_store: Path,
    models: Mapping[str, Path],
) -> dict[str, str]:
    """Return the properties of one start of TorchServe; each model has one version, the default."""
    for name, archive in models.items():
        if archive.parent != model_store or not archive.is_file():
            raise ServerError(f"the archive of {name} is not in {model_store}: {archive}")
    final = dict(base)
    for key in _PATHS:
        if key in final:
            final[key] = str((root / final[key]).resolve())
    final["model_store"] = str(model_store.resolve())
    final["load_models"] = ",".join(f"{name}={path.name}" for name, path in models.items())
    if ports is not None:
        for name, port in asdict(ports).items():
            final[_PORTS[name]] = f"http://{HOST}:{port}" if name in _ADDRESSES else str(port)
    return final


_ADDRESSES = ("inference", "management", "metrics")
_PORTS = {name: f"{name}_address" for name in _ADDRESSES} | {
    name: f"{name}_port" for name in ("grpc_inference", "grpc_management")
}
"""Property of each port."""


def ports_of(properties: Mapping[str, str]) -> Ports:
    """Return the ports in ``properties``."""
    given = {name: properties[key] for name, key in _PORTS.items() if properties.get(key)}
    try:
        return Ports(**{name: int(value.rpartition(":")[2]) for name, value in given.items()})
    except ValueError as error:
        raise ServerError(f"config.properties has a port that is no number: {error}") from error


def write_properties(path: Path, properties: Mapping[str, str]) -> None:
    """Write the properties so that Java reads back the same strings."""
    # Java reads Latin-1 with the escapes of JSON: backslashes, and UTF-16 after backslash and u.
    lines = [f"{key}={json.dumps(value)[1:-1]}\n" for key, value in properties.items()]
    path.write_text("".join(lines), encoding="ascii")


def keep_loading(path: Path, model: str, archive: str) -> None:
    """Let TorchServe load this archive of a model when it starts again with these properties."""
    with suppress(FileNotFoundError):
        text = path.read_text(encoding="ascii")
        loads = re.compile(rf"^(load_models=.*\b{model}=)[^,\n]+", re.MULTILINE)
        write_private(path, loads.sub(rf"\g<1>{archive}", text))


def archives(models: Sequence[Path]) -> dict[str, Path]:
    """Return the archives, which are called ``NAME-VERSION.mar``, by model name."""
    return {path.stem.partition("-")[0]: path for path in models}
