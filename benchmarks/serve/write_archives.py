"""Packs an export: ``python -m benchmarks.serve.write_archives EXPORT STORE < settings.json``.

A process of its own, because export loads torch: see ``benchmarks.serve.towers``.
"""

import json
import sys
from pathlib import Path

from rich.console import Console

from export.archive import archive
from newshelf.config import Settings

if __name__ == "__main__":
    settings = Settings.model_validate_json(sys.stdin.read())
    console = Console(stderr=True)
    found = archive(Path(sys.argv[1]), settings, Path(sys.argv[2]), console)
    print(json.dumps([str(path) for path in found]))
