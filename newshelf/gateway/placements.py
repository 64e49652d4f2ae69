"""Placements: named places of a shop's pages, with the kind and the filters of each."""

import logging
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from newshelf.errors import InvalidField, SettingsError
from newshelf.files import StrictModel, file_stamp, problems
from newshelf.serving.schemas import Filters, Kind

_LOG = logging.getLogger(__name__)


class Placement(StrictModel):
    """One section of the file. A request's own fields take precedence."""

    kind: Kind = "for_you"
    k: Annotated[int, Field(ge=1)] = 10
    diversity: Annotated[float, Field(ge=0, le=1)] = 0.0
    filters: Filters = Filters()
    explain: bool = False
    feed: bool = False
    """Every answer has a cursor."""

    def fields(self) -> dict[str, Any]:
        """Return the request's fields that the section sets, as JSON."""
        fields = self.model_dump(mode="json", exclude={"feed"}, exclude_unset=True)
        return {**fields, "cursor": ""} if self.feed else fields


_Name = Annotated[str, Field(min_length=1, max_length=100)]
_SECTIONS: TypeAdapter[dict[str, Placement]] = TypeAdapter(dict[_Name, Placement])


def read_placements(path: Path, max_k: int) -> dict[str, Placement]:
    """Read a file of placements; ``SettingsError`` names file, section and key."""
    try:
        found = _SECTIONS.validate_python(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise SettingsError(f"cannot read the placements {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not TOML: {error}") from error
    except ValidationError as error:
        raise SettingsError(f"{path}: {problems(error)}; docs/recommendations.md") from error
    for name, placement in found.items():
        if placement.k > max_k:
            raise SettingsError(f"{path}: {name}.k: at most {max_k} products are answered")
    return found


class Placements:
    """The placements of a running gateway, read again when their file changes."""

    def __init__(self, path: Path | None, max_k: int) -> None:
        self._path = path
        self._max_k = max_k
        self._stamp = file_stamp(self._path)
        self.fields = self._read()
        """Fields of a request by the name of its placement."""

    def __contains__(self, name: object) -> bool:
        return name in self.fields

    def refresh(self) -> None:
        """Read the file again if it has changed; keep the old placements if it is broken."""
        stamp = file_stamp(self._path)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self.fields = self._read()
        except SettingsError as error:
            _LOG.error("the placements stay as they were: %s", error.message)

    def completed(
        self, table: Mapping[str, object], without: Collection[str] = ()
    ) -> dict[str, object]:
        """Return a request with the fields of its placement that it does not set itself.

        Filters are joined by key; a filter that the request sets to null does not apply.
        ``without`` names fields of placements that such a request does not have.
        """
        name = table.get("placement")
        if name is None:
            return dict(table)
        given = self.fields.get(name) if isinstance(name, str) else None
        if given is None:
            known = ", ".join(self.fields) or "none at all"
            raise InvalidField(f"no placement has this name; there are: {known}", field="placement")
        joined = {key: value for key, value in given.items() if key not in without} | dict(table)
        own = table.get("filters")
        if isinstance(own, dict) and "filters" in given:
            joined["filters"] = {**given["filters"], **own}
        return joined

    def _read(self) -> dict[str, dict[str, Any]]:
        if self._path is None:
            return {}
        found = read_placements(self._path, self._max_k)
        return {name: placement.fields() for name, placement in found.items()}


NO_PLACEMENTS = Placements(None, 0)
