"""What every task is given: data, features, seeds and a place for pictures."""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from newshelf.catalog import Catalog, read_catalog
from newshelf.config import Settings
from newshelf.errors import SettingsError
from newshelf.transfer.build import Backbone, build_backbone

__all__ = ["Context"]


@dataclass(frozen=True)
class Context:
    """One run of the benchmark."""

    data: Path
    """A folder of catalogues."""
    kept_back: Path | None
    """A folder like ``data`` with what was kept back: tested on instead of an own split."""
    work: Path
    """Cached features and models."""
    figures: Path
    """Where plots go."""
    seeds: tuple[int, ...]
    console: Console
    settings: Settings

    def catalog(self, name: str) -> Catalog:
        """A data set.

        Raises:
            SettingsError: it is not there.
        """
        folder = self.data / name
        if not folder.is_dir():
            raise SettingsError(
                f"{folder} is missing: the benchmark reads catalogues from --data DIR"
            )
        return read_catalog(folder)

    def kept_back_catalog(self, name: str) -> Catalog | None:
        """What was kept back of a data set; None when nothing was."""
        if self.kept_back is None or not (self.kept_back / name).is_dir():
            return None
        return read_catalog(self.kept_back / name)

    def backbone(self, catalog: Catalog) -> Backbone:
        """Packaged towers and the catalogue's features from them, computed once."""
        return build_backbone(
            catalog, self.settings, {}, self.work / "features" / catalog.name, self.console
        )
