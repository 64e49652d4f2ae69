import pytest

from tests.unit.export.tiny_checkpoint import shared_export, tiny_spec, write_tiny_checkpoint


@pytest.fixture(scope="session")
def checkpoint_dir(tmp_path_factory):
    return write_tiny_checkpoint(
        tmp_path_factory.mktemp("checkpoint") / "checkpoint", tiny_spec(blend=True)
    )


@pytest.fixture(scope="session")
def exported(tmp_path_factory, worker_id):
    """The tiny checkpoint's export; not to be changed."""
    return shared_export(tmp_path_factory, worker_id)[1]
