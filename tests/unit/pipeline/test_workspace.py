import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from newshelf.errors import SetupError
from newshelf.pipeline.stages import catalog_files
from newshelf.pipeline.workspace import ROOT, WORKSPACES, open_workspace

HOLD = """
import sys
from pathlib import Path
from rich.console import Console
from newshelf.pipeline.workspace import open_workspace
workspace = open_workspace(None, override=Path(sys.argv[1]))
with workspace.locked(Console()):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_the_sample_has_a_workspace_of_its_own() -> None:
    workspace = open_workspace(None)
    assert workspace.is_sample
    assert workspace.root == WORKSPACES / "sample"
    assert workspace.catalog == workspace.root / "sample"
    assert workspace.model_store == ROOT / "model_store"


def test_each_language_of_the_sample_has_a_workspace(tmp_path):
    english, chinese = (
        open_workspace(None, home=tmp_path, language=one).catalog for one in ("en", "zh")
    )
    assert english == tmp_path / "sample" / "sample"
    assert chinese == tmp_path / "sample-zh" / "sample"


def test_catalogues_of_the_same_name_have_different_workspaces(tmp_path: Path) -> None:
    for folder in ("one/My Shop", "two/My Shop"):
        (tmp_path / folder).mkdir(parents=True)
    one = open_workspace(tmp_path / "one" / "My Shop")
    two = open_workspace(tmp_path / "two" / "My Shop")
    assert one.root.name.startswith("my-shop-")
    assert one.root != two.root
    assert one.catalog == tmp_path / "one" / "My Shop"
    assert not one.is_sample


def test_a_path_with_dots_and_a_link_mean_the_same_catalogue(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "shop")
    expected = open_workspace(tmp_path / "shop").root
    assert open_workspace(tmp_path / "shop" / ".." / "shop").root == expected
    assert open_workspace(tmp_path / "link").root == expected


def test_a_catalogue_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="is not a folder"):
        open_workspace(tmp_path / "missing")


def test_a_file_is_a_catalogue_too(tmp_path: Path) -> None:
    export = tmp_path / "products_export.csv"
    export.write_text("id,title\n1,Mug\n")
    assert open_workspace(export).catalog == export
    before = catalog_files(export)
    assert "products_export.csv" in before
    (tmp_path / "mug.jpg").write_bytes(b"a picture")
    assert catalog_files(export) != before


def test_the_override_wins(tmp_path: Path) -> None:
    assert open_workspace(None, override=tmp_path / "w").root == tmp_path / "w"


def test_a_second_run_waits_for_the_first(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    printed = _Printed(holder)
    with open_workspace(None, override=tmp_path).locked(Console(file=printed, width=200)):
        assert "waiting for another run" in printed.getvalue()
        assert holder.wait() == 0


class _Printed(io.StringIO):
    """Lets the first run go on once the second has said that it waits."""

    def __init__(self, holder: "subprocess.Popen[str]") -> None:
        super().__init__()
        self._holder = holder

    def write(self, text: str) -> int:
        if "waiting" in text:
            assert self._holder.stdin is not None
            self._holder.stdin.write("go on\n")
            self._holder.stdin.flush()
        return super().write(text)
