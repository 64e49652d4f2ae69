"""Newshelf: recommend products on the day they are first put on the shelf."""

__version__ = "0.1.0"
