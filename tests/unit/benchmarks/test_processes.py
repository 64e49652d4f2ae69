"""Processes and threads of the benchmarks."""

import threading

import pytest

from benchmarks.processes import in_threads, run_module
from benchmarks.results import BenchmarkError


def test_a_module_reads_its_input_and_its_errors_are_told() -> None:
    assert run_module("json.tool", "--compact", given='{"a": 1}') == '{"a":1}\n'
    with pytest.raises(BenchmarkError, match="No module named"):
        run_module("benchmarks.nothing")


def test_threads_end_with_their_block() -> None:
    numbers, began = list[int](), threading.Barrier(3)

    def work(number: int, ended: threading.Event) -> None:
        began.wait()
        ended.wait()
        numbers.append(number)

    with in_threads(work, 2):
        began.wait()
        assert not numbers
    assert sorted(numbers) == [0, 1]
