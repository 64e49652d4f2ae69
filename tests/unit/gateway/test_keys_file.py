"""Keys are kept hashed, in a private file, and found by what they hash to."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from newshelf.errors import Forbidden, SettingsError
from newshelf.files import file_stamp
from newshelf.gateway.keys import SCOPES, ApiKey, KeyAccess, KeyFile, Scope, TokenBucket, digest_of

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def file(tmp_path: Path) -> KeyFile:
    return KeyFile(tmp_path / "gateway" / "keys.json")


def add(file: KeyFile, name: str = "shop", **options: object) -> str:
    return file.add(name, **{"now": NOW, "expires": None, "rate_per_s": 5.0, **options})  # type: ignore[arg-type]


def found(file: KeyFile, secret: str) -> ApiKey | None:
    return next((key for key in file.read() if key.sha256 == digest_of(secret)), None)


def test_a_key_is_found_and_its_file_does_not_hold_it(file: KeyFile) -> None:
    secret = add(file)
    assert len(secret) > 40
    (key,) = file.read()
    assert (key.name, key.created, key.expires, key.rate_per_s) == ("shop", NOW, None, 5.0)
    assert found(file, secret) == key
    assert found(file, secret[:-1]) is None
    assert found(file, key.sha256) is None
    assert secret not in file.path.read_text()
    assert file.path.stat().st_mode & 0o777 == 0o600


def test_keys_differ(file: KeyFile) -> None:
    assert len({add(file, f"shop-{number}") for number in range(10)}) == 10
    assert len({key.sha256 for key in file.read()}) == 10


def test_a_revoked_key_is_gone_and_the_others_stay(file: KeyFile) -> None:
    first, second = add(file, "first"), add(file, "second")
    file.revoke("first")
    assert found(file, first) is None
    assert found(file, second) is not None


def test_a_key_expires_at_its_moment(file: KeyFile) -> None:
    add(file, expires=NOW + timedelta(days=1))
    (key,) = file.read()
    assert not key.expired(NOW + timedelta(hours=23))
    assert key.expired(NOW + timedelta(days=1))


def test_what_cannot_be_a_key_is_refused_and_changes_nothing(file: KeyFile) -> None:
    add(file, "taken")
    before = file.path.read_bytes()
    for options, said in (
        ({"name": "taken"}, "already"),
        ({"name": "with space"}, "name"),
        ({"name": ""}, "name"),
        ({"rate_per_s": 0}, "rate_per_s"),
        ({"rate_per_s": float("inf")}, "rate_per_s"),
        ({"expires": NOW}, "expired already"),
        ({"scopes": ()}, "scopes"),
        ({"scopes": ("write",)}, "scopes"),
        ({"public": True}, "feedback, and no other"),
        ({"public": True, "scopes": ("feedback", "read")}, "feedback, and no other"),
    ):
        with pytest.raises(SettingsError, match=said):
            add(file, **{"name": "new", **options})  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="no key called 'other'; there are: taken"):
        file.revoke("other")
    assert file.path.read_bytes() == before


def test_a_file_that_others_can_read_is_refused(file: KeyFile) -> None:
    add(file)
    file.path.chmod(0o644)
    with pytest.raises(SettingsError, match="chmod 600"):
        file.read()


@pytest.mark.parametrize(
    ("text", "said"),
    [("{", "JSON"), ('{"keys": [{}]}', r"keys\.0\.name"), ('{"kays": []}', "kays")],
)
def test_a_damaged_file_says_where(file: KeyFile, text: str, said: str) -> None:
    add(file)
    file.path.write_text(text)
    with pytest.raises(SettingsError, match=said):
        file.read()


def test_no_file_is_no_keys(file: KeyFile) -> None:
    assert file.read() == ()
    before = file_stamp(file.path)
    add(file)
    assert file_stamp(file.path) != before


def test_the_file_is_json_that_a_person_can_read(file: KeyFile) -> None:
    add(file, "shop")
    assert json.loads(file.path.read_text())["keys"][0]["name"] == "shop"


def test_a_key_of_an_earlier_version_reads_and_takes_feedback(file: KeyFile) -> None:
    secret = add(file)
    table = json.loads(file.path.read_text())
    del table["keys"][0]["scopes"]
    file.path.write_text(json.dumps(table))
    (key,) = file.read()
    assert key.scopes == ("read", "feedback")
    access = KeyAccess(file)
    header = f"Bearer {secret}".encode()
    assert access.admit(header, "/v1/recommend", "").name == "shop"
    assert access.admit(header, "/v1/feedback", "").name == "shop"
    with pytest.raises(Forbidden, match="'items'"):
        access.admit(header, "/v1/items/a", "")


@pytest.mark.parametrize(
    ("path", "scope"),
    [
        ("/v1/recommend", "read"),
        ("/metrics", "read"),
        ("/", "read"),
        ("/v1/feedback", "feedback"),
        ("/v1/items", "items"),
        ("/v1/items/a/b", "items"),
        ("/v1/units/ann", "admin"),
        ("/v1/units/merge", "admin"),
    ],
)
def test_a_key_with_one_scope_may_do_what_it_names(file: KeyFile, path: str, scope: Scope) -> None:
    for name in SCOPES:
        secret = add(file, name, scopes=(name,))
        header = f"Bearer {secret}".encode()
        if name == scope:
            assert KeyAccess(file).admit(header, path, "").name == name
        else:
            with pytest.raises(Forbidden, match=scope):
                KeyAccess(file).admit(header, path, "")


def test_a_bucket_gives_its_burst_at_once_and_then_its_rate() -> None:
    bucket = TokenBucket(8, 3, now_s=100)
    assert [bucket.take(100) for _ in range(3)] == [0, 0, 0]
    assert bucket.take(100) == 0.125
    assert bucket.take(100.125) == 0
    assert bucket.take(100.125) == 0.125
    # However long nobody asks, it holds no more than its burst.
    assert sum(bucket.take(10_000) == 0 for _ in range(10)) == 3


def test_a_bucket_keeps_its_rate_over_time() -> None:
    bucket = TokenBucket(64, 1, now_s=0)
    passed = sum(bucket.take(number / 1024) == 0 for number in range(10_240))
    assert passed == 640
