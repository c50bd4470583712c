"""Reward losses against numbers worked out here, their gradients, and what swapping the sides does."""

import math

import pytest
import torch
from torch import Tensor

from lit_pref.losses import BradleyTerry, PairRewards


def rewards(chosen: list[float], rejected: list[float]) -> PairRewards:
    return PairRewards(*(torch.tensor(x, requires_grad=True) for x in (chosen, rejected)))


def softplus(x: float) -> float:
    """−log σ(−x)."""
    return math.log1p(math.exp(x))


def test_only_the_difference_counts_by_default():
    # gaps 0, 2 and −1: log 2, log(1 + e^−2), log(1 + e^1)
    loss_P = BradleyTerry()(rewards([3.0, 1.0, 0.5], [3.0, -1.0, 1.5]))
    torch.testing.assert_close(loss_P, torch.tensor([math.log(2), softplus(-2.0), softplus(1.0)]))


def test_a_sure_order_costs_nothing_and_a_sure_error_its_gap():
    # log(1 + e^500) overflows in fp32 unless it is done as a log-sigmoid
    loss_P = BradleyTerry()(rewards([500.0, 0.0], [0.0, 500.0]))
    assert loss_P.tolist() == [0.0, 500.0]


def test_a_margin_is_taken_off_the_gap_pair_by_pair():
    # gap 2 against margins 0.5 and 3
    loss_P = BradleyTerry(use_margin=True)(rewards([2.0, 2.0], [0.0, 0.0]), torch.tensor([0.5, 3.0]))
    torch.testing.assert_close(loss_P, torch.tensor([softplus(-1.5), softplus(1.0)]))


def test_a_margin_that_is_not_asked_for_is_not_looked_at():
    scores = rewards([2.0], [0.5])
    assert torch.equal(BradleyTerry()(scores, torch.tensor([9.0])), BradleyTerry()(scores))


def test_a_margin_that_is_missing_is_named():
    with pytest.raises(ValueError, match="needs a margin for each pair, got None"):
        BradleyTerry(use_margin=True)(rewards([1.0], [0.0]))


def test_centering_adds_the_squared_sum():
    # gap 1, sum 3: log(1 + e^−1) + 0.1 · 9
    loss_P = BradleyTerry(centering=0.1)(rewards([2.0], [1.0]))
    torch.testing.assert_close(loss_P, torch.tensor([softplus(-1.0) + 0.9]))


def gradients(loss: BradleyTerry, chosen: float, rejected: float, margin: float = 0.0) -> tuple[float, float]:
    scores = rewards([chosen], [rejected])
    loss(scores, torch.tensor([margin])).sum().backward()
    assert scores.chosen.grad is not None and scores.rejected.grad is not None
    return scores.chosen.grad.item(), scores.rejected.grad.item()


def test_the_gradient_is_the_probability_of_the_wrong_order():
    # d/ds_w −log σ(s_w − s_l − m) = −σ(m − gap), and the opposite for s_l
    wrong = 1 / (1 + math.exp(1.5 - 0.5))
    assert gradients(BradleyTerry(use_margin=True), 2.0, 0.5, 0.5) == pytest.approx((-wrong, wrong))


def test_centering_pulls_both_sides_alike():
    # 2 · 0.1 · (1.5 + 0.5) = 0.4 on either side, beside ∓σ(−1)
    wrong = 1 / (1 + math.e)
    assert gradients(BradleyTerry(centering=0.1), 1.5, 0.5) == pytest.approx((0.4 - wrong, 0.4 + wrong))


@pytest.mark.parametrize("centering", [0.0, 0.3])
def test_swapped_sides_cost_the_gap_more(centering: float):
    # −log σ(−x) = −log σ(x) + x, and the centering term does not see the order
    chosen, rejected = torch.randn(2, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    loss = BradleyTerry(centering)
    swapped_P: Tensor = loss(PairRewards(rejected, chosen))
    torch.testing.assert_close(swapped_P, loss(PairRewards(chosen, rejected)) + chosen - rejected)


def test_a_shift_of_all_scores_is_seen_by_centering_alone():
    chosen, rejected = torch.randn(2, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    here, shifted = PairRewards(chosen, rejected), PairRewards(chosen + 3, rejected + 3)
    torch.testing.assert_close(BradleyTerry()(shifted), BradleyTerry()(here))
    # (s + 6)² − s² = 12 s + 36
    risen_P = BradleyTerry(0.5)(shifted) - BradleyTerry(0.5)(here)
    torch.testing.assert_close(risen_P, 0.5 * (12 * (chosen + rejected) + 36))


@pytest.mark.parametrize("centering", [-0.1, math.inf, math.nan])
def test_a_weight_that_is_none_is_refused(centering: float):
    with pytest.raises(ValueError, match=r"centering must be >= 0 and finite, got"):
        BradleyTerry(centering)
