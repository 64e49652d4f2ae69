"""A page as one HTML file that needs nothing else: no network, no file beside it."""

from base64 import b64encode
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from newshelf.evaluation.page import Page

__all__ = ["to_html"]


def to_html(page: Page, folder: Path) -> str:
    """What ``report.html`` holds.

    Args:
        page: what to show.
        folder: where its pictures are; they are embedded.

    Raises:
        FileNotFoundError: a picture is not there.
    """
    environment = Environment(
        loader=PackageLoader("newshelf.evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["embedded"] = lambda file: _embedded(folder / file)
    return environment.get_template("report.html").render(page=page)


def _embedded(path: Path) -> str:
    return f"data:image/png;base64,{b64encode(path.read_bytes()).decode()}"
