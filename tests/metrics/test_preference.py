"""What is logged of pairs: TRL's names, with numbers that follow from two pairs."""

import torch

from lit_pref.metrics import preference_statistics
from lit_pref.types import PairLogps

# Log-ratios: pair 0 chosen −4 − (−6) = 2, rejected −6 − (−5) = −1; pair 1 chosen −3, rejected −3: a tie.
POLICY = PairLogps(*torch.tensor([[-4.0, -9.0], [-6.0, -7.0], [4.0, 3.0], [2.0, 3.0]]))
REFERENCE = PairLogps(*torch.tensor([[-6.0, -6.0], [-5.0, -4.0], [4.0, 3.0], [2.0, 3.0]]))


def test_rewards_are_beta_times_the_log_ratios():
    figures = preference_statistics(POLICY, REFERENCE, beta=0.5)
    assert {name: value.tolist() for name, value in figures.items()} == {
        "rewards/chosen": [1.0, -1.5],
        "rewards/rejected": [-0.5, -1.5],
        "rewards/margins": [1.5, 0.0],
        "rewards/accuracies": [1.0, 0.0],  # a tie is no preference
        "logps/chosen": [-4.0, -9.0],
        "logps/rejected": [-6.0, -7.0],
        "logps/chosen_fall": [-2.0, 3.0],
        "logps/rejected_fall": [1.0, 3.0],
    }


def test_without_a_reference_rewards_are_of_the_policy_alone():
    figures = preference_statistics(POLICY, None, beta=0.5)
    assert figures["rewards/chosen"].tolist() == [-2.0, -4.5]
    assert figures["rewards/rejected"].tolist() == [-3.0, -3.5]
    assert figures["rewards/accuracies"].tolist() == [1.0, 0.0]
    assert not any(name.startswith("budget/") for name in figures)


def test_figures_carry_no_gradient():
    policy = POLICY._replace(chosen=POLICY.chosen.clone().requires_grad_())
    assert not any(value.requires_grad for value in preference_statistics(policy, REFERENCE, beta=0.5).values())
