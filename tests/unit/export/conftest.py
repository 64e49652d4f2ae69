import pytest

from export.run import export_model
from tests.unit.export.tiny_checkpoint import write_tiny_checkpoint


@pytest.fixture(scope="session")
def checkpoint_dir(tmp_path_factory):
    return write_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint") / "checkpoint")


@pytest.fixture(scope="session")
def exported(tmp_path_factory, checkpoint_dir):
    """The tiny checkpoint's export and what ``export_model`` said of it; not to be changed."""
    out = tmp_path_factory.mktemp("export") / "export"
    return out, export_model(checkpoint_dir, out)
