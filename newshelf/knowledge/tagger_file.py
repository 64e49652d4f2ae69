"""A trained tagger on disk, and from a user's own tagged titles.

A folder::

    tagger.crfsuite   CRFsuite's model
    tagger.json       format, the model's SHA-256, known names, statistics of characters
"""

import hashlib
import tempfile
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from newshelf.errors import WeightsError
from newshelf.files import directory_aside, read_json, write_json
from newshelf.knowledge.character_statistics import CharacterStatistics
from newshelf.knowledge.gazetteer import Gazetteer
from newshelf.knowledge.spans import read_tagged
from newshelf.knowledge.tagger import TaggerOptions, TitleTagger, train_tagger
from newshelf.knowledge.title_features import TitleFeatures

__all__ = ["read_tagger", "tagger_from_titles", "write_tagger"]

_MODEL, _REST = "tagger.crfsuite", "tagger.json"


class _Rest(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=False)

    format: Literal[1] = 1
    sha256: str
    names: dict[str, tuple[str, float]]
    longest: int
    cohesion: dict[str, int]
    after: dict[str, int]
    before: dict[str, int]


def tagger_from_titles(path: Path, seed: int, options: TaggerOptions | None = None) -> TitleTagger:
    """Train a tagger on a file of tagged titles, see ``read_tagged``.

    Raises:
        TrainingError: with file, line and reason; or there is too little to learn from.
    """
    titles = read_tagged(path)
    with tempfile.TemporaryDirectory() as scratch:
        return train_tagger(titles, seed, Path(scratch), options)


def write_tagger(tagger: TitleTagger, folder: Path) -> None:
    """Write a tagger, aside and renamed."""
    features = tagger.features
    rest = _Rest(
        sha256=hashlib.sha256(tagger.model).hexdigest(),
        names=features.gazetteer.names,
        longest=features.gazetteer.longest,
        cohesion=features.statistics.cohesion,
        after=features.statistics.after,
        before=features.statistics.before,
    )
    with directory_aside(folder) as aside:
        (aside / _MODEL).write_bytes(tagger.model)
        write_json(aside / _REST, rest.model_dump())


def read_tagger(folder: Path) -> TitleTagger:
    """Read what ``write_tagger`` wrote.

    Raises:
        WeightsError: a file is missing or damaged, or the two do not belong together.
    """
    try:
        model = (folder / _MODEL).read_bytes()
        rest = _Rest.model_validate(read_json(folder / _REST))
    except (OSError, ValueError, ValidationError) as error:
        raise WeightsError(f"the tagger {folder} cannot be read: {error}") from error
    # CRFsuite trusts its file, and may crash on a damaged one.
    if hashlib.sha256(model).hexdigest() != rest.sha256:
        raise WeightsError(f"the tagger {folder}: {_MODEL} is not the one that was written")
    statistics = CharacterStatistics(rest.cohesion, rest.after, rest.before)
    return TitleTagger(model, TitleFeatures(Gazetteer(rest.names, rest.longest), statistics))
