import math

from newshelf.attributes.title_features import CharacterStatistics


def test_cohesion_is_the_rounded_mutual_information():
    statistics = CharacterStatistics.learn(["ab", "ab", "ac", "ab"])
    # Distinct titles only: ^ab$ and ^ac$, eight characters in all.
    assert statistics.cohesion["ab"] == round(math.log(1 * 8 / (2 * 1)))
    assert "ba" not in statistics.cohesion


def test_entropy_is_of_what_follows_and_precedes_a_pair():
    statistics = CharacterStatistics.learn(["abx", "aby", "cab", "dab"])
    after = [1 / 4, 1 / 4, 2 / 4]  # x, y and twice the end
    assert statistics.after["ab"] == round(-2 * sum(p * math.log(p) for p in after))
    before = [2 / 4, 1 / 4, 1 / 4]  # twice the beginning, c and d
    assert statistics.before["ab"] == round(-2 * sum(p * math.log(p) for p in before))


def test_no_titles_no_statistics():
    assert CharacterStatistics.learn([]).cohesion == {}
