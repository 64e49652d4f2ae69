"""Log files of processes: earlier ones are kept, and none grows without end."""

import subprocess
import sys
from pathlib import Path

from newshelf.config import LogSettings
from newshelf.server.process import rotate_large, rotate_log

EACH = 100_000


def test_earlier_logs_are_numbered_from_the_newest(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    rotate_log(log, 3)
    for number in range(5):
        log.write_text(f"{number}")
        rotate_log(log, 3)
    kept = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert kept == {"x.log.1": "4", "x.log.2": "3", "x.log.3": "2"}


def test_a_large_log_is_rotated_while_a_process_appends_to_it(tmp_path: Path) -> None:
    log, settings = tmp_path / "x.log", LogSettings(max_bytes=EACH, kept=2)
    code = (
        "import sys\n"
        "for line in sys.stdin:\n"
        f"    print('x' * {EACH - 1}, flush=True)\n"
        "    print(file=sys.stderr, flush=True)\n"
    )
    with (
        log.open("ab") as output,
        subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.PIPE,
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stderr is not None
        for _ in range(4):
            process.stdin.write(b"\n")
            process.stdin.flush()
            process.stderr.readline()
            rotate_large(log, settings)
            rotate_large(log, settings)
        process.stdin.close()
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert sizes == {"x.log": 0, "x.log.1": EACH, "x.log.2": EACH}
