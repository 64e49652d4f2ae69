"""Stands in for TorchServe's Java: the same files, ports and tokens, without a JVM.

How it behaves is said by the file ``behaviour.json`` beside the model store's archives.
"""

import json
import os
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ARGUMENTS = sys.argv[1:]
PROPERTIES = dict(
    line.split("=", 1)
    for line in Path(ARGUMENTS[ARGUMENTS.index("--ts-config-file") + 1]).read_text().splitlines()
)
BEHAVIOUR = json.loads((Path(PROPERTIES["model_store"]) / "behaviour.json").read_text())
ISSUED = 0


def write_keys(lifetime_s: float) -> None:
    global ISSUED  # noqa: PLW0603
    ISSUED += 1
    expires = (datetime.now(UTC) + timedelta(seconds=lifetime_s)).isoformat()
    keys = {
        name: {"key": f"{name}-{ISSUED}", "expiration time": expires}
        for name in ("inference", "management")
    }
    path = Path("key_file.json")
    path.touch(0o600)
    path.write_text(json.dumps(keys | {"API": {"key": "api"}}))


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass

    def answer(self, status: int, body: object) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self) -> None:
        if self.path.startswith("/token"):
            assert self.headers["Authorization"] == "Bearer api"
            write_keys(3600)
        self.answer(200, [{"path": self.path}])

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Authorization"] != f"Bearer inference-{ISSUED}":
            return self.answer(400, {"code": 400, "message": "Token Authorization failed"})
        model = self.path.rpartition("/")[2]
        status = BEHAVIOUR.get("answers", {}).get(model, 200)
        kind = self.headers["Content-Type"] or ""
        if status != 200:
            return self.answer(status, {"code": "bad", "message": "no", "field": "history[0]"})
        return self.answer(200, {"model": model, "type": kind, "body": body.decode("latin-1")})


if BEHAVIOUR.get("crash"):
    print("Invalid configuration: made up", flush=True)
    sys.exit(1)
if BEHAVIOUR.get("worker_dies"):
    Path(os.environ["LOG_LOCATION"], "model_log.log").write_text(
        "ImportError: no such module\nBackend worker process died.\n" * 2
    )
# Like a real worker, it ends when the connection to its frontend does.
worker = subprocess.Popen(
    [sys.executable, "-S", "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE
)
time.sleep(BEHAVIOUR.get("slow_s", 0))
write_keys(BEHAVIOUR.get("lifetime_s", 3600))
for address in ("management_address", "inference_address"):
    port = int(PROPERTIES[address].rpartition(":")[2])
    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
print(json.dumps({"worker": worker.pid, "environ": dict(os.environ)}), flush=True)
worker.wait()
