"""Turns, checks, ratios and tables of the serving benchmark, on contenders made up here."""

from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from benchmarks.report import markdown_table
from benchmarks.results import BenchmarkError, Goal, Row, TaskResult, judge
from benchmarks.serve import rounds
from benchmarks.serve.contender import Endpoint, check_answers, cosines
from benchmarks.serve.encoder import STOCK, best_peer
from benchmarks.serve.rounds import Measured, PictureLoad, Turn, details, run_rounds, server_turn
from benchmarks.serve.stock import Stock
from benchmarks.serve.sweeps import CLIENT_COUNTS, _leaders
from benchmarks.serve.torchserve import Layout
from benchmarks.serve.wrk import Load
from newshelf.config import Settings

QUIET = Console(quiet=True)


def found(per_second, clients=32, p99=50.0):
    return Load(clients, 100, per_second, 10.0, 20.0, p99, 99.0)


@pytest.fixture(autouse=True)
def others(monkeypatch):
    """What other work takes of the cores: nothing, whatever else this machine does."""
    shares = []
    monkeypatch.setattr(rounds.Others, "share", lambda _: shares.pop(0) if shares else 0.0)
    return shares


@pytest.fixture(autouse=True)
def spent(monkeypatch):
    """What a server takes of the cores: the frontend twice what the workers take."""

    class Made:
        @classmethod
        def watch(cls, _process):
            return cls()

        def per_request_us(self, requests):
            return {"java": 2e6 / requests, "python": 1e6 / requests}

    monkeypatch.setattr(rounds, "Spent", Made)


def test_a_turn_that_other_work_disturbed_is_taken_again(others):
    others += [0.5, 0.01]
    speeds = iter([1.0, 2.0])
    turn = Turn("a", "", lambda measured: measured.add(32, found(next(speeds))))
    one = run_rounds([turn], 1, QUIET)["a"]
    assert one.values(32) == [2.0]
    assert one.disturbed == 0.01


def test_the_last_try_counts_and_says_so(others):
    others += [0.5, 0.4, 0.3]
    turn = Turn("a", "", lambda measured: measured.add(32, found(1.0)))
    one = run_rounds([turn], 1, QUIET)["a"]
    assert one.values(32) == [1.0]
    assert one.disturbed == 0.3


def test_contenders_take_turns():
    order = []

    def turn(name):
        def take(measured):
            order.append(name)
            measured.add(32, found(len(order)))

        return Turn(name, "", take)

    measured = run_rounds([turn("a"), turn("b")], 3, QUIET)
    assert order == ["a", "b", "a", "b", "a", "b"]
    assert measured["a"].values(32) == [1, 3, 5]
    assert measured["b"].values(32, "p99_ms") == [50.0, 50.0, 50.0]


class Fixed(Endpoint):
    """Answers with an embedding made of the picture's first byte."""

    def ask_bytes(self, picture):
        return picture.read_bytes()

    def ask(self, picture):
        return unit(picture.read_bytes()[0])


def unit(seed):
    row = np.random.default_rng(seed).normal(size=512).astype(np.float32)
    return row / np.linalg.norm(row)


@pytest.fixture
def pictures(tmp_path):
    paths = [tmp_path / f"{number}.jpg" for number in range(4)]
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number]) * 100)
    return paths


def test_right_answers_pass(pictures):
    reference = np.stack([unit(number) for number in range(4)])
    assert check_answers(Fixed("", "/", None), pictures, reference) == pytest.approx(1.0)


def test_answers_in_the_wrong_order_are_found(pictures):
    reference = np.stack([unit(number) for number in (1, 0, 2, 3)])
    with pytest.raises(BenchmarkError, match="the answers are wrong: cosine"):
        check_answers(Fixed("", "/", None), pictures, reference)


def test_nothing_to_compare_with_is_no_check(pictures):
    with pytest.raises(BenchmarkError, match="no reference"):
        check_answers(Fixed("", "/", None), pictures, None)


def test_what_the_endpoint_expects_comes_first(pictures):
    expected = np.stack([unit(number) for number in range(4)])
    endpoint = Fixed("", "/", None, expected=lambda _: expected)
    assert check_answers(endpoint, pictures, -expected) == pytest.approx(1.0)


@given(st.integers(1, 5), st.floats(0.1, 10))
def test_cosines_are_of_each_row_whatever_its_length(count, scale):
    reference = np.stack([unit(number) for number in range(count)])
    answers = reference * np.float32(scale)
    assert cosines(answers, reference) == pytest.approx(np.ones(count), abs=1e-5)
    answers[-1] = unit(99)
    expected = [*np.ones(count - 1), float(unit(99) @ reference[-1])]
    assert cosines(answers, reference) == pytest.approx(np.array(expected), abs=1e-5)


def test_one_picture_far_off_is_found_among_many_right_ones(pictures):
    reference = np.stack([unit(number % 4) for number in range(40)])
    reference[7] = unit(99)
    with pytest.raises(BenchmarkError, match="at worst"):
        check_answers(Fixed("", "/", None), pictures * 10, reference)


def test_answers_of_another_shape_are_refused():
    with pytest.raises(BenchmarkError, match=r"shape \(2, 3\), reference \(2, 4\)"):
        cosines(np.ones((2, 3), np.float32), np.ones((2, 4), np.float32))


def test_a_server_is_checked_and_warmed_before_it_is_timed(pictures, monkeypatch):
    calls = []

    def load(url, requests, *, clients, seconds, least_bytes=1):
        calls.append((clients, seconds, least_bytes, len(requests)))
        return found(1.0, clients)

    class One:
        name, layout = "one", "2 workers"

        @contextmanager
        def run(self):
            calls.append("start")
            yield Fixed("http://x", "/", None)
            calls.append("end")

    monkeypatch.setattr(rounds, "load", load)
    plan = PictureLoad(pictures, np.stack([unit(number) for number in range(4)]), (32, 1), 5, 2)
    measured = run_rounds([server_turn(One(), plan)], 1, QUIET)["one"]
    # Least bytes: half of an answer's.
    loads = [(1, 2, 1, 4), (1, 5, 50, 4), (32, 2, 1, 4), (32, 5, 50, 4)]
    assert calls == ["start", *loads, "end"]
    assert sorted(measured.loads) == [1, 32]
    # 100 requests in each load.
    assert measured.cpu_us(32) == pytest.approx(3e4)
    assert measured.cpu_us(1, "java") == pytest.approx(2e4)
    assert measured.cosine == pytest.approx(1.0)


def test_wrong_answers_are_never_timed(pictures, monkeypatch):
    class One:
        name, layout = "one", ""

        @contextmanager
        def run(self):
            yield Fixed("http://x", "/", None)

    monkeypatch.setattr(rounds, "load", lambda *_, **__: pytest.fail("it was timed"))
    plan = PictureLoad(pictures, np.stack([unit(9)] * 4), (1,), 1, 1)
    with pytest.raises(BenchmarkError, match="wrong"):
        run_rounds([server_turn(One(), plan)], 1, QUIET)


def measured(name, speeds, clients=32):
    one = Measured(name, "2 × 1 threads", 0.9991)
    for speed in speeds:
        one.add(clients, found(speed, clients))
    return one


def test_the_best_peer_is_the_one_with_the_highest_median():
    peers = {"a": measured("a", [100, 10, 100]), "b": measured("b", [90, 90, 300])}
    assert best_peer(peers, ["a", "b"]) == "a"


def test_the_table_has_median_and_range():
    text = details([measured("Newshelf", [250.0, 100.0, 300.0])])
    line = text.splitlines()[2]
    assert line == (
        "| Newshelf | 2 × 1 threads | 32 | 250.0 (100.0–300.0) | 10.0 | 20.0 | 50.0 | – | 0.9991 "
        "| 0% |"
    )


def test_details_tell_what_the_server_took_of_a_core():
    one = measured("Newshelf", [])
    for us in (1000.0, 3000.0, 2000.0):
        one.add(32, replace(found(1.0), cpu_us={"java": us, "python": 500.0}))
    assert "| 2.50 |" in details([one]).splitlines()[2]


def test_a_bar_in_a_cell_does_not_end_it():
    assert markdown_table(["a"], "l", [["x|y"]]).splitlines()[-1] == "| x\\|y |"


def test_a_robust_row_is_judged_by_its_median():
    rows = [
        Row("requests/s", "Newshelf", [60.0, 62.0, 1.0], robust=True),
        Row("requests/s", "stock", [10.0, 10.0, 10.0], baseline=True, robust=True),
    ]
    result = TaskResult("t", "T", "", rows, [Goal("requests/s", 6.0, "times")], percent=False)
    [verdict] = judge(result)
    assert verdict.needed == 60.0
    assert verdict.reached


def test_a_layout_is_written_into_the_settings_of_its_model():
    layout = Layout(workers=3, threads=1, batch_size=4, delay_ms=1)
    settings = layout.settings(Settings(), "encoder")
    assert settings.archive.encoder.workers == 3
    assert settings.archive.encoder.max_batch_delay_ms == 1
    assert settings.archive.recommender == Settings().archive.recommender
    assert settings.archive.encoder.cache_bytes == 0
    assert layout.words() == "3 × 1 threads, batch ≤ 4, wait ≤ 1 ms"


def test_layouts_have_folders_of_their_own():
    one, two = Layout(2, 1, 8), Layout(2, 1, 8, delay_ms=3)
    assert one.slug() != two.slug()
    assert one.slug().replace("-", "").isalnum()


def test_where_a_peer_leads_the_notes_say_so():
    measured = {name: Measured(name, "") for name in ("Newshelf", "one worker", "peer", "other")}
    for clients in CLIENT_COUNTS:
        measured["Newshelf"].add(clients, found(200.0 if clients > 4 else 50.0, clients))
        measured["one worker"].add(clients, found(100.0, clients))
        measured["peer"].add(clients, found(150.0, clients))
        measured["other"].add(clients, found(10.0, clients))
    notes = dict(zip(CLIENT_COUNTS, _leaders(measured, ["Newshelf", "one worker"]), strict=True))
    assert "**peer leads**" in notes[2]
    assert "0.67 times" in notes[2]
    assert "Newshelf leads" in notes[32]
    assert "1.33 times" in notes[32]


def test_the_stock_handler_is_measured_with_one_thread_per_worker_too():
    stocks = [Stock(Path("python"), Path("m.pt"), Path(), config, threads)
              for config, threads in STOCK]  # fmt: skip
    assert len({stock.name for stock in stocks}) == len(stocks)
    single = [stock for stock in stocks if stock.threads == 1]
    assert all("OMP_NUM_THREADS 1" in stock.layout for stock in single)
    assert {stock.config.get("minWorkers") for stock in single} == {2}
