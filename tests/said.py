"""A console, and what was printed on it."""

import io

from rich.console import Console


class Said:
    """A console, and what was printed on it."""

    def __init__(self) -> None:
        self._stream = io.StringIO()
        self.console = Console(file=self._stream, width=200)

    @property
    def text(self) -> str:
        return self._stream.getvalue()
