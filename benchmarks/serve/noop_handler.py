"""A TorchServe handler that computes nothing, to measure TorchServe itself."""

import json
from collections.abc import Sequence
from typing import Any

VALUES = [round(0.001 * at, 6) for at in range(512)]
"""An embedding's number of values."""
_ANSWER = json.dumps({"embedding": VALUES}).encode()


class NoopHandler:
    """Answers all requests alike."""

    def initialize(self, _context: Any) -> None:
        """Load nothing."""

    def handle(self, data: Sequence[Any], _context: Any) -> list[bytes]:
        """Return the same bytes for every request."""
        return [_ANSWER for _ in data]
