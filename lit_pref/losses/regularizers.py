"""Regularizers: added to a pairwise objective, pair by pair, to hold the chosen likelihood; callers reduce.

`lw` and `lw0` are the chosen response's log-probs under policy and frozen start policy, summed over its |y_w| tokens.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from torch import Tensor
from torch.nn.functional import relu

from lit_pref.losses.objectives import log_ratios
from lit_pref.types import PairLogps

Per = Literal["sequence", "token"]
"""Whether nats are counted for the whole response or as their mean over its tokens."""


class Regularizer(ABC):
    """Penalty of preference pairs from their log-probs, added to a `PairObjective`.

    needs_reference: whether it compares with the frozen start policy.
    """

    needs_reference: ClassVar[bool]

    @abstractmethod
    def __call__(self, policy: PairLogps, reference: PairLogps | None) -> Tensor:
        """Per-pair penalties, [P]. Raises ValueError if a reference is needed and there is none."""

    @abstractmethod
    def statistics(self, policy: PairLogps, reference: PairLogps | None) -> dict[str, Tensor]:
        """What to log of each pair, [P] each, by name; without a gradient."""


@dataclass(frozen=True)
class ChosenNLL(Regularizer):
    """Supervised loss on the chosen response: what RPO adds to DPO.

    weight · −lw/|y_w| per token, the form of arXiv 2404.19733 and the default; weight · −lw per sequence.

    Per token, each pair counts equally; a mean over all chosen tokens of a batch would weigh long responses more.

    Args:
        weight: RPO's alpha.
        per: whether the likelihood is of the whole response, or its mean over tokens.
    """

    weight: float = 1.0
    per: Per = "token"
    needs_reference: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _check(self.weight, self.per)

    def __call__(self, policy: PairLogps, reference: PairLogps | None) -> Tensor:
        """Per-pair penalties, [P]; the reference is ignored."""
        return self.weight * self._nll(policy)

    def statistics(self, policy: PairLogps, reference: PairLogps | None) -> dict[str, Tensor]:
        """`nll_loss`: the negative log-likelihood of chosen, unweighted, [P]."""
        return {"nll_loss": self._nll(policy).detach()}

    def _nll(self, policy: PairLogps) -> Tensor:
        return -policy.chosen / policy.chosen_length if self.per == "token" else -policy.chosen


@dataclass(frozen=True)
class LikelihoodBudget(Regularizer):
    """Charge for chosen likelihood lost beyond a budget, after arXiv 2411.05875 (our reconstruction).

    weight · max(0, lw0 − lw − budget); per token, (lw0 − lw)/|y_w| takes the place of lw0 − lw

    Args:
        budget: nats that may be lost for free, per sequence or per token, as `per` says. A negative budget demands a
            rise; far below zero the gradient is that of weight · NLL(chosen).
        weight: what a nat beyond the budget costs.
        per: whether nats are counted for the whole response, or as their mean over its tokens.

    Returns [P] penalties, zero inside the budget. A budget that is exactly spent is still inside: its gradient is zero,
    so a budget of 0 does not pull on a policy that has not moved. A rise is never charged.
    """

    budget: float
    weight: float = 1.0
    per: Per = "sequence"
    needs_reference: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check(self.weight, self.per)
        if not math.isfinite(self.budget):
            raise ValueError(f"budget must be finite, got {self.budget}")

    def __call__(self, policy: PairLogps, reference: PairLogps | None) -> Tensor:
        """Per-pair penalties, [P]."""
        # relu's gradient at 0 is 0; that of clamp(min=0) would be 1.
        return self.weight * relu(self._fall(policy, reference) - self.budget)

    def statistics(self, policy: PairLogps, reference: PairLogps | None) -> dict[str, Tensor]:
        """`budget/over`: 1 if the fall is beyond the budget; `budget/penalty`: what is added to the loss; [P]."""
        over_P = self._fall(policy, reference).detach() > self.budget
        return {"budget/over": over_P.float(), "budget/penalty": self(policy, reference).detach()}

    def _fall(self, policy: PairLogps, reference: PairLogps | None) -> Tensor:
        """Nats that chosen has lost since the start, [P]."""
        fall_P = -log_ratios(policy, reference, self).chosen
        return fall_P / policy.chosen_length if self.per == "token" else fall_P


def _check(weight: float, per: str) -> None:
    if not 0 <= weight < math.inf:
        raise ValueError(f"weight must be >= 0 and finite, got {weight}")
    if per not in get_args(Per):
        raise ValueError(f"per must be 'sequence' or 'token', got {per!r}")
