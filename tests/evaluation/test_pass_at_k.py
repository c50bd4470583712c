from itertools import combinations

import pytest
import torch

from lit_pref.evaluation import PassAtK, pass_at_k
from lit_pref.tasks import CodeTask


@pytest.mark.parametrize("samples", [1, 4, 7])
def test_the_estimator_is_the_mean_over_all_subsets(samples):
    for k in range(1, samples + 1):
        for passed in range(samples + 1):
            outcomes = [1] * passed + [0] * (samples - passed)
            subsets = list(combinations(outcomes, k))
            expected = sum(any(subset) for subset in subsets) / len(subsets)
            assert pass_at_k(torch.tensor([passed]), samples, k).item() == pytest.approx(expected)


def test_k_needs_as_many_samples():
    with pytest.raises(ValueError, match="pass@4 needs at least 4 samples a problem, got 2"):
        PassAtK(CodeTask(), k=[1, 4], samples=2)
