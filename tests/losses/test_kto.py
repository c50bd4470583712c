"""KTO's loss with numbers worked out by hand."""

import math

import pytest
import torch

from lit_pref.losses import KTO


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_each_label_is_measured_from_the_divergence_and_weighed():
    # beta 0.5, kl 1: desirable with log-ratio 3: σ(0.5 · 2) = σ(1); undesirable with −1: σ(0.5 · 2) = σ(1)
    objective = KTO(beta=0.5, desirable_weight=1.5, undesirable_weight=2.0)
    loss = objective(torch.tensor([3.0, -1.0]), torch.tensor([True, False]), torch.tensor(1.0))
    assert loss.tolist() == pytest.approx([1.5 * (1 - sigmoid(1)), 2.0 * (1 - sigmoid(1))])


def test_a_policy_that_has_not_moved_costs_a_half():
    assert KTO()(torch.zeros(2), torch.tensor([True, False]), torch.tensor(0.0)).tolist() == [0.5, 0.5]


def test_its_gradient_pulls_desirable_up_and_undesirable_down():
    # d/dr of 1 − σ(s · beta · r) is −s · beta · σ' and σ'(0) = 1/4
    ratio = torch.zeros(2, requires_grad=True)
    KTO(beta=0.2)(ratio, torch.tensor([True, False]), torch.tensor(0.0)).sum().backward()
    assert ratio.grad is not None and ratio.grad.tolist() == pytest.approx([-0.05, 0.05])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beta": 0.0}, "beta must be > 0"),
        ({"desirable_weight": -1.0}, "desirable_weight must be >= 0 and finite, got -1.0"),
        ({"undesirable_weight": math.inf}, "undesirable_weight must be >= 0 and finite, got inf"),
    ],
)
def test_nonsense_is_refused(settings: dict[str, float], message: str):
    with pytest.raises(ValueError, match=message):
        KTO(**settings)  # type: ignore[arg-type]
