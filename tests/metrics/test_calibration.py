"""Calibration of margins, with numbers worked out by hand and margins that are calibrated by construction."""

import math

import pytest
import torch

from lit_pref.metrics import expected_calibration_error, pair_brier, pair_nll

LN3 = math.log(3)  # σ(ln 3) = 3/4


def test_nll_and_brier_of_known_probabilities() -> None:
    margin = torch.tensor([LN3, -LN3, 0.0, 1000.0, -1000.0])
    # chosen is preferred with 3/4, 1/4, 1/2, 1, 0
    expected = [math.log(4 / 3), math.log(4), math.log(2), 0.0, 1000.0]
    torch.testing.assert_close(pair_nll(margin), torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=0)
    expected = [1 / 16, 9 / 16, 1 / 4, 0.0, 1.0]
    torch.testing.assert_close(pair_brier(margin), torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=0)


def test_confidence_against_hits_in_bins_of_equal_mass() -> None:
    nine = math.log(9)  # σ = 9/10
    # lower half: confidence 3/4, one of two right: gap 1/4; upper half: 9/10, both right: gap 1/10; (1/4 + 1/10) / 2
    margin = torch.tensor([nine, LN3, nine, -LN3], dtype=torch.float64)
    assert expected_calibration_error(margin, bins=2).item() == pytest.approx(0.175)
    # one bin: 3 of 4 right, mean confidence 0.825
    assert expected_calibration_error(margin, bins=1).item() == pytest.approx(0.075)


def test_calibrated_margins_have_no_error() -> None:
    # of four pairs with 3/4 three are right; with 0 either order is as good
    assert expected_calibration_error(torch.tensor([LN3, LN3, LN3, -LN3, 0.0, 0.0]), 3).item() == pytest.approx(
        0.0, abs=1e-7
    )


@pytest.mark.parametrize("bins", [1, 2, 3, 7, 50])
def test_the_order_of_the_pairs_does_not_matter(bins: int) -> None:
    margin = torch.randint(-3, 4, (31,), generator=torch.Generator().manual_seed(0)).double()
    turned = expected_calibration_error(margin.flip(0), bins)
    torch.testing.assert_close(turned, expected_calibration_error(margin, bins))
    assert turned > 0


def test_many_draws_come_near_to_calibration() -> None:
    # outcomes drawn by the very probabilities: the error is noise, about √(0.2 / 2,000) ≈ 0.01 a bin
    draws = torch.Generator().manual_seed(0)
    size = torch.rand(20_000, generator=draws, dtype=torch.float64) * 3
    right = torch.rand(20_000, generator=draws, dtype=torch.float64) < torch.sigmoid(size)
    assert expected_calibration_error(torch.where(right, size, -size)).item() < 0.02
    # twice as sure as it may be
    assert expected_calibration_error(2 * torch.where(right, size, -size)).item() > 0.05


def test_what_has_no_calibration_is_refused() -> None:
    with pytest.raises(ValueError, match="bins must be >= 1, got 0"):
        expected_calibration_error(torch.zeros(3), 0)
    with pytest.raises(ValueError, match="at least one pair"):
        expected_calibration_error(torch.zeros(0))
    with pytest.raises(ValueError, match="a margin is NaN"):
        expected_calibration_error(torch.tensor([0.0, math.nan]))
