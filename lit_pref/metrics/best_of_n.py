"""Best-of-N: how often the highest-scored of N samples is right, without bias from which N were drawn.

Every subset of N of a problem's M ≥ N samples counts equally, so that one set of samples gives the whole curve, which
the released CodePMP code draws for N = 2 … 256. The sample of rank i, from 1, is the best of a subset that holds it and
N − 1 of the M − i below it: this is the share C(M − i, N − 1) / C(M, N) of all subsets. Computed in float64 from the
ratio of neighbouring shares, which is exact to rounding and cannot overflow. Not covered: votes over answers.
"""

import torch
from torch import Tensor

from lit_pref.metrics.ties import mean_over_ties


def best_of_n(scores_PM: Tensor, correct_PM: Tensor, n: int) -> Tensor:
    """Expected correctness of the highest-scored of N samples of each problem; float64, [P].

    correct_PM: 0 or 1, or anything whose expectation is wanted. Samples of one score share their places evenly, as
    they would if the pick among them were random. N = 1 is the mean over samples, N = M that of the highest-scored.

    Raises ValueError for an N outside of 1 … M, and for a score that is NaN.
    """
    if scores_PM.ndim != 2 or scores_PM.shape != correct_PM.shape:
        raise ValueError(f"scores and correct must be [P, M], got {[*scores_PM.shape]} and {[*correct_PM.shape]}")
    weights_M = rank_weights(scores_PM.shape[1], n)
    if scores_PM.isnan().any():
        raise ValueError("a score is NaN, which has no rank")
    ranked_PM, order_PM = scores_PM.cpu().sort(dim=-1, descending=True)
    return mean_over_ties(ranked_PM, correct_PM.cpu().double().gather(-1, order_PM)) @ weights_M


def oracle_best_of_n(correct_PM: Tensor, n: int) -> Tensor:
    """As `best_of_n` with scores that know which sample is right: the most that any could reach, pass@N."""
    return best_of_n(correct_PM, correct_PM, n)


def rank_weights(samples: int, n: int) -> Tensor:
    """How likely the sample of each rank is the best of a random subset of N; float64, [M], sums to 1."""
    if not 1 <= n <= samples:
        raise ValueError(f"best of {n} needs at least {max(n, 1)} samples a problem and n >= 1, got {samples} samples")
    rank_M = torch.arange(1, samples, dtype=torch.float64)
    # C(M − i − 1, N − 1) / C(M − i, N − 1); the weight of rank 1 is N / M
    ratios = ((samples - rank_M - n + 1) / (samples - rank_M)).clamp(min=0.0)
    return torch.cat([torch.tensor([n / samples], dtype=torch.float64), ratios]).cumprod(0)
