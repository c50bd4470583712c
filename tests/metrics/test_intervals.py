"""Intervals against tabled quantiles and sums done by hand."""

import itertools
import math

import numpy as np
import pytest
import torch

from lit_pref.metrics import Interval, across_seeds_interval, mean_interval, paired_difference_interval
from lit_pref.metrics.intervals import student_t_quantile


@pytest.mark.parametrize(
    ("confidence", "degrees", "tabled"),
    [
        # The two-sided columns that every table of Student's t has.
        (0.95, 1, 12.706),
        (0.95, 2, 4.303),
        (0.95, 4, 2.776),
        (0.95, 30, 2.042),
        (0.95, 120, 1.980),
        (0.90, 5, 2.015),
        (0.99, 3, 5.841),
        (0.99, 10, 3.169),
    ],
)
def test_student_quantiles_are_the_tabled_ones(confidence, degrees, tabled):
    assert student_t_quantile(confidence, degrees) == pytest.approx(tabled, abs=5.1e-4)


def test_closed_forms_of_one_and_two_degrees():
    # One degree is Cauchy's, tan(π/2 · confidence); two: c · √(2 / (1 − c²)).
    assert student_t_quantile(0.9, 1) == pytest.approx(math.tan(math.pi / 2 * 0.9), rel=1e-12)
    assert student_t_quantile(0.9, 2) == pytest.approx(0.9 * math.sqrt(2 / (1 - 0.81)), rel=1e-12)


def test_series_and_expansion_meet():
    # The quantile falls smoothly: its steps on both sides of the change of method are on a line.
    steps = [student_t_quantile(0.95, degrees) - student_t_quantile(0.95, degrees + 1) for degrees in (199, 200, 201)]
    assert min(steps) > 0
    assert steps[1] == pytest.approx((steps[0] + steps[2]) / 2, rel=1e-3)


def test_many_degrees_are_the_normal_distribution():
    assert student_t_quantile(0.95, 10**9) == pytest.approx(1.959964, abs=1e-6)


def test_shares_get_wilson_intervals():
    # 8 of 10, z = 1.96: centre (0.8 + 3.8415/20) / 1.38415 = 0.71674, half width
    # 1.96/1.38415 · √(0.16/10 + 3.8415/400) = 0.22659.
    interval = mean_interval(torch.tensor([1.0] * 8 + [0.0] * 2))
    assert interval == pytest.approx((0.8, 0.49015, 0.94333, 10), abs=1e-4)


def test_wilson_solves_its_own_equation():
    # Its bounds are the shares p whose own deviation z · √(p(1 − p)/n) reaches the observed share.
    interval = mean_interval([1.0] * 3 + [0.0] * 17)
    for bound in (interval.low, interval.high):
        assert abs(interval.mean - bound) == pytest.approx(1.959964 * math.sqrt(bound * (1 - bound) / 20), abs=1e-6)


@pytest.mark.parametrize(("values", "mean"), [([0, 0, 0, 0], 0.0), ([1, 1, 1, 1], 1.0)])
def test_wilson_is_not_zero_wide_when_all_are_alike(values, mean):
    # None of 4: from 0 to z²/(n + z²) = 3.8415/7.8415 = 0.4899; all of 4: mirrored.
    low, high = (0.0, 0.4899) if mean == 0 else (0.5101, 1.0)
    assert mean_interval(values) == pytest.approx((mean, low, high, 4), abs=1e-4)


def test_booleans_are_shares():
    assert mean_interval(torch.tensor([True, False])) == mean_interval([1.0, 0.0])


def test_other_values_get_student_intervals():
    # 1..5: mean 3, variance 2.5, t with 4 degrees 2.7764: 2.7764 · √(2.5/5) = 1.9633.
    assert mean_interval([1.0, 2.0, 3.0, 4.0, 5.0]) == pytest.approx((3.0, 1.0367, 4.9633, 5), abs=1e-4)


def test_means_of_shares_do_not_leave_0_to_1():
    values = [1.0, 0.99, 0.98, 0.97, 0.96, 0.95, 0.5]  # Student's reach beyond 1
    assert mean_interval(values).high > 1
    assert mean_interval(values, bounded=True) == mean_interval(values)._replace(high=1.0)
    assert mean_interval([0.5], bounded=True) == (0.5, -math.inf, math.inf, 1)  # unknown stays unknown


def test_more_confidence_is_wider():
    narrow, wide = (mean_interval([1.0, 2.0, 4.0], confidence) for confidence in (0.5, 0.99))
    assert wide.low < narrow.low < narrow.mean < narrow.high < wide.high


def test_paired_differences_leave_out_what_items_have_in_common():
    # Differences 1, 2, 3: mean 2, deviation 1, t with 2 degrees 4.3027: 4.3027/√3 = 2.4842. The items' own spread of
    # 100 does not matter.
    interval = paired_difference_interval([0.0, 100.0, 200.0], [1.0, 102.0, 203.0])
    assert interval == pytest.approx((2.0, -0.4842, 4.4842, 3), abs=1e-4)


def outcomes(both: int, lost: int, won: int, neither: int) -> tuple[list[int], list[int]]:
    """Items by what they were before and after."""
    before = [1] * both + [1] * lost + [0] * won + [0] * neither
    return before, [1] * both + [0] * lost + [1] * won + [0] * neither


def test_paired_shares_get_the_published_tango_intervals():
    # Airway hyper-responsiveness before and after a transplantation (Bentur 2009): of 21 children 1 both times, 1 only
    # before, 7 only after. Fagerland, Lydersen and Laake (2014) give −0.517 to −0.026 for before − after.
    interval = paired_difference_interval(*outcomes(1, 7, 1, 12))
    assert interval == pytest.approx((-6 / 21, -0.517, -0.026, 21), abs=5e-4)


def test_no_change_of_shares_is_not_zero_wide():
    # With none of n changed the score interval reaches z²/(n + z²) = 3.8415/23.8415; the level does not matter.
    for ones in (0, 10, 20):
        interval = paired_difference_interval(*outcomes(ones, 0, 0, 20 - ones))
        assert interval == pytest.approx((0, -0.16113, 0.16113, 20), abs=1e-5)


def test_bounds_of_paired_shares_solve_the_score_equation():
    # 9 won and 2 lost of 40. Given a difference d, the likeliest shares won q + d and lost q solve
    # won/(q + d) + lost/q = 2 · kept/(1 − 2q − d), found here on a fine grid; then |won − lost − nd| = z · deviation.
    won, lost, n = 9, 2, 40
    interval = paired_difference_interval(*outcomes(20, lost, won, 9))
    for d in (interval.low, interval.high):
        q = max(0.0, -d) + (np.arange(1, 400_000) / 400_000) * (1 - abs(d)) / 2
        likelihood = won * np.log(q + d) + lost * np.log(q) + (n - won - lost) * np.log(1 - 2 * q - d)
        best = q[likelihood.argmax()]
        deviation = math.sqrt(n * (2 * best + d - d**2))
        assert abs(won - lost - n * d) == pytest.approx(1.959964 * deviation, rel=1e-4)


@pytest.mark.parametrize("n", [5, 10, 20, 50, 200, 1000])
def test_paired_shares_are_covered_where_few_items_change(n: int):
    # Exactly, by adding up all outcomes: so many items are expected to be won, and to be lost.
    most = min(n, 24)
    counts = [(won, lost) for won in range(most + 1) for lost in range(most + 1 - won)]
    found = {(w, k): paired_difference_interval(*outcomes(0, k, w, n - w - k)) for w, k in counts}
    for expected_won, expected_lost in itertools.product([0, 0.1, 0.3, 1, 2, 3, 4, 5], repeat=2):
        win, lose = expected_won / n, expected_lost / n
        if win + lose > 0.5:
            continue
        covered = missed = 0.0
        for (won, lost), interval in found.items():
            ways = math.comb(n, won) * math.comb(n - won, lost)
            chance = ways * win**won * lose**lost * (1 - win - lose) ** (n - won - lost)
            if interval.low <= win - lose + 1e-12 and win - lose <= interval.high + 1e-12:
                covered += chance
            else:
                missed += chance
        assert missed < 0.07, (expected_won, expected_lost)  # Student's misses up to 0.95 of them here
        assert covered + missed > 0.999


def test_shares_of_samples_have_an_interval_where_nothing_changes():
    # Differences of 20 zeros, −1 and 1: variance 2/21, t with 21 degrees 2.0796: 2.0796 · √(2/21/22) = 0.13683.
    halves = [0.5] * 20
    assert paired_difference_interval(halves, halves, bounded=True) == pytest.approx(
        (0, -0.13683, 0.13683, 20), abs=1e-5
    )


@pytest.mark.parametrize("changed", [0, 1, 4])
def test_few_changes_of_other_values_have_no_interval(changed: int):
    after = [2.5] * (20 - changed) + [3.5 + i for i in range(changed)]
    interval = paired_difference_interval([2.5] * 20, after)
    assert not interval.is_known and interval.mean == pytest.approx(sum(1 + i for i in range(changed)) / 20)
    assert interval.text(1) == f"{interval.mean:.1f}"


def test_some_changes_of_other_values_have_an_interval():
    # Five of 20 by 1: mean 0.25, variance 20/19 · 0.25 · 0.75, t with 19 degrees 2.0930: 2.0930 · √(0.19737/20).
    interval = paired_difference_interval([2.5] * 20, [2.5] * 15 + [3.5] * 5)
    assert interval == pytest.approx((0.25, 0.25 - 0.20792, 0.25 + 0.20792, 20), abs=1e-4)


def test_unpaired_items_are_refused():
    with pytest.raises(ValueError, match="as many values after as before, got 2 and 3"):
        paired_difference_interval([1.0, 2.0], [1.0, 2.0, 3.0])


def test_seeds_are_no_coin_tosses():
    # Three seeds at 0, 1, 1: mean 2/3, variance 1/3, 4.3027 · √(1/9) = 1.4342, where Wilson would stay in [0, 1].
    assert across_seeds_interval([0.0, 1.0, 1.0]) == pytest.approx((2 / 3, 2 / 3 - 1.4342, 2 / 3 + 1.4342, 3), abs=1e-4)


@pytest.mark.parametrize(
    "interval_of", [mean_interval, across_seeds_interval, lambda x: paired_difference_interval([0], x)]
)
@pytest.mark.parametrize("value", [0.7, 1.0])
def test_a_single_value_says_nothing_of_the_spread(interval_of, value):
    interval = interval_of([value])
    assert interval == Interval(value, -math.inf, math.inf, 1)
    assert not interval.is_known
    assert interval.text(1, percent=True, sign="+") == f"+{100 * value:.1f}%"


def test_no_values_are_refused():
    with pytest.raises(ValueError, match="at least one value, got none"):
        mean_interval([])


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0])
def test_confidence_is_a_probability(confidence):
    with pytest.raises(ValueError, match=rf"confidence must be in \(0, 1\), got {confidence}"):
        mean_interval([1.0, 0.0], confidence)
