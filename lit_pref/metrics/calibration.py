"""Whether a reward model's margins mean what Bradley–Terry says: that chosen is preferred with probability σ(margin).

Pure functions in float64. Not covered: temperature scaling, intervals of the calibration error (it is no mean over
pairs).
"""

import torch
from torch import Tensor
from torch.nn.functional import softplus

from lit_pref.metrics.ties import mean_over_ties


def pair_nll(margin_P: Tensor) -> Tensor:
    """−log σ(margin) of each pair, in nats; float64, [P]. 0.693 is a coin's."""
    return softplus(-margin_P.double())


def pair_brier(margin_P: Tensor) -> Tensor:
    """(1 − σ(margin))² of each pair; float64, [P]. 0.25 is a coin's."""
    return torch.sigmoid(-margin_P.double()).square()


def expected_calibration_error(margin_P: Tensor, bins: int = 10) -> Tensor:
    """Σ over bins of (share of pairs) · |share ranked rightly − mean confidence|; float64, a scalar.

    A pair's confidence is the probability σ(|margin|) of the side that is ranked first. It is ranked rightly if the
    margin is above 0; a margin of 0 is right by half, as its confidence says. All bins hold the same number of pairs,
    give or take one. Pairs of equal confidence share their hits, so that the order of the pairs does not matter.
    Sampling noise by itself gives an error above 0: compare figures of equally many pairs and bins.

    bins: at most; as many as pairs where there are fewer. Raises ValueError for none, for no pairs, and for NaN.
    """
    if bins < 1:
        raise ValueError(f"bins must be >= 1, got {bins}")
    if margin_P.ndim != 1 or not len(margin_P):
        raise ValueError(f"margins must be [P] of at least one pair, got {[*margin_P.shape]}")
    if margin_P.isnan().any():
        raise ValueError("a margin is NaN")
    margin_P = margin_P.detach().cpu().double()
    size_P, order_P = margin_P.abs().sort()
    right_P = (margin_P.sign()[order_P] + 1) / 2
    gap_P = mean_over_ties(size_P[None], right_P[None])[0] - torch.sigmoid(size_P)
    parts = gap_P.tensor_split(min(bins, len(gap_P)))
    return torch.stack([part.sum().abs() for part in parts]).sum() / len(gap_P)
