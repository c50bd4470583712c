"""Objectives of this study; a configuration names them as my_objectives.CappedDPO."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import logsigmoid

from lit_pref.losses import PairObjective
from lit_pref.losses.objectives import log_ratios
from lit_pref.types import PairLogps


@dataclass(frozen=True)
class CappedDPO(PairObjective):
    """DPO that leaves a pair alone once its implicit rewards are far enough apart.

    −log σ(min(beta · D, cap)), where D is the policy's log-ratio to the reference on chosen minus that on rejected

    Args:
        beta: scale of the implicit rewards.
        cap: the reward gap from which on a pair has no gradient.
    """

    beta: float = 0.1
    cap: float = 2.0
    needs_reference: ClassVar[bool] = True

    def __call__(self, policy: PairLogps, reference: PairLogps | None) -> Tensor:
        """Losses of the pairs, [P]; the module takes their mean."""
        chosen_P, rejected_P = log_ratios(policy, reference, self)
        return -logsigmoid((self.beta * (chosen_P - rejected_P)).clamp(max=self.cap))
