"""Runs the handler of an unpacked archive as a worker would; started by the tests.

``drive.py ARCHIVE MODULE CLASS`` reads a list of requests, each ``[content type, body]``,
and writes what the handler answered and where its code came from.
"""

import importlib
import json
import sys
import types
from pathlib import Path

import yaml


class FakeMetrics:
    def __init__(self):
        self.names = []

    def get_metric(self, name, kind):
        def add_or_update(value, dimensions):
            assert value >= 0
            assert len(dimensions) == 2
            self.names.append(name)

        return types.SimpleNamespace(add_or_update=add_or_update)


class FakeContext:
    """What a worker tells a handler, and takes from it."""

    def __init__(self, archive, requests):
        root = Path(archive)
        self.manifest = json.loads((root / "MAR-INF/MANIFEST.json").read_text())
        self.system_properties = {"model_dir": archive, "gpu_id": None}
        config = root / self.manifest["model"]["configFile"]
        self.model_name = self.manifest["model"]["modelName"]
        self.model_yaml_config = yaml.safe_load(config.read_text())
        self.metrics = FakeMetrics()
        self.requests = requests
        self.statuses = {}

    def get_all_request_header(self, idx):
        return {"Content-Type": self.requests[idx][0]}

    def get_request_id(self, idx=0):
        return f"request-{idx}"

    def set_response_header(self, idx, key, value):
        raise AssertionError("nobody asked for a header")

    def set_response_status(self, code=200, phrase="", idx=0):
        self.statuses[idx] = code

    def set_response_content_type(self, idx, value):
        assert value == "application/json"


archive, module_name, class_name = sys.argv[1:]
sys.path.insert(0, archive)
requests = json.load(sys.stdin)
module = importlib.import_module(module_name)
classes = [
    name
    for name, value in vars(module).items()
    if isinstance(value, type) and value.__module__ == module_name
]
assert classes == [class_name], classes
context = FakeContext(archive, requests)
handler = getattr(module, class_name)()
handler.initialize(context)
bodies = handler.handle([{"body": body.encode()} for _, body in requests], context)
json.dump(
    {
        "answers": [[context.statuses[at], json.loads(body)] for at, body in enumerate(bodies)],
        "metrics": context.metrics.names,
        "modules": {
            name: getattr(loaded, "__file__", None)
            for name, loaded in sys.modules.items()
            if isinstance(loaded, types.ModuleType)
        },
    },
    sys.stdout,
)
