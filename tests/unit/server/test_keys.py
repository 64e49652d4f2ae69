import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from newshelf.errors import ServerError
from newshelf.server.state import read_keys

# As TorchServe 0.12.0 writes it, nanoseconds included.
WRITTEN = {
    "management": {"key": "E3lDyGxC", "expiration time": "2026-11-22T05:00:31.791960833Z"},
    "inference": {"key": "gkQjKhcF", "expiration time": "2026-11-22T05:00:31.791949096Z"},
    "API": {"key": "JduVMYqD"},
}


def write(path: Path, table: object, mode: int = 0o600) -> Path:
    path.write_text(json.dumps(table))
    path.chmod(mode)
    return path


def test_tokens_and_expiry_are_read(tmp_path: Path) -> None:
    keys = read_keys(write(tmp_path / "key_file.json", WRITTEN))
    assert keys.inference.header() == {"Authorization": "Bearer gkQjKhcF"}
    assert keys.management.token == "E3lDyGxC"
    assert keys.inference.expires == datetime(2026, 11, 22, 5, 0, 31, 791949, tzinfo=UTC)
    assert not keys.inference.expired(datetime(2026, 11, 22, 5, 0, 31, tzinfo=UTC))
    assert keys.inference.expired(datetime(2026, 11, 22, 5, 0, 32, tzinfo=UTC))
    assert not keys.api.expired(datetime(2099, 1, 1, tzinfo=UTC))


def test_a_key_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="other users"):
        read_keys(write(tmp_path / "key_file.json", WRITTEN, mode=0o644))


@pytest.mark.parametrize("table", [[], {}, {"inference": {}}, {**WRITTEN, "API": None}])
def test_another_file_is_refused(tmp_path: Path, table: object) -> None:
    with pytest.raises(ServerError, match="not a key file"):
        read_keys(write(tmp_path / "key_file.json", table))


def test_a_missing_key_file_asks_whether_the_server_runs(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="is the server running"):
        read_keys(tmp_path / "key_file.json")
