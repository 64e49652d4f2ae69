"""The images: what their files copy exists, both are built alike, and the script builds them."""

import difflib
import fnmatch
import os
import re
import stat
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
IMAGES = ROOT / "deploy" / "images"
FILES = {path.name.partition(".")[0]: path.read_text() for path in IMAGES.glob("*.Containerfile")}


def instructions(text: str) -> list[tuple[str, str]]:
    """The instructions of a Containerfile, each on one line."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r" *\\\n *", " ", "\n".join(lines))
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in joined.splitlines() if line]


def test_there_are_two() -> None:
    assert FILES.keys() == {"serving", "cuda"}


@pytest.mark.parametrize("text", FILES.values(), ids=FILES)
def test_what_is_copied_exists_and_is_in_the_context(text: str) -> None:
    kept = [
        line.removeprefix("!")
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    ]
    for name, rest in instructions(text):
        if name == "COPY" and not rest.startswith("--from"):
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists(), source
                assert source.split("/")[0] in kept
    assert not any(fnmatch.fnmatch(one, "*.env") for one in kept)


@pytest.mark.parametrize("text", FILES.values(), ids=FILES)
def test_an_image_runs_as_nobody_in_particular(text: str) -> None:
    last = text[text.rindex("\nFROM ") :]
    found = dict(instructions(last.replace("FROM", "FROM x", 1)))
    assert found["USER"] == "10001:10001"
    assert found["ENTRYPOINT"] == '["/usr/bin/tini", "-s", "--"]'
    assert "/readyz" in found["HEALTHCHECK"]
    assert "useradd --uid 10001" in last
    labels = set(re.findall(r"org\.opencontainers\.image\.(\w+)=", found["LABEL"]))
    assert labels == {"title", "description", "licenses", "version", "revision", "created"}
    # Nothing is compiled or installed later.
    assert "PYTHONDONTWRITEBYTECODE=1" in found["ENV"]
    assert "compileall" in text
    assert text.count("--require-hashes") == text.count("-m pip install") == 2
    assert "/opt/sbom/python.cdx.json" in text
    assert "/opt/sbom/debian.txt" in text


def test_they_differ_in_their_packages() -> None:
    lines = difflib.ndiff(FILES["serving"].splitlines(), FILES["cuda"].splitlines())
    changed = [line for line in lines if line[:1] in "+-" and not line[2:].startswith("#")]
    allowed = r"serving\.lock|cuda\.lock|image\.(title|description)|HOME=/tmp|NVIDIA_|setuptools|"
    allowed += r"COPY export|pip uninstall"
    assert [line for line in changed if not re.search(allowed, line)] == []


FAKE = """#!/bin/sh
printf '%s\\n' "$0" "$@" >>"$RECORD"
"""


def build(tmp_path: Path, *arguments: str, engine: str, **env: str) -> list[str]:
    """Run the script with an engine that writes down how it is called."""
    fake = tmp_path / engine
    fake.write_text(FAKE)
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    record = tmp_path / "record"
    subprocess.run(
        [str(IMAGES / "build"), *arguments],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "RECORD": str(record), **env},
        check=True,
        capture_output=True,
    )
    return record.read_text().splitlines()


@pytest.mark.parametrize("engine", ["docker", "podman", "buildah"])
def test_the_script_builds_with_each_engine(tmp_path: Path, engine: str) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    called = build(tmp_path, "cuda", "--", "--network", "host", engine=engine, ENGINE=engine)
    assert called[:2] == [str(tmp_path / engine), "build"]
    assert called[-3:] == ["--network", "host", "."]
    assert "deploy/images/cuda.Containerfile" in called
    assert f"newshelf-cuda:{version}" in called
    assert f"VERSION={version}" in called
    # Else podman and buildah leave the health check out.
    assert ("docker" in called[2:]) == (engine != "docker")


def test_base_and_tag_can_be_chosen(tmp_path: Path) -> None:
    called = build(tmp_path, engine="docker", BASE="localhost/debian:slim", TAG="latest")
    assert "BASE=localhost/debian:slim" in called
    assert "newshelf-serving:latest" in called


def test_an_unknown_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError) as refused:
        build(tmp_path, "gpu", engine="docker")
    assert b"serving or cuda" in refused.value.stderr


def test_deploy_up_builds_starts_and_asks(tmp_path: Path) -> None:
    """With a copy of deploy/, and engines that write down how they are called."""
    deploy = tmp_path / "repository" / "deploy"
    (deploy / "images").mkdir(parents=True)
    (deploy / "up").write_bytes((ROOT / "deploy" / "up").read_bytes())
    programs = tmp_path / "programs"
    programs.mkdir()
    for place in (deploy / "images" / "build", programs / "docker", programs / "curl"):
        place.write_text(FAKE)
        place.chmod(0o755)
    record = tmp_path / "record"
    environment = {"PATH": f"{programs}:{os.environ['PATH']}", "RECORD": str(record)}
    for _ in range(2):
        record.unlink(missing_ok=True)
        subprocess.run(["bash", str(deploy / "up")], env=environment, check=True)
        secrets = (deploy / ".env").read_text()
    assert (deploy / ".env").stat().st_mode & 0o077 == 0
    values = re.findall(r"^(\w+)=([0-9a-f]{32})$", secrets, re.MULTILINE)
    assert [name for name, _ in values] == ["POSTGRES_PASSWORD", "GRAFANA_PASSWORD"]
    assert len({value for _, value in values}) == 2
    called = record.read_text()
    order = ["build\nserving", "build\ncuda", "up\n--detach", "proxy\ncat", "gateway\ncat", "curl"]
    places = [called.index(one) for one in order]
    assert places == sorted(places)
    # Not among the arguments, which other users see.
    assert "Bearer" not in called
