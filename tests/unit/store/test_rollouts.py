"""A rollout's state changes only as one saw it, and every change is written down."""

import threading

import pytest

from newshelf.errors import SettingsError
from newshelf.store.records import Traffic
from newshelf.store.store import EventStore


def test_a_new_rollout(store: EventStore, split) -> None:
    store.rollouts.create("spring", "the plan", "shadow", split())
    row = store.rollouts.get("spring")
    assert (row.name, row.plan, row.state, row.revision) == ("spring", "the plan", "shadow", 1)
    assert row.split == split()
    assert row.created_at == row.updated_at
    (entry,) = store.rollouts.journal("spring")
    assert (entry.revision, entry.state, entry.split, entry.note) == (
        1,
        "shadow",
        split(),
        "created",
    )


def test_a_name_is_used_once(store: EventStore) -> None:
    store.rollouts.create("spring", "the plan", "shadow", None)
    with pytest.raises(SettingsError, match="spring already"):
        store.rollouts.create("spring", "another", "ramp", None)
    assert store.rollouts.get("spring").plan == "the plan"
    assert len(store.rollouts.journal("spring")) == 1


def test_an_unknown_rollout_is_told_with_those_that_there_are(store: EventStore) -> None:
    with pytest.raises(SettingsError, match="none at all"):
        store.rollouts.get("spring")
    store.rollouts.create("autumn", "", "", None)
    with pytest.raises(SettingsError, match="no rollout spring; there is autumn"):
        store.rollouts.journal("spring")


def test_a_state_is_replaced_once_per_revision(store: EventStore, split) -> None:
    store.rollouts.create("spring", "", "shadow", None)
    assert store.rollouts.replace_state("spring", 1, "ramp", split(), "shadow was fine")
    assert not store.rollouts.replace_state("spring", 1, "aborted", None, "late")
    row = store.rollouts.get("spring")
    assert (row.state, row.split, row.revision) == ("ramp", split(), 2)
    assert row.updated_at >= row.created_at
    notes = [(entry.revision, entry.note) for entry in store.rollouts.journal("spring")]
    assert notes == [(1, "created"), (2, "shadow was fine")]


def test_a_rollout_that_is_not_there_is_not_replaced(store: EventStore) -> None:
    assert not store.rollouts.replace_state("spring", 1, "ramp", None, "")


def test_the_splits_are_those_that_are_served(store: EventStore, split) -> None:
    assert store.rollouts.traffic().splits == ()
    store.rollouts.create("b", "", "", split("b", overrides={"tester": "challenger"}))
    store.rollouts.create("a", "", "", split("a"))
    store.rollouts.create("waits", "", "", None)
    assert [one.rollout for one in store.rollouts.traffic().splits] == ["b", "a"]
    assert store.rollouts.traffic().splits[0].overrides == {"tester": "challenger"}
    store.rollouts.replace_state("b", 1, "promoted", None, "better")
    assert store.rollouts.traffic().splits == (split("a"),)
    assert [row.name for row in store.rollouts.all()] == ["b", "a", "waits"]


def test_the_version_that_is_served_changes_with_the_state(store: EventStore, split) -> None:
    assert store.rollouts.traffic().version == ""
    store.rollouts.create("spring", "", "", split("spring"))
    assert store.rollouts.replace_state("spring", 1, "promoting", split("spring"), "", serve="old")
    assert store.rollouts.traffic() == Traffic((split("spring"),), "old")
    assert not store.rollouts.replace_state("spring", 1, "late", None, "", serve="new")
    assert store.rollouts.replace_state("spring", 2, "promoted", None, "", serve="new")
    assert store.rollouts.replace_state("spring", 3, "rolling_back", None, "")
    assert store.rollouts.traffic() == Traffic((), "new")


def test_rollouts_of_one_moment_stay_in_their_order(store: EventStore) -> None:
    """Several within a millisecond, which is all that SQLite's clock tells apart."""
    names = [f"{letter}{number}" for number in range(4) for letter in "zyx"]
    for name in names:
        store.rollouts.create(name, "", "", None)
    rows = store.rollouts.all()
    assert [row.name for row in rows] == names
    assert len({row.created_at for row in rows}) == len(names)


def test_a_split_of_another_rollout_is_refused(store: EventStore, split) -> None:
    with pytest.raises(SettingsError, match="of the rollout autumn, not of spring"):
        store.rollouts.create("spring", "", "", split("autumn"))
    store.rollouts.create("spring", "", "", None)
    with pytest.raises(SettingsError, match="of the rollout autumn, not of spring"):
        store.rollouts.replace_state("spring", 1, "", split("autumn"), "")
    assert store.rollouts.get("spring").revision == 1


def test_of_controllers_that_change_it_at_once_one_does(url: str, store: EventStore) -> None:
    store.rollouts.create("spring", "", "0", None)
    rounds, changed = 20, []
    start = threading.Barrier(3)

    def control(me: str) -> None:
        with EventStore.open(url) as mine:
            for revision in range(1, rounds + 1):
                start.wait()
                if mine.rollouts.replace_state("spring", revision, me, None, me):
                    changed.append((revision, me))

    threads = [threading.Thread(target=control, args=(me,)) for me in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(revision for revision, _ in changed) == list(range(1, rounds + 1))
    kept = [(entry.revision - 1, entry.note) for entry in store.rollouts.journal("spring")[1:]]
    assert kept == sorted(changed)
