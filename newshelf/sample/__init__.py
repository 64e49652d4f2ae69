"""The sample catalogue, drawn by code: nothing is downloaded and nothing is copied."""

from newshelf.sample.build import draw_sample

__all__ = ["draw_sample"]
