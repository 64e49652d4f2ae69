"""An archive for each point: the graphs of its arithmetic, and its own configuration."""

import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from newshelf.config import Settings
from newshelf.load.requests import ModelName
from newshelf.serving.bundle import MODEL_CONFIG
from newshelf.tuning.points import Arithmetic, Point, with_point

__all__ = ["PointArchives", "Tools"]


@dataclass(frozen=True)
class Tools:
    """What the export can do, which is not imported here."""

    archive: Callable[[Settings, Path], list[Path]]
    """Writes an archive of each model into the folder."""
    model_config: Callable[[Settings, ModelName], str]
    """The text of the ``model-config.yaml`` that the settings make for a model."""


@dataclass
class PointArchives:
    """Makes archives of one model; the graphs are packed once per arithmetic."""

    model: ModelName
    settings: Settings
    tools: Tools
    folder: Path
    """Takes the archives; exists."""
    _packed: dict[Arithmetic, Path] = field(default_factory=dict)

    def make(self, point: Point) -> Path:
        """Write the archive of ``point``; the caller removes it.

        Raises:
            SetupError: the export lacks what the point needs, or settings refuse it.
        """
        settings = with_point(self.settings, self.model, point)
        path = self.folder / f"{self.model}-point.mar"
        config = _without_cache(self.tools.model_config(settings, self.model))
        _replace_config(self._pack(settings, point.computing.arithmetic), path, config)
        return path

    def _pack(self, settings: Settings, arithmetic: Arithmetic) -> Path:
        if arithmetic not in self._packed:
            store = self.folder / str(arithmetic).replace(" ", "-")
            paths = self.tools.archive(settings, store)
            [self._packed[arithmetic]] = [
                path for path in paths if path.name.startswith(f"{self.model}-")
            ]
        return self._packed[arithmetic]


def _without_cache(config: str) -> str:
    """The load repeats itself, and must not be answered from what was kept of it."""
    table = yaml.safe_load(config)
    if "cache_bytes" in table["serving"]:
        table["serving"]["cache_bytes"] = 0
    return yaml.safe_dump(table, sort_keys=False)


def _replace_config(source: Path, target: Path, config: str) -> None:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for member in old.infolist():
            if member.filename == MODEL_CONFIG:
                new.writestr(MODEL_CONFIG, config)
            else:
                new.writestr(member, old.read(member))
