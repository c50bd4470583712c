"""Losses of reward models: one loss a pair, from the scores of its chosen and rejected response; callers reduce.

A score is one number for a prompt with its response; `s_w` and `s_l` are those of chosen and rejected. A new loss is a
frozen dataclass like the one below, and one test. Not covered: rankings of more than two responses, absolute labels.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor
from torch.nn.functional import logsigmoid


class PairRewards(NamedTuple):
    """A reward model's scores of both sides of each pair; fp32, [P] each."""

    chosen: Tensor
    rejected: Tensor


class RewardLoss(ABC):
    """Loss of preference pairs from a reward model's scores.

    use_margin: whether it needs the margins that the data gives its pairs.
    """

    use_margin: bool

    @abstractmethod
    def __call__(self, rewards: PairRewards, margin_P: Tensor | None = None) -> Tensor:
        """Per-pair losses, [P]. Raises ValueError if margins are used and there are none."""


@dataclass(frozen=True)
class BradleyTerry(RewardLoss):
    """The negative log-likelihood of the preferences under the Bradley–Terry model, with two additions, off by default.

    −log σ(s_w − s_l − margin) + centering · (s_w + s_l)²

    The plain form is that of the released CodePMP code. Both additions are those of TRL's RewardTrainer. The margin is
    the data's, as in Llama 2 (arXiv 2307.09288, from memory, not checked there). The centering term, which TRL takes
    from arXiv 2312.09244, holds scores around 0, since their difference leaves their level open.

    Args:
        centering: weight of the squared sum of a pair's scores; TRL recommends 0.01.
        use_margin: subtract each pair's own margin, which the data must give.
    """

    centering: float = 0.0
    use_margin: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.centering < math.inf:
            raise ValueError(f"centering must be >= 0 and finite, got {self.centering}")

    def __call__(self, rewards: PairRewards, margin_P: Tensor | None = None) -> Tensor:
        """Per-pair losses, [P]; without `use_margin`, margins are ignored."""
        gap_P = rewards.chosen - rewards.rejected
        if self.use_margin:
            if margin_P is None:
                raise ValueError("BradleyTerry(use_margin=True) needs a margin for each pair, got None")
            gap_P = gap_P - margin_P
        loss_P = -logsigmoid(gap_P)
        if self.centering:
            loss_P = loss_P + self.centering * (rewards.chosen + rewards.rejected).square()
        return loss_P
