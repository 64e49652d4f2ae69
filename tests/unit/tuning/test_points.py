import pytest

from newshelf.config import (
    ArchiveSettings,
    ModelServingSettings,
    RecommenderServingSettings,
    Settings,
)
from newshelf.errors import SettingsError
from newshelf.tuning.points import Space, layouts, with_point
from tests.unit.tuning.conftest import MakePoint


@pytest.mark.parametrize(
    ("cores", "expected"),
    [
        (1, [(1, 1), (2, 1)]),
        (2, [(1, 2), (2, 1), (3, 1)]),
        (6, [(1, 6), (2, 3), (4, 1), (6, 1), (7, 1)]),
        (8, [(1, 8), (2, 4), (4, 2), (8, 1), (9, 1)]),
    ],
)
def test_workers_share_the_cores(cores: int, expected: list[tuple[int, int]]) -> None:
    assert layouts(cores) == expected


def test_ones_own_layouts() -> None:
    assert layouts(8, [2]) == [(2, 4)]
    assert layouts(8, [2, 3], [1, 4]) == [(2, 1), (2, 4), (3, 1), (3, 4)]
    assert layouts(2, None, [5]) == [(1, 5), (2, 5), (3, 5)]


def test_a_point_changes_what_is_tuned_and_nothing_else(point: MakePoint) -> None:
    own = Settings(
        seed=3,
        archive=ArchiveSettings(
            encoder=ModelServingSettings(queue_size=99, workers=7),
            recommender=RecommenderServingSettings(workers=5),
        ),
    )
    tuned = with_point(own, "encoder", point(workers=2, threads=3, batch=4, delay=9))
    assert tuned.seed == 3
    assert tuned.archive.recommender == own.archive.recommender
    assert tuned.archive.encoder == ModelServingSettings(
        queue_size=99, workers=2, threads=3, batch_size=4, max_batch_delay_ms=9
    )
    # What the user did not write stays unwritten.
    dumped = tuned.model_dump(exclude_unset=True)
    assert set(dumped) == {"seed", "archive"}
    assert dumped["archive"]["recommender"] == {"workers": 5}


def test_a_value_that_the_settings_refuse_is_named(point: MakePoint) -> None:
    with pytest.raises(SettingsError, match=r"cannot be archived: .*max_batch_delay_ms"):
        with_point(Settings(), "encoder", point(delay=5000))
    with pytest.raises(SettingsError, match="runtime"):
        with_point(Settings(), "encoder", point(runtime="tvm"))


def test_the_middle_stands_for_a_computing(point: MakePoint) -> None:
    computing = point().computing
    space = Space((computing,), (1, 4, 8, 16), (1, 3, 10))
    assert space.middle(computing) == point(batch=8, delay=3)
    assert space.size() == 12
    assert Space((computing,), (2,), (1,)).middle(computing) == point(batch=2, delay=1)


def test_a_space_without_values_is_refused(point: MakePoint) -> None:
    with pytest.raises(SettingsError, match="nothing to tune"):
        Space((point().computing,), (), (1,))
