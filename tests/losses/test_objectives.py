"""Objectives against numbers that follow from their equations, and their gradients."""

import math
from dataclasses import FrozenInstanceError

import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from lit_pref.losses import DPO, IPO, DPOPositive, Hinge, PairObjective, SimPO
from lit_pref.types import PairLogps

ALL = [DPO, IPO, SimPO, Hinge, DPOPositive]


def logps(chosen: float, rejected: float, chosen_length: float = 4.0, rejected_length: float = 2.0) -> PairLogps:
    return PairLogps(*(torch.tensor([x]) for x in (chosen, rejected, chosen_length, rejected_length)))


# Chosen has risen by 2 and rejected has fallen by 1: D = 2 − (−1) = 3.
POLICY, REFERENCE = logps(-4.0, -6.0), logps(-6.0, -5.0)


def gradients(objective: PairObjective, policy: PairLogps, reference: PairLogps | None) -> tuple[float, float]:
    """Of the loss, on the chosen and on the rejected log-prob."""
    chosen, rejected = policy.chosen.clone().requires_grad_(), policy.rejected.clone().requires_grad_()
    loss_P = objective(policy._replace(chosen=chosen, rejected=rejected), reference)
    on_chosen, on_rejected = torch.autograd.grad(loss_P.sum(), [chosen, rejected])
    return on_chosen.item(), on_rejected.item()


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def minus_log_sigmoid(x: float) -> Tensor:
    return -logsigmoid(torch.tensor([x]))


def test_dpo_weighs_the_log_ratio_gap():
    # beta 0.5, D 3: −log σ(1.5)
    torch.testing.assert_close(DPO(beta=0.5)(POLICY, REFERENCE), minus_log_sigmoid(1.5))


def test_dpo_starts_at_log_2():
    torch.testing.assert_close(DPO()(REFERENCE, REFERENCE), torch.tensor([math.log(2)]))


def test_dpo_gradient_is_the_chance_of_the_wrong_order():
    # d/dlw −log σ(βD) = −β · σ(−βD); on the rejected side the opposite.
    assert gradients(DPO(beta=0.5), POLICY, REFERENCE) == pytest.approx((-0.5 * sigmoid(-1.5), 0.5 * sigmoid(-1.5)))


def test_label_smoothing_mixes_both_orders():
    # 0.9 · −log σ(1.5) + 0.1 · −log σ(−1.5)
    expected = 0.9 * minus_log_sigmoid(1.5) + 0.1 * minus_log_sigmoid(-1.5)
    torch.testing.assert_close(DPO(beta=0.5, label_smoothing=0.1)(POLICY, REFERENCE), expected)


def test_label_smoothing_is_satisfied_at_a_finite_gap():
    # The loss is least where σ(βD) = 1 − 0.1, at βD = log 9: there the gradient is zero, beyond it turns.
    gap = math.log(9) / 0.5
    on_chosen, on_rejected = gradients(DPO(beta=0.5, label_smoothing=0.1), logps(gap, 0.0), logps(0.0, 0.0))
    assert (on_chosen, on_rejected) == pytest.approx((0.0, 0.0), abs=1e-6)


def test_ipo_draws_mean_log_ratios_to_a_gap():
    # Chosen: +2 over 4 tokens = 0.5; rejected: −1 over 2 tokens = −0.5; gap 1. beta 0.25: target 2; (1 − 2)² = 1.
    torch.testing.assert_close(IPO(beta=0.25)(POLICY, REFERENCE), torch.tensor([1.0]))
    # Gradient 2 · (1 − 2) over each side's length: −2/4 and +2/2.
    assert gradients(IPO(beta=0.25), POLICY, REFERENCE) == pytest.approx((-0.5, 1.0))


def test_ipo_is_satisfied_at_its_gap():
    # beta 0.5: target 1, the gap of these pairs.
    assert IPO(beta=0.5)(POLICY, REFERENCE).item() == 0.0
    assert gradients(IPO(beta=0.5), POLICY, REFERENCE) == (0.0, 0.0)


def test_simpo_compares_mean_log_probs():
    # chosen: −4 over 4 tokens = −1; rejected: −6 over 2 tokens = −3; gap 2; beta 2, margin 1 → −log σ(3)
    torch.testing.assert_close(SimPO(beta=2.0, margin=1.0)(POLICY, None), minus_log_sigmoid(3.0))
    # Gradient −β/|y| · σ(−3) on chosen with 4 tokens, +β/|y| · σ(−3) on rejected with 2.
    expected = (-2 / 4 * sigmoid(-3.0), 2 / 2 * sigmoid(-3.0))
    assert gradients(SimPO(beta=2.0, margin=1.0), POLICY, None) == pytest.approx(expected)


def test_simpo_does_not_look_at_a_reference():
    assert not SimPO.needs_reference
    assert torch.equal(SimPO()(POLICY, REFERENCE), SimPO()(POLICY, None))


def test_hinge_is_zero_beyond_its_margin():
    # beta 0.2, D 3: 1 − 0.6 = 0.4; beta 0.5: 1 − 1.5 < 0.
    torch.testing.assert_close(Hinge(beta=0.2)(POLICY, REFERENCE), torch.tensor([0.4]))
    assert gradients(Hinge(beta=0.2), POLICY, REFERENCE) == pytest.approx((-0.2, 0.2))
    assert Hinge(beta=0.5)(POLICY, REFERENCE).item() == 0.0
    assert gradients(Hinge(beta=0.5), POLICY, REFERENCE) == (0.0, 0.0)


def test_dpo_positive_is_dpo_where_chosen_rises():
    assert torch.equal(DPOPositive(beta=0.5)(POLICY, REFERENCE), DPO(beta=0.5)(POLICY, REFERENCE))
    assert gradients(DPOPositive(beta=0.5), POLICY, REFERENCE) == gradients(DPO(beta=0.5), POLICY, REFERENCE)


def test_dpo_positive_charges_a_fall_inside_the_sigmoid():
    # Chosen falls by 2, rejected by 8: D = −2 + 8 = 6. beta 0.5, lambda 2: 0.5 · 6 − 0.5 · 2 · 2 = 1.
    policy, reference = logps(-6.0, -16.0), logps(-4.0, -8.0)
    objective = DPOPositive(beta=0.5, weight=2.0)
    torch.testing.assert_close(objective(policy, reference), minus_log_sigmoid(1.0))
    # Chosen counts once in D and twice in the hinge: −β(1 + 2)σ(−1); rejected +βσ(−1).
    assert gradients(objective, policy, reference) == pytest.approx((-1.5 * sigmoid(-1.0), 0.5 * sigmoid(-1.0)))


def test_dpo_positive_has_the_gradient_of_dpo_at_the_start():
    assert gradients(DPOPositive(beta=0.5), REFERENCE, REFERENCE) == gradients(DPO(beta=0.5), REFERENCE, REFERENCE)


@pytest.mark.parametrize("objective", ALL)
def test_pairs_do_not_see_each_other(objective):
    torch.manual_seed(0)
    policy, reference = (PairLogps(*-torch.rand(2, 5), *torch.full((2, 5), 3.0)) for _ in range(2))
    together_P = objective()(policy, reference)
    rows = [[PairLogps(*(x[i : i + 1] for x in logps)) for logps in (policy, reference)] for i in range(5)]
    alone_P = [objective()(*row) for row in rows]
    assert together_P.shape == (5,)
    torch.testing.assert_close(together_P, torch.cat(alone_P))


@pytest.mark.parametrize("objective", [DPO, IPO, Hinge, DPOPositive])
def test_a_missing_reference_is_named(objective):
    assert objective.needs_reference
    with pytest.raises(ValueError, match=f"{objective.__name__} compares with a reference, got None"):
        objective()(POLICY, None)


@pytest.mark.parametrize("objective", ALL)
@pytest.mark.parametrize("beta", [-1, 0, math.nan])
def test_beta_must_be_positive(objective, beta):
    with pytest.raises(ValueError, match=f"beta must be > 0, got {beta}"):
        objective(beta=beta)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DPO(beta=math.inf), "beta must be > 0 and finite, got inf"),
        (lambda: DPO(label_smoothing=0.5), r"label_smoothing must be in \[0, 0.5\), got 0.5"),
        (lambda: DPO(label_smoothing=-0.1), r"label_smoothing must be in \[0, 0.5\), got -0.1"),
        (lambda: SimPO(margin=-1.0), "margin must be >= 0 and finite, got -1.0"),
        (lambda: DPOPositive(weight=-2.0), "weight must be >= 0 and finite, got -2.0"),
    ],
)
def test_settings_fail_with_their_value(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_objectives_are_frozen_and_compare_by_value():
    with pytest.raises(FrozenInstanceError):
        DPO().beta = 0.2  # type: ignore[misc]
    assert DPO(beta=0.2) == DPO(beta=0.2) != DPO(beta=0.3)


def test_the_base_cannot_be_made():
    with pytest.raises(TypeError, match="abstract"):
        PairObjective()  # type: ignore[abstract]
