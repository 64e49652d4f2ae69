"""Other versions of the recommender, made from a real archive."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["FAILS", "SLOW", "remake", "reversed_ranking"]

K = 8
"""What shoppers ask for; the controller's own question has another number."""

_HANDLE = '''    def handle(self, data, context):
        """As before, but for what shoppers ask."""
        import json
        import time

        asked = [json.loads(row.get("body") or row.get("data") or b"{{}}") for row in data]
        shoppers = [at for at, body in enumerate(asked) if body.get("k") == {k}]
        {before}
        answers = super().handle(data, context)
        {after}
        return answers

    def load('''

SLOW = _HANDLE.format(k=K, before="time.sleep(1.2 if shoppers else 0)", after="")
FAILS = _HANDLE.format(
    k=K,
    before="",
    after=(
        "for at in shoppers:\n"
        "            context.set_response_status(code=500, idx=at)\n"
        '            answers[at] = b\'{"code": "internal", "message": "broken", "field": null}\''
    ),
)


def reversed_ranking(index: dict[str, Any]) -> None:
    """The signals count against a product instead of for it."""
    weights = index["blend"]["weights"]
    index["blend"]["weights"] = {name: -weight for name, weight in weights.items()}


def remake(
    archive: Path,
    version: str,
    *,
    index: Callable[[dict[str, Any]], None] = lambda _: None,
    method: str = "",
) -> Path:
    """Write ``recommender-VERSION.mar`` beside ``archive``.

    Args:
        archive: of a recommender.
        version: of the new one, and of its index.
        index: changes its manifest.
        method: put before the handler's ``load``.
    """
    path = archive.with_name(f"recommender-{version}.mar")
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(path, "w") as new:
        for member in old.infolist():
            content = old.read(member)
            match member.filename:
                case "MAR-INF/MANIFEST.json":
                    table = json.loads(content)
                    table["model"]["modelVersion"] = version
                    content = json.dumps(table).encode()
                case "version.json":
                    content = json.dumps({"model_version": version}).encode()
                case "index/index.json":
                    table = json.loads(content)
                    table |= {"encoder_version": version, "index_version": f"of-{version}"}
                    index(table)
                    content = json.dumps(table).encode()
                case "recommender_handler.py" if method:
                    before, load, after = content.decode().partition("    def load(")
                    assert load
                    content = (before + method + after).encode()
            new.writestr(member, content)
    return path
