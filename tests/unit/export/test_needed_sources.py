from pathlib import Path

import pytest

from export.mar import ROOT, handler_path, needed_sources


@pytest.mark.parametrize(("name", "more"), [("encoder", set()), ("recommender", {"attributes"})])
def test_only_what_serving_needs_is_carried(name, more):
    assert handler_path(name).is_file()
    sources = needed_sources(name)
    assert all((ROOT / path).is_file() for path in sources)
    handlers = {path for path in sources if path.parts[0] == "handlers"}
    shared = ("__init__.py", "adapter.py", "torchserve_patches.py")
    # No handler imports these: a worker's start does.
    started = ("launcher.py", "worker_fork.py")
    assert handlers == {Path("handlers", file) for file in (*shared, *started)}
    parts = {path.parts[1] for path in sources if path.parts[0] == "newshelf"}
    assert len(sources) - len(handlers) == sum(path.parts[0] == "newshelf" for path in sources)
    own = {"__init__.py", "config.py", "errors.py", "files.py"}
    assert parts == {*own, "catalog", "nn", "serving", *more}


def test_packages_come_with_their_modules():
    sources = set(needed_sources("recommender"))
    assert Path("newshelf/catalog/__init__.py") in sources
    assert Path("newshelf/catalog/schema.py") in sources
    assert Path("newshelf/serving/index.py") in sources
    assert Path("newshelf/nn/blend.py") in sources
    for path in sources:
        assert path.parent / "__init__.py" in sources


def test_what_is_imported_for_type_checkers_alone_stays_out():
    sources = {path.as_posix() for path in needed_sources("recommender")}
    assert "newshelf/catalog/catalog.py" not in sources
    assert "newshelf/nn/encoder.py" not in sources
