"""What is logged of pairs: TRL's names, with numbers that follow from two pairs."""

import pytest
import torch

from lit_pref.metrics import PreferenceMetrics, preference_statistics
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
        "budget/chosen_fall": [-2.0, 3.0],
        "budget/rejected_fall": [1.0, 3.0],
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


def test_means_are_over_pairs_however_batches_and_ranks_split_them():
    def part(logps: PairLogps, *rows: int) -> PairLogps:
        return PairLogps(*(x[list(rows)] for x in logps))

    # Ranks of 3 and 1 pairs, the first in batches of 2 and 1: margins 1.5, 0, 1.5 and 1.5, mean 4.5/4.
    ranks = [PreferenceMetrics(beta=0.5), PreferenceMetrics(beta=0.5)]
    for rank, rows in ((0, (0, 1)), (0, (0,)), (1, (0,))):
        ranks[rank].update(part(POLICY, *rows), part(REFERENCE, *rows))
    ranks[0].merge_state(ranks[1])
    means = ranks[0].compute()
    assert means["rewards/margins"].item() == pytest.approx(4.5 / 4)
    assert means["rewards/accuracies"].item() == pytest.approx(3 / 4)
    assert means["budget/chosen_fall"].item() == pytest.approx((-2 * 3 + 3) / 4)


def test_a_reference_comes_always_or_never():
    with pytest.raises(ValueError, match="has_reference is True, got no reference"):
        PreferenceMetrics(beta=0.5).update(POLICY, None)
    metric = PreferenceMetrics(beta=0.5, has_reference=False)
    metric.update(POLICY, None)
    assert metric.compute()["rewards/chosen"].item() == pytest.approx((-2.0 - 4.5) / 2)
