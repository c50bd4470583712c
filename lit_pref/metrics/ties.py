"""Average values over tied keys, so that results do not depend on row order."""

import torch
from torch import Tensor


def mean_over_ties(sorted_PM: Tensor, values_PM: Tensor) -> Tensor:
    """Each value replaced by the mean over the places whose key equals its own; keys sorted along M, [P, M]."""
    starts_PM = torch.zeros_like(values_PM, dtype=torch.long)
    starts_PM[:, 1:] = sorted_PM[:, 1:] != sorted_PM[:, :-1]
    group_PM = starts_PM.cumsum(-1)
    sums_PM = torch.zeros_like(values_PM).scatter_add(-1, group_PM, values_PM)
    sizes_PM = torch.zeros_like(values_PM).scatter_add(-1, group_PM, torch.ones_like(values_PM))
    return (sums_PM / sizes_PM.clamp(min=1.0)).gather(-1, group_PM)
