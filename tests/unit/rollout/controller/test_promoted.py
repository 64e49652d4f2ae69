"""What is promoted is written down, and taken back by the one who did it."""

from pathlib import Path

import pytest

from newshelf.errors import ServerError
from newshelf.rollout.versions import PromotedFile, PromotedVersion


@pytest.fixture
def file(tmp_path: Path) -> PromotedFile:
    return PromotedFile(tmp_path / "rollout" / "promoted.json")


def test_nothing_is_promoted_at_first(file: PromotedFile) -> None:
    assert file.read() is None
    file.take_back("spring")
    assert file.read() is None


def test_promoted_twice_is_promoted_once(file: PromotedFile) -> None:
    file.promote("2", "spring", "1")
    file.promote("2", "spring", "2")
    assert file.read() == PromotedVersion(version="2", rollout="spring", before="1")


def test_taken_back_it_is_the_version_before_for_good(file: PromotedFile) -> None:
    file.promote("2", "spring", "1")
    for _ in range(2):
        file.take_back("spring")
        assert file.read() == PromotedVersion(version="1", rollout="spring")


def test_another_rollouts_promotion_is_left_alone(file: PromotedFile) -> None:
    file.promote("2", "spring", "1")
    file.promote("3", "autumn", "2")
    file.take_back("spring")
    assert file.read() == PromotedVersion(version="3", rollout="autumn", before="2")


def test_a_damaged_file_says_what_to_do(file: PromotedFile) -> None:
    file.promote("2", "spring", "1")
    file.path.write_text('{"version": 2')
    with pytest.raises(ServerError, match="remove it to serve"):
        file.read()
