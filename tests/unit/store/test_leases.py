"""Of several controllers one acts, and a dead one's turn runs out."""

import threading
import time

from newshelf.store.store import EventStore

LONG_S = 600.0


def test_a_lease_is_one_controllers(store: EventStore) -> None:
    assert store.leases.acquire("spring", "a", LONG_S)
    assert not store.leases.acquire("spring", "b", LONG_S)
    assert store.leases.acquire("spring", "a", LONG_S)
    assert store.leases.acquire("autumn", "b", LONG_S)


def test_a_lease_is_given_back_by_its_holder_alone(store: EventStore) -> None:
    store.leases.acquire("spring", "a", LONG_S)
    store.leases.release("spring", "b")
    assert not store.leases.acquire("spring", "b", LONG_S)
    store.leases.release("spring", "a")
    assert store.leases.acquire("spring", "b", LONG_S)


def test_a_lease_has_a_holder_while_it_lasts(store: EventStore) -> None:
    assert store.leases.holder("spring") is None
    store.leases.acquire("spring", "a", 60)
    assert store.leases.holder("spring") == "a"
    store.leases.acquire("spring", "a", 0)
    assert store.leases.holder("spring") is None


def test_a_dead_controllers_lease_runs_out(store: EventStore) -> None:
    assert store.leases.acquire("spring", "a", 0.2)
    deadline = time.monotonic() + 60
    while not store.leases.acquire("spring", "b", LONG_S):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert not store.leases.acquire("spring", "a", LONG_S)


def test_a_prolonged_lease_lasts(store: EventStore) -> None:
    assert store.leases.acquire("spring", "a", 0.05)
    assert store.leases.acquire("spring", "a", LONG_S)
    time.sleep(0.1)
    assert not store.leases.acquire("spring", "b", LONG_S)


def test_without_its_lease_a_controller_changes_nothing(store: EventStore) -> None:
    store.rollouts.create("spring", "", "0", None)
    assert not store.rollouts.replace_state("spring", 1, "1", None, "", holder="a")
    store.leases.acquire("spring", "a", 0.01)
    time.sleep(0.05)
    assert not store.rollouts.replace_state("spring", 1, "1", None, "", holder="a")
    store.leases.acquire("spring", "b", LONG_S)
    assert not store.rollouts.replace_state("spring", 1, "1", None, "", holder="a")
    assert store.rollouts.get("spring").state == "0"
    assert store.rollouts.replace_state("spring", 1, "1", None, "", holder="b")


def test_of_controllers_that_ask_at_once_one_gets_it(url: str, store: EventStore) -> None:
    rounds, taken = 20, []
    start = threading.Barrier(3)

    def ask(me: str) -> None:
        with EventStore.open(url) as mine:
            for number in range(rounds):
                start.wait()
                if mine.leases.acquire(f"lease {number}", me, LONG_S):
                    taken.append(number)

    threads = [threading.Thread(target=ask, args=(me,)) for me in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == list(range(rounds))


def test_a_host_is_known_with_its_report_while_its_lease_lasts(store: EventStore) -> None:
    hosts = store.hosts
    assert hosts.acquire("here", "a", LONG_S)
    assert hosts.acquire("there", "b", 0.2)
    assert not hosts.acquire("here", "b", LONG_S)
    assert store.leases.acquire("here", "b", LONG_S)
    assert hosts.report("here", "a", "fine")
    assert not hosts.report("here", "b", "mine")
    assert hosts.acquire("here", "a", LONG_S)
    assert hosts.reports()["here"] == "fine"
    while hosts.reports().keys() != {"here"}:
        time.sleep(0.05)
    hosts.release("here", "a")
    assert hosts.reports() == {}


def test_a_successor_does_not_inherit_a_hosts_report(store: EventStore) -> None:
    assert store.hosts.acquire("here", "a", 0.05)
    assert store.hosts.report("here", "a", "fine")
    while not store.hosts.acquire("here", "b", LONG_S):
        time.sleep(0.01)
    assert store.hosts.reports() == {"here": None}
