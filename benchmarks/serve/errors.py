"""The error of a measurement that is no result."""

from newshelf.errors import SetupError

__all__ = ["BenchmarkError"]


class BenchmarkError(SetupError):
    """A contender did not start, answered wrongly, or could not be loaded as asked."""
