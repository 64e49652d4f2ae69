"""The moment that the tests count from."""

from datetime import UTC, datetime

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
