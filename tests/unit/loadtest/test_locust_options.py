"""What the locustfile's options mean."""

import json
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

import pytest

from loadtest.locust_options import add_options, command_line, find_target, traffic_of
from newshelf.errors import ServerError, SettingsError

HOST = "http://127.0.0.1:9"


class Parser(ArgumentParser):
    """Stands for Locust's, whose import would patch the sockets and threads of the tests."""

    def add_argument(self, *names: str, include_in_web_ui: bool = True, **further: Any) -> Any:
        return super().add_argument(*names, **further)


def options(*words: str) -> Namespace:
    parser = Parser()
    add_options(parser)
    return parser.parse_args(list(words))


def keys(folder: Path, token: str) -> Path:
    path = folder / "key_file.json"
    entry = {"key": token, "expiration time": "2100-01-01T00:00:00Z"}
    path.write_text(
        json.dumps({"management": entry, "inference": entry, "API": {"key": "another"}})
    )
    path.chmod(0o600)
    return path


def test_host_token_and_catalogue_are_taken_as_given(tmp_path: Path) -> None:
    target = find_target(options("--catalog", str(tmp_path), "--token", "t"), f"{HOST}/")
    assert (target.url, target.catalog) == (HOST, tmp_path)
    assert target.headers() == {"Authorization": "Bearer t"}


def test_the_token_is_read_from_a_key_file(tmp_path: Path) -> None:
    path = keys(tmp_path, "from the file")
    target = find_target(options("--catalog", str(tmp_path), "--key-file", str(path)), HOST)
    assert target.token == "from the file"


def test_a_server_without_tokens_is_sent_none(tmp_path: Path) -> None:
    assert find_target(options("--catalog", str(tmp_path)), HOST).headers() == {}


def test_a_host_of_which_nothing_is_known_needs_a_catalogue(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--catalog"):
        find_target(options("--workspace", str(tmp_path)), HOST)
    with pytest.raises(SettingsError, match="is not a folder"):
        find_target(options("--catalog", str(tmp_path / "none")), HOST)


def test_without_a_host_a_server_must_run(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="no server is running"):
        find_target(options("--workspace", str(tmp_path)), None)


def test_a_missing_key_file_is_named(tmp_path: Path) -> None:
    path = str(tmp_path / "none.json")
    with pytest.raises(ServerError, match=r"none\.json"):
        find_target(options("--catalog", str(tmp_path), "--key-file", path), HOST)


def test_the_mix_is_given_in_words() -> None:
    asked = options("--mix", " encode text = 1, recommend history=9,", "--cold-share", "0.5")
    traffic = traffic_of(asked)
    assert traffic.mix == {"encode text": 1, "recommend history": 9}
    assert (traffic.cold_share, traffic.bad_share) == (0.5, 0)
    assert sum(traffic_of(options()).mix.values()) > 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--mix", "encode sound=1"], "'encode sound'; there are encode picture"),
        (["--mix", "encode text"], "write encode text=1"),
        (["--mix", "encode text=0"], "sends nothing"),
        (["--mix", "encode text=-1"], "mix.encode text"),
        (["--bad-share", "2"], "bad_share"),
    ],
)
def test_what_makes_no_sense_is_refused(words: list[str], says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        traffic_of(options(*words))


def test_a_record_never_shows_the_token() -> None:
    words = ["locust", "--token", "secret", "-f", "a file.py", "--token=secret"]
    assert command_line(words) == "locust --token HIDDEN -f 'a file.py' --token=HIDDEN"
