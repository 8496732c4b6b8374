import pytest

from dgs_lightning.reporting.statistics import compare_paired, summarize_draws, summarize_repeats, training_share


def test_three_repeats_have_the_spread_and_interval_of_the_textbook() -> None:
    repeats = summarize_repeats([1.0, 2.0, 6.0])
    assert (repeats.count, repeats.mean) == (3, 3.0)
    assert repeats.sample_std == pytest.approx(7**0.5)
    half = 4.302653 * (7 / 3) ** 0.5  # t of 2 degrees of freedom, two-sided 95 %
    assert repeats.interval == pytest.approx((3 - half, 3 + half), abs=1e-5)


def test_a_single_repeat_has_no_sample_spread() -> None:
    repeats = summarize_repeats([0.4])
    assert (repeats.mean, repeats.sample_std, repeats.interval) == (0.4, None, None)


def test_no_repeats_have_no_mean() -> None:
    with pytest.raises(ValueError, match="at least one"):
        summarize_repeats([])


def test_methods_are_compared_on_the_pairs_they_share() -> None:
    comparison = compare_paired({0: 0.5, 1: 0.6, 2: 0.7, 9: 0.0}, {2: 0.4, 1: 0.5, 0: 0.6, 7: 1.0})
    assert (comparison.difference.count, comparison.wins) == (3, 2)
    assert comparison.difference.mean == pytest.approx(0.1)
    # Differences -0.1, 0.1, 0.3: t = 0.1 / (0.2 / sqrt 3) = 0.8660; p = 1 - t / sqrt(t^2 + 2) for 2 degrees of freedom.
    assert comparison.p_value == pytest.approx(1 - 0.8660254 / 2.75**0.5, abs=1e-6)


def test_equal_differences_and_single_pairs_have_no_p_value() -> None:
    assert compare_paired({0: 0.5, 1: 0.75}, {0: 0.25, 1: 0.5}).p_value is None
    assert compare_paired({0: 0.5}, {0: 0.25}).p_value is None


def test_methods_without_a_common_pair_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="the same draws or seeds"):
        compare_paired({0: 0.5}, {1: 0.5})


def test_draws_are_the_measurements_where_there_are_several() -> None:
    found = summarize_draws({0: [1.0, 3.0], 1: [4.0, 6.0], 2: [7.0, 9.0]})  # means 2, 5 and 8
    assert (found.count, found.mean, found.sample_std) == (3, 5.0, 3.0)
    assert summarize_draws({0: [1.0, 3.0]}) == summarize_repeats([1.0, 3.0])  # one draw: the trainings


def test_the_share_of_training_is_that_of_an_analysis_of_variance() -> None:
    # Within the draws the variance is 2. The means 2, 5 and 8 have a variance of 9, of which 2 / 2 is from training.
    assert training_share({0: [1.0, 3.0], 1: [4.0, 6.0], 2: [7.0, 9.0]}) == pytest.approx(2 / (2 + 8))
    assert training_share({0: [1.0, 3.0], 1: [1.5, 2.5]}) == 1.0  # equal means: nothing is left for the draw
    assert training_share({0: [1.0, 1.0], 1: [2.0, 2.0]}) == 0.0


def test_the_share_of_training_is_unknown_with_one_training_or_one_draw() -> None:
    assert training_share({0: [1.0], 1: [2.0], 2: [3.0]}) is None
    assert training_share({0: [1.0, 2.0]}) is None
    assert training_share({0: [1.0, 1.0], 1: [1.0, 1.0]}) is None  # no variance at all
