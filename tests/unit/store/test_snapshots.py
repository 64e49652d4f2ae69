"""Snapshots of a rollout."""

import pytest

from newshelf.store.store import EventStore

NAME = "spring"


@pytest.fixture
def kept(store: EventStore) -> EventStore:
    for name in (NAME, "autumn"):
        store.rollouts.create(name, "plan", "state", None)
    return store


def test_snapshots_are_kept_in_order_by_rollout(kept: EventStore) -> None:
    assert kept.rollouts.last_snapshot(NAME) is None
    for number in range(3):
        kept.rollouts.add_snapshot(NAME, f"snapshot {number}")
    kept.rollouts.add_snapshot("autumn", "another")
    found = kept.rollouts.snapshots(NAME, most=10)
    assert [one.snapshot for one in found] == ["snapshot 0", "snapshot 1", "snapshot 2"]
    assert found == sorted(found, key=lambda one: one.at)
    assert kept.rollouts.last_snapshot(NAME) == found[-1]


@pytest.mark.parametrize(("most", "numbers"), [(4, [0, 3, 6, 9]), (3, [1, 5, 9]), (1, [9])])
def test_of_many_snapshots_some_are_read_and_the_last_one_always(
    kept: EventStore, most: int, numbers: list[int]
) -> None:
    for number in range(10):
        kept.rollouts.add_snapshot(NAME, str(number))
    assert [int(one.snapshot) for one in kept.rollouts.snapshots(NAME, most=most)] == numbers
