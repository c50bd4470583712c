"""Losses of single responses that are labelled desirable or not, response by response; callers reduce.

Not covered: how the divergence from the reference is estimated (`modules/kto.py`).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class KTO:
    """Kahneman–Tversky optimization, arXiv 2402.01306, as TRL has it; without `kl` TRL's `apo_zero_unpaired`.

    desirable: weight · (1 − σ(beta · (r − kl))); undesirable: weight · (1 − σ(beta · (kl − r)))

    with r = log p − log p_ref of the response, and kl the estimated divergence of the policy from the reference, which
    has no gradient.

    Args:
        beta: scale of the implicit rewards; the smaller it is, the further the policy may move.
        desirable_weight: of a desirable response's loss; in the paper, the weighted counts of desirable and undesirable
            responses are between 1:1 and 4:3.
        undesirable_weight: of an undesirable response's loss.
        kl: measure from the estimated divergence; False is APO-zero on single responses (arXiv 2408.06266), which
            measures from 0: for desirable responses that are better than what the policy writes.
    """

    beta: float = 0.1
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0
    kl: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.beta < math.inf:
            raise ValueError(f"beta must be > 0 and finite, got {self.beta}")
        for name in ("desirable_weight", "undesirable_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be >= 0 and finite, got {getattr(self, name)}")

    def __call__(self, log_ratio_R: Tensor, is_desirable_R: Tensor, kl: Tensor) -> Tensor:
        """Losses of single responses, [R].

        log_ratio_R: log p − log p_ref, summed over tokens. kl: a scalar; 0 for an objective without it.
        """
        sign_R = torch.where(is_desirable_R, 1.0, -1.0)
        weight_R = torch.where(is_desirable_R, self.desirable_weight, self.undesirable_weight)
        return weight_R * (1 - torch.sigmoid(self.beta * sign_R * (log_ratio_R - kl)))
