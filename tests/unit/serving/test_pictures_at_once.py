"""How many pictures share a forward."""

import os

import pytest

from newshelf.serving.encoder_predictor import pictures_at_once
from newshelf.serving.runtimes.base import Device
from newshelf.serving.settings import ServingSettings


@pytest.mark.parametrize(
    ("cores", "threads", "decode_threads", "most"),
    [
        # A thread decodes on the core that the arithmetic leaves: small forwards.
        (2, 1, 2, 4),
        (8, 4, 8, 4),
        # No core is left.
        (2, 2, 2, 64),
        # No thread is there that could decode meanwhile.
        (2, 1, 1, 64),
    ],
)
def test_forwards_are_small_where_decoding_goes_on_beside_them(
    monkeypatch, cores, threads, decode_threads, most
):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    settings = ServingSettings(threads=threads, decode_threads=decode_threads, max_forward_batch=64)
    assert pictures_at_once(settings, Device()) == most


@pytest.mark.parametrize(("asked", "most"), [(2, 2), (8, 6)])
def test_what_is_asked_for_is_kept_within_a_forward(asked, most):
    settings = ServingSettings(max_forward_pictures=asked, max_forward_batch=6, decode_threads=1)
    assert pictures_at_once(settings, Device()) == most


def test_a_gpu_decodes_by_itself(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    settings = ServingSettings(threads=1, decode_threads=8, max_forward_batch=64)
    assert pictures_at_once(settings, Device("cuda")) == 64
