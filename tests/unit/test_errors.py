"""One tree of errors; its docstring draws it, and each says what HTTP should answer."""

import inspect
import re

import pytest

from newshelf import errors
from newshelf.errors import NewshelfError, RequestError, SetupError, Unavailable

CLASSES = [
    value
    for value in vars(errors).values()
    if inspect.isclass(value) and issubclass(value, NewshelfError)
]
DRAWN = re.compile(r"^ {4}([│├└─ ]*)(\w+) +(\d{3}) +(\w+)", re.MULTILINE)


def test_every_class_of_the_module_is_an_error_of_the_tree():
    own = {
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and value.__module__ == errors.__name__
    }
    assert {value.__name__ for value in CLASSES} == own


def test_the_docstring_draws_the_tree():
    """Name, parent (by depth), status and code of each."""
    drawn = {}
    above: list[str] = []
    for lines, name, status, code in DRAWN.findall(errors.__doc__):
        depth = len(lines) // 4
        above = [*above[:depth], name]
        drawn[name] = (above[depth - 1] if depth else "Exception", int(status), code)
    assert drawn == {
        value.__name__: (value.__base__.__name__, value.http_status, value.code)
        for value in CLASSES
    }


def test_codes_tell_errors_apart():
    codes = [value.code for value in CLASSES]
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize("kind", CLASSES)
def test_a_client_is_told_code_message_and_field(kind):
    error = kind("too long", field="history[2].title")
    assert str(error) == error.message == "too long"
    assert error.body() == {"code": kind.code, "message": "too long", "field": "history[2].title"}
    assert kind("too long").body()["field"] is None


@pytest.mark.parametrize("kind", CLASSES)
def test_the_status_says_who_can_mend_it(kind):
    if issubclass(kind, RequestError):
        assert 400 <= kind.http_status < 500
    elif issubclass(kind, Unavailable):
        assert kind.http_status in {503, 504}
    else:
        assert kind.http_status == 500
        assert issubclass(kind, SetupError) or kind is NewshelfError


@pytest.mark.parametrize("kind", CLASSES)
def test_no_message_names_cuda_by_itself(kind):
    """TorchServe answers 507, and restarts the worker, for a text that has that word."""
    assert "cuda" not in f"{kind.code} {kind.__name__}".lower()
