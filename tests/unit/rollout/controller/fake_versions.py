"""A model server that does what it is told, and a controller's kill at any of its calls."""

from collections.abc import Callable, Set
from dataclasses import dataclass, field


class Killed(BaseException):
    """As SIGKILL: nothing of the controller runs afterwards."""


@dataclass
class FakeVersions:
    """What outlives a controller: the server's own state."""

    current: str = "1"
    there: set[str] = field(default_factory=lambda: {"1"})
    broken: dict[str, str] = field(default_factory=dict)
    """Why a version does not answer."""
    unload_refused: set[str] = field(default_factory=set)
    done: list[str] = field(default_factory=list)
    asked: list[tuple[str, int]] = field(default_factory=list)
    before: Callable[[str], None] = lambda _: None
    """Called before each change, with its name."""

    def default(self) -> str:
        return self.current

    def loaded(self) -> Set[str]:
        return set(self.there)

    def load(self, version: str) -> None:
        self._do(f"load {version}")
        self.there.add(version)

    def obstacle(self, version: str, *, requests: int = 1) -> str | None:
        self.asked.append((version, requests))
        if version not in self.there:
            return f"{version} is not loaded"
        return self.broken.get(version)

    def set_default(self, version: str) -> None:
        assert version in self.there, "a version that is not there cannot answer"
        self._do(f"default {version}")
        self.current = version

    def unload(self, version: str) -> None:
        assert version != self.current, "shoppers would be answered by nobody"
        self._do(f"unload {version}")
        self.there.discard(version)

    def _do(self, change: str) -> None:
        self.before(change)
        self.done.append(change)
