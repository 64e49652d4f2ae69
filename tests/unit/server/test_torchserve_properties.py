import re
import zipfile
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from newshelf.config import Limits
from newshelf.errors import ServerError
from newshelf.server.ports import Ports
from newshelf.server.torchserve import (
    final_properties,
    ports_of,
    read_properties,
    write_properties,
)
from newshelf.serving.trace import METRICS

ROOT = Path(__file__).resolve().parents[3]
FILE = ROOT / "config.properties"
# Read by the Python that starts Java (TorchServe's own, and newshelf.server), not by Java.
READ_BY_THE_STARTER = {"vmargs"}


@cache
def known_to_torchserve() -> set[str]:
    """Every string constant of TorchServe's ConfigManager class."""
    spec = find_spec("ts")
    assert spec is not None
    assert spec.origin is not None
    jar = Path(spec.origin).parent / "frontend" / "model-server.jar"
    with zipfile.ZipFile(jar) as opened:
        code = opened.read("org/pytorch/serve/util/ConfigManager.class")
    return {match.decode() for match in re.findall(rb"[a-z][a-z0-9_]+", code)}


def test_every_key_has_its_reason_in_the_comment_above_it() -> None:
    lines = FILE.read_text().splitlines()
    for number, line in enumerate(lines):
        if line and not line.startswith("#"):
            reason = lines[number - 1]
            assert reason.startswith("# "), f"{line} has no reason above it"
            assert not reason.startswith("# ---"), f"{line} has no reason above it"


@pytest.mark.parametrize("key", sorted(read_properties(FILE)))
def test_every_key_is_known_to_torchserve(key: str) -> None:
    assert key in known_to_torchserve() | READ_BY_THE_STARTER


def test_a_misspelt_key_would_be_noticed() -> None:
    assert "disable_token_authorisation" not in known_to_torchserve()


def test_nothing_listens_beyond_the_loopback_address() -> None:
    properties = read_properties(FILE)
    for key in ("inference_address", "management_address", "metrics_address"):
        assert properties[key].startswith("http://127.0.0.1:")
    assert properties["grpc_inference_address"] == "127.0.0.1"
    assert properties["grpc_management_address"] == "127.0.0.1"
    assert ports_of(properties) == Ports()


def test_models_are_managed_with_a_token_and_from_the_model_store_alone() -> None:
    properties = read_properties(FILE)
    assert properties["disable_token_authorization"] == "false"
    assert properties["enable_model_api"] == "true"
    assert not re.match(properties["allowed_urls"], "file:///tmp/encoder.mar")


@pytest.mark.parametrize("name", ["AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "db_password", "ApiKey"])
def test_workers_do_not_see_credentials(name: str) -> None:
    pattern = read_properties(FILE)["blacklist_env_vars"]
    assert re.fullmatch(pattern, name)
    assert not re.fullmatch(pattern, "CUDA_VISIBLE_DEVICES")


def test_a_body_slightly_too_large_reaches_newshelfs_own_limit() -> None:
    assert int(read_properties(FILE)["max_request_size"]) > Limits().max_body_bytes


def test_the_metrics_file_declares_what_the_handlers_send() -> None:
    declared = yaml.safe_load((ROOT / read_properties(FILE)["metrics_config"]).read_text())
    ours = {
        (kind, entry["name"], entry["unit"], tuple(entry["dimensions"]))
        for kind in ("histogram", "counter")
        for entry in declared["model_metrics"][kind]
    }
    assert ours == {
        (
            metric.kind,
            metric.name,
            "s" if metric.name.endswith("_seconds") else "count",
            ("ModelName", "Level"),
        )
        for metric in METRICS
    }


def test_final_properties_name_each_archive_and_are_absolute(tmp_path: Path) -> None:
    models = {name: tmp_path / f"{name}-abc.mar" for name in ("encoder", "recommender")}
    for path in models.values():
        path.touch()
    ports = Ports.starting_at(9000)
    final = final_properties(
        read_properties(FILE), root=ROOT, ports=ports, model_store=tmp_path, models=models
    )
    assert final["load_models"] == "encoder=encoder-abc.mar,recommender=recommender-abc.mar"
    assert final["model_store"] == str(tmp_path)
    assert Path(final["metrics_config"]).is_file()
    assert Path(final["metrics_config"]).is_absolute()
    assert ports_of(final) == ports
    assert final["inference_address"] == "http://127.0.0.1:9000"


def test_an_archive_outside_the_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="archive of encoder is not in"):
        final_properties(
            {}, root=ROOT, ports=None, model_store=tmp_path, models={"encoder": Path("/a.mar")}
        )


def test_paths_that_are_not_ascii_are_escaped_as_java_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "p"
    write_properties(path, {"model_store": "/tëst/首\\x/😀"})
    # The escapes of java.util.Properties are those of Python, surrogates apart.
    text = path.read_bytes().decode("ascii").removeprefix("model_store=").strip()
    decoded = text.encode().decode("unicode_escape").encode("utf-16", "surrogatepass")
    assert decoded.decode("utf-16") == "/tëst/首\\x/😀"


@pytest.mark.parametrize("text", ["no equals sign", "a=1\na=2"])
def test_a_bad_line_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.properties"
    path.write_text(text)
    with pytest.raises(ServerError, match="line"):
        read_properties(path)
