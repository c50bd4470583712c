import torch

from lit_pref.metrics import reward_statistics


def test_figures_of_three_pairs_worked_out_here():
    chosen_P = torch.tensor([2.0, -1.0, 0.5], requires_grad=True)
    figures = reward_statistics(chosen_P, torch.tensor([0.5, 3.0, 0.5]))
    assert {name: values.tolist() for name, values in figures.items()} == {
        "accuracy": [1.0, 0.0, 0.0],  # the third is a tie
        "margin": [1.5, -4.0, 0.0],
        "min_reward": [0.5, -1.0, 0.5],
        "mean_reward": [1.25, 1.0, 0.5],
        "max_reward": [2.0, 3.0, 0.5],
    }
    assert not any(values.requires_grad for values in figures.values())


def test_half_precision_scores_are_compared_as_they_are():
    figures = reward_statistics(torch.tensor([1.0, 2.0]).bfloat16(), torch.tensor([0.5, 2.5]).bfloat16())
    assert all(values.dtype == torch.float32 for values in figures.values())
    assert figures["margin"].tolist() == [0.5, -0.5]
