"""Workers that are forked from a process which has their model loaded.

The tests take the place of TorchServe's frontend; all else is as it is served.
"""

import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from ts import model_service_worker

import handlers

HANDLERS = Path(handlers.__file__).parent
ROOT = HANDLERS.parent
ALIVE_S = 60.0

HANDLER = """
import json, os, sys
from handlers.adapter import Adapter


class TinyHandler(Adapter):
    def load(self, directory, **options):
        print("loading", flush=True)
        if "slow" in os.listdir(directory):
            with open(directory / "slow") as fifo:
                fifo.read()
        return (os.getpid(), directory.name, options["settings"].threads)

    @classmethod
    def preload(cls, directory):
        if "broken" in os.listdir(directory):
            raise ValueError("it cannot be preloaded")
        super().preload(directory)

    def initialize(self, context):
        super().initialize(context)
        told = {"pid": os.getpid(), "loaded": self.predictor, "arguments": sys.argv[1:]}
        print(json.dumps(told), flush=True)
        print("on standard error", file=sys.stderr, flush=True)
        if context.model_name == "ends":
            sys.exit(1)
"""


@pytest.fixture
def archive(tmp_path):
    """As one is unpacked, of a model that tells who loaded it."""
    folder = tmp_path / "archive"
    shutil.copytree(HANDLERS, folder / "handlers", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(HANDLERS / "sitecustomize.py", folder)
    (folder / "tiny_handler.py").write_text(HANDLER)
    (folder / "MAR-INF").mkdir()
    manifest = {"model": {"handler": "tiny_handler.py"}}
    (folder / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(manifest))
    configure(folder, "{preload: true, threads: 1}")
    return folder


def configure(archive, serving):
    (archive / "model-config.yaml").write_text(f"deviceType: cpu\nserving: {serving}\n")


@pytest.fixture
def start(archive):
    """Start a worker as TorchServe does; what is left of it ends with the test."""
    started = []

    def run(*, model="tiny"):
        process = subprocess.Popen(
            command(archive, f"{archive.parent}/worker.{len(started)}"),
            env=environment(archive),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        process.frontend = connect(process, archive, model)
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.wait()
        process.frontend.close()
        process.stdout.close()
        process.stderr.close()
    for process in preloaders(archive):
        # It may end by itself meanwhile.
        with suppress(psutil.NoSuchProcess):
            process.kill()


def command(archive, name):
    metrics = ROOT / "deploy" / "torchserve" / "metrics.yaml"
    words = ["--sock-type", "unix", "--sock-name", name, "--metrics-config", str(metrics)]
    return [sys.executable, model_service_worker.__file__, *words]


def connect(process, archive, model="tiny"):
    """Connect as TorchServe's frontend does when the worker says so, and have the model loaded."""
    name = process.args[process.args.index("--sock-name") + 1]
    for line in process.stdout:
        if line == "Torch worker started.\n":
            break
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(name)
    connection.sendall(load_request(archive, model))
    return connection


def load_request(archive, model):
    """TorchServe's message to a worker that it has just connected to."""
    texts = [model.encode(), bytes(archive), b"tiny_handler.py", b""]
    name, folder, handler, envelope = (struct.pack("!i", len(text)) + text for text in texts)
    batch, no_gpu, limited = struct.pack("!i", 1), struct.pack("!i", -1), struct.pack("!?", True)
    return b"L" + name + folder + batch + handler + no_gpu + envelope + limited


def environment(archive):
    # The archive first: its handlers are to be found, and the rest of newshelf from here.
    path = os.pathsep.join([str(archive), str(ROOT)])
    return {**os.environ, "PYTHONPATH": path, "LOG_LOCATION": str(archive.parent)}


def preloaders(archive):
    """The processes that have the archive's model loaded, and the workers forked from them."""
    found = []
    for process in psutil.process_iter():
        try:
            ours = process.environ().get("PYTHONPATH", "").startswith(f"{archive}{os.pathsep}")
            if ours and "handlers.worker_fork" in process.cmdline() and alive(process):
                found.append(process)
        except psutil.Error:
            continue
    return found


def alive(process):
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def told(process):
    """What the worker says of itself, and the lines before it."""
    before = []
    for line in process.stdout:
        if line.startswith("{"):
            return json.loads(line), "".join(before)
        before.append(line)
    raise AssertionError(f"no worker: {''.join(before)}{process.stderr.read()}")


def wait_until(condition):
    end = time.monotonic() + ALIVE_S
    while not condition():
        assert time.monotonic() < end, "it has not come about"
        time.sleep(0.02)


def test_workers_are_forks_of_the_one_process_that_has_loaded(start, archive):
    one, two = start(), start()
    (first, before), (second, before_second) = told(one), told(two)
    assert [first["arguments"], second["arguments"]] == [one.args[2:], two.args[2:]]
    preloader = psutil.Process(first["pid"]).parent()
    assert psutil.Process(second["pid"]).parent() == preloader
    assert first["loaded"] == second["loaded"] == [preloader.pid, archive.name, 1]
    assert first["pid"] not in (second["pid"], preloader.pid, one.pid)
    assert (before + before_second).count("loading") == 1
    assert one.stderr.readline() == "on standard error\n"


def test_a_worker_ends_with_its_launcher_and_no_other(start):
    one, two = start(), start()
    (first, _), (second, _) = told(one), told(two)
    one.kill()
    wait_until(lambda: not psutil.pid_exists(first["pid"]))
    assert alive(psutil.Process(second["pid"]))
    assert two.poll() is None


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, 137), (signal.SIGTERM, 143)])
def test_a_launcher_ends_with_its_workers_exit_code(start, number, code):
    process, other = start(), start()
    worker, _ = told(process)
    told(other)
    os.kill(worker["pid"], number)
    assert process.wait(ALIVE_S) == code
    assert other.poll() is None


def test_without_its_preloader_a_launcher_still_ends_with_its_worker(start):
    process = start()
    worker, _ = told(process)
    psutil.Process(worker["pid"]).parent().kill()
    os.kill(worker["pid"], signal.SIGKILL)
    assert process.wait(ALIVE_S) in (1, 137)


def test_torchserve_is_connected_before_the_model_is_loaded(start, archive):
    """Since it waits two minutes for that, and ``startupTimeout`` for the rest."""
    os.mkfifo(archive / "slow")
    process = start()
    process.frontend.settimeout(0.1)
    with pytest.raises(TimeoutError):
        process.frontend.recv(1)
    (archive / "slow").write_text("go on")
    process.frontend.settimeout(ALIVE_S)
    assert struct.unpack("!i", process.frontend.recv(4)) == (200,)


def test_what_goes_wrong_after_loading_is_in_the_preloaders_log(start, archive):
    worker, _ = told(start())
    os.kill(worker["pid"], signal.SIGKILL)
    log = archive.parent / "preloader.log"
    wait_until(lambda: f"{worker['pid']} was ended: 137" in log.read_text())


def test_a_worker_that_ends_by_itself_ends_its_launcher_and_the_next_is_not_loaded_again(start):
    ended = start(model="ends")
    worker, _ = told(ended)
    assert ended.wait(ALIVE_S) == 1
    follower, before = told(start())
    assert follower["loaded"] == worker["loaded"]
    assert "loading" not in before


def test_a_stopped_worker_ends_with_its_launcher_all_the_same(start):
    process = start()
    worker, _ = told(process)
    os.kill(worker["pid"], signal.SIGSTOP)
    process.kill()
    os.kill(worker["pid"], signal.SIGCONT)
    wait_until(lambda: not psutil.pid_exists(worker["pid"]))


def test_a_preloader_refuses_who_asks_for_nothing_and_goes_on(start, archive):
    worker, _ = told(start())
    with socket.socket(socket.AF_UNIX) as other:
        other.connect(str(archive / ".preloader"))
        other.sendall(b"[]")
        assert "expected 4" in other.recv(1000).decode()
    follower, before = told(start())
    assert follower["loaded"] == worker["loaded"]
    assert "loading" not in before


def test_without_its_preloader_a_worker_goes_on_and_the_next_gets_a_new_one(start):
    process = start()
    worker, _ = told(process)
    preloader = psutil.Process(worker["pid"]).parent()
    preloader.kill()
    wait_until(lambda: not alive(preloader))
    follower, before = told(start())
    assert process.poll() is None
    assert alive(psutil.Process(worker["pid"]))
    assert "loading" in before
    assert follower["loaded"][0] not in (preloader.pid, follower["pid"])


def test_the_preloader_ends_with_the_server_that_started_its_first_launcher(archive):
    name = f"{archive.parent}/worker.9"
    words = " ".join(command(archive, name))
    server = subprocess.Popen(
        ["bash", "-c", f"{words} & wait"],
        env=environment(archive),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    server.args = command(archive, name)
    frontend = connect(server, archive)
    try:
        for line in server.stdout:
            if line.startswith("{"):
                break
        assert len(preloaders(archive)) == 2, "the preloader, and the worker"
        [preloader] = [p for p in preloaders(archive) if p.pid != json.loads(line)["pid"]]
        server.kill()
        wait_until(lambda: not alive(preloader))
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
        server.stdout.close()
        frontend.close()


def test_a_model_that_cannot_be_preloaded_is_loaded_by_the_worker_which_tells_why(start, archive):
    (archive / "broken").touch()
    process = start()
    worker, before = told(process)
    assert worker["pid"] == worker["loaded"][0] == process.pid
    assert "no preloaded worker" in before
    wait_until(lambda: not preloaders(archive))
    assert not psutil.Process(process.pid).children(), "not even a zombie"
    process.kill()
    assert "it cannot be preloaded" in process.stderr.read()


@pytest.mark.parametrize("serving", ["{threads: 0, preload: true}", "{}"])
def test_threads_are_shared_out_where_the_archive_serves(start, archive, serving):
    configure(archive, serving)
    with (archive / "model-config.yaml").open("a") as config:
        config.write(f"maxWorkers: {len(os.sched_getaffinity(0))}\n")
    worker, _ = told(start())
    assert worker["loaded"][0] not in (worker["pid"], None)
    assert worker["loaded"][2] == 1


@pytest.mark.parametrize(
    "serving",
    ["{threads: 1, preload: false}", "{threads: 2, preload: true}"],
)
def test_without_preload_every_worker_loads_its_own(start, archive, serving):
    configure(archive, serving)
    process = start()
    worker, _ = told(process)
    assert worker["pid"] == worker["loaded"][0] == process.pid
    assert not preloaders(archive)
