"""Written aside and renamed: a reader sees the old or the new, never a mixture."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from newshelf.errors import SettingsError
from newshelf.files import directory_aside, read_json, secret_key, write_aside, write_json


class Died(Exception):
    """What a writer that fails raises."""


def fail_in_file(path: Path) -> None:
    with write_aside(path) as aside:
        aside.write_text("half of the new")
        raise Died


def fail_in_directory(path: Path) -> None:
    with directory_aside(path) as aside:
        (aside / "new").write_text("half")
        raise Died


def test_a_file_appears_whole_and_readable_by_others(tmp_path):
    path = tmp_path / "new" / "folder" / "file.txt"
    with write_aside(path) as aside:
        assert aside.parent == path.parent
        aside.write_text("half")
        assert not path.exists()
        aside.write_text("whole")
    assert path.read_text() == "whole"
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(path.parent.iterdir()) == [path]


def test_a_file_writer_that_fails_leaves_the_old(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(Died):
        fail_in_file(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_directory_replaces_the_old_as_a_whole(tmp_path):
    path = tmp_path / "artifact"
    path.mkdir()
    (path / "old").write_text("old")
    with directory_aside(path) as aside:
        assert list(aside.iterdir()) == []
        (aside / "new").write_text("new")
        assert [child.name for child in path.iterdir()] == ["old"]
    assert [child.name for child in path.iterdir()] == ["new"]
    assert path.stat().st_mode & 0o777 == 0o755
    assert list(tmp_path.iterdir()) == [path]


def test_a_directory_writer_that_fails_leaves_the_old(tmp_path):
    path = tmp_path / "artifact"
    path.mkdir()
    (path / "old").write_text("old")
    with pytest.raises(Died):
        fail_in_directory(path)
    assert [child.name for child in path.iterdir()] == ["old"]
    assert list(tmp_path.iterdir()) == [path]


_KILLED = """
import os, signal, sys
from pathlib import Path
from newshelf.files import directory_aside
with directory_aside(Path(sys.argv[1])) as aside:
    (aside / "new").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_writer_leaves_the_old_and_the_next_one_succeeds(tmp_path):
    path = tmp_path / "artifact"
    path.mkdir()
    (path / "old").write_text("old")
    done = subprocess.run([sys.executable, "-c", _KILLED, path], check=False)
    assert done.returncode == -9
    assert [child.name for child in path.iterdir()] == ["old"]
    with directory_aside(path) as aside:
        (aside / "next").write_text("whole")
    assert [child.name for child in path.iterdir()] == ["next"]


def test_an_old_directory_that_was_left_in_the_way_is_no_obstacle(tmp_path):
    """As after a kill between the two renames: no ``artifact``, only ``.artifact.old``."""
    left = tmp_path / ".artifact.old"
    left.mkdir()
    (left / "old").write_text("old")
    with directory_aside(tmp_path / "artifact") as aside:
        (aside / "new").write_text("new")
    assert [path.name for path in tmp_path.rglob("*")] == ["artifact", "new"]


def test_json_goes_and_comes_back_the_same_each_time(tmp_path):
    value = {"b": [1, 2.5, None], "a": {"ä": "寿司"}}
    write_json(tmp_path / "one.json", value)
    write_json(tmp_path / "two.json", {"a": {"ä": "寿司"}, "b": [1, 2.5, None]})
    assert read_json(tmp_path / "one.json") == value
    data = (tmp_path / "one.json").read_bytes()
    assert data == (tmp_path / "two.json").read_bytes()
    assert "寿司" in data.decode("utf-8")
    assert data.endswith(b"}\n")


def test_json_that_cannot_be_written_leaves_the_old(tmp_path):
    path = tmp_path / "value.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_the_key_is_made_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "cursor.key"
    key = secret_key(path)
    assert len(key) == 32
    assert secret_key(path) == key
    assert path.stat().st_mode & 0o077 == 0
    path.write_text("abcd")
    with pytest.raises(SettingsError, match=r"cursor\.key"):
        secret_key(path)
