"""Outlines written as texts."""

import numpy as np
import pytest

from newshelf.sample.pen import points, spaced


def test_a_polyline_keeps_its_points():
    assert points("16,62 84,38").tolist() == [[16, 62], [84, 38]]


def test_a_curve_passes_through_its_points():
    curve = points("curve 42,18 50,38 58,18")
    assert len(curve) > 10
    for knot in ((42, 18), (50, 38), (58, 18)):
        assert np.abs(curve - knot).sum(axis=1).min() < 1e-9


def test_a_half_is_closed_by_its_mirror_image():
    outline = points("half curve 57,17 70,23 69,82")
    assert np.allclose(outline[::-1], outline * (-1, 1) + (100, 0))


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("disc 50,40 20", (30, 20), (70, 60)),
        ("disc 50,40 20,30", (30, 10), (70, 70)),
        ("arc 50,50 20,30 180,360", (30, 20), (70, 50)),
        ("ngon 50,50 20 4", (30, 30), (70, 70)),
        ("box 24,38 76,86", (24, 38), (76, 86)),
        ("box 24,38 76,86 2", (24, 38), (76, 86)),
        ("arc 50,50 20,30 0,180 3", (30, 50), (70, 80)),
        ("row 20,30 70,80 4", (20, 30), (70, 80)),
        ("sag 60 15 2", (35, 60), (65, 62)),
        ("heart 50,50 20", (30, 35.2), (70, 71.2)),
        ("arc 50,50 20,30 180,360 | 86,84 14,84", (14, 20), (86, 84)),
    ],
)
def test_a_form_fills_its_box(text, low, high):
    outline = points(text)
    assert np.allclose(outline.min(axis=0), low, atol=0.2)
    assert np.allclose(outline.max(axis=0), high, atol=0.2)


def test_an_unknown_form_is_refused():
    with pytest.raises(ValueError, match="circle"):
        points("circle 50,50 20")


def test_points_along_a_path_have_equal_distances():
    steps = np.hypot(*np.diff(spaced("0,0 9,0 9,21", 3), axis=0).T)
    assert np.allclose(steps, 3)
