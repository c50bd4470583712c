"""How far the policy has moved from the reference on each side of a pair; what objectives and regularizers share."""

from typing import NamedTuple

from torch import Tensor

from lit_pref.types import PairLogps


class LogRatios(NamedTuple):
    """log p(y | x) − log p_ref(y | x) of both sides, summed over tokens, in nats; each [P]."""

    chosen: Tensor
    rejected: Tensor


def log_ratios(policy: PairLogps, reference: PairLogps | None, owner: object) -> LogRatios:
    """Policy minus reference. Raises ValueError, naming the owner, if there is no reference."""
    if reference is None:
        raise ValueError(f"{type(owner).__name__} compares with a reference, got None for its log-probs")
    return LogRatios(policy.chosen - reference.chosen, policy.rejected - reference.rejected)
