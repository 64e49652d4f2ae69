import pytest


def test_a_split_refuses_truth_in_the_history(make_split):
    with pytest.raises(ValueError, match=r"case 1 .*history"):
        make_split([[0]], 4, [([0], [1]), ([2, 1], [1])])


def test_a_split_refuses_truth_that_is_not_ranked(make_split):
    with pytest.raises(ValueError, match=r"case 0 .*not ranked"):
        make_split([[0]], 4, [([0], [1, 2])], candidates=[1, 3])


@pytest.mark.parametrize("case", [([], [1]), ([1], [])])
def test_a_split_refuses_a_case_without_history_or_truth(make_split, case):
    with pytest.raises(ValueError, match="case 0 lacks"):
        make_split([[0]], 4, [case])


def test_a_split_refuses_timestamps_that_do_not_fit(make_split):
    with pytest.raises(ValueError, match="differ in length"):
        make_split([[0, 1]], 4, stamps=[[5]])
