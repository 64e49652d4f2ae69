"""Which version of the recommender a rollout has promoted, so that a restart serves it too.

A small file in the workspace. Without it, what the workspace itself has made is served. Once a
rollout has promoted something, only rollouts change what is served.
"""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from newshelf.errors import ServerError
from newshelf.files import write_json

__all__ = ["Promoted", "PromotedFile"]


class Promoted(BaseModel):
    """What is served instead of the workspace's own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str
    """Of the recommender."""
    rollout: str
    """That decided it."""
    before: str | None = None
    """The version that it replaced; None after going back to that one."""


class PromotedFile:
    """The file; written aside and renamed.

    Args:
        path: where it is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> Promoted | None:
        """What is promoted; None when nothing is.

        Raises:
            ServerError: the file is damaged.
        """
        try:
            return Promoted.model_validate_json(self.path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            raise ServerError(
                f"{self.path} does not say which version is promoted ({error}); remove it to serve "
                "what the workspace has made"
            ) from error

    def promote(self, version: str, rollout: str, before: str) -> None:
        """Let the next starts serve ``version``. Done again, it changes nothing."""
        now = self.read()
        if now is None or (now.version, now.rollout) != (version, rollout):
            self._write(Promoted(version=version, rollout=rollout, before=before))

    def take_back(self, rollout: str) -> None:
        """Undo what ``rollout`` promoted; nothing, when that was not the last, or is undone."""
        now = self.read()
        if now is not None and now.rollout == rollout and now.before is not None:
            self._write(Promoted(version=now.before, rollout=rollout))

    def _write(self, promoted: Promoted) -> None:
        write_json(self.path, promoted.model_dump(mode="json"))
