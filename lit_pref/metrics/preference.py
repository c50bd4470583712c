"""What is logged of preference pairs under a policy, with TRL's names; what a regularizer adds is its own to tell.

Not covered: length-normalized rewards. `rewards/*` are of summed log-probs for every objective, as peers log them; for
SimPO and IPO, whose loss compares means, the order of a pair may differ from the loss's.
"""

import torch
from torch import Tensor
from torchmetrics import Metric

from lit_pref.types import PairLogps


def preference_statistics(policy: PairLogps, reference: PairLogps | None, beta: float) -> dict[str, Tensor]:
    """Figures of each pair, [P] each, fp32, without a gradient; their means are what is logged.

    `rewards/chosen`, `rewards/rejected`: beta · (log p − log p_ref), or beta · log p without a reference.
    `rewards/margins`: their difference. `rewards/accuracies`: 1 where it is above 0; a tie counts as wrong.
    `logps/chosen`, `logps/rejected`: summed over tokens, in nats.
    `budget/chosen_fall`, `budget/rejected_fall`: log p_ref − log p, in nats a sequence; only with a reference.
    """
    chosen_P, rejected_P = policy.chosen.detach().float(), policy.rejected.detach().float()
    start_chosen_P, start_rejected_P = torch.zeros_like(chosen_P), torch.zeros_like(rejected_P)
    if reference is not None:
        start_chosen_P, start_rejected_P = reference.chosen.detach().float(), reference.rejected.detach().float()
    reward_chosen_P, reward_rejected_P = beta * (chosen_P - start_chosen_P), beta * (rejected_P - start_rejected_P)
    figures = {
        "rewards/chosen": reward_chosen_P,
        "rewards/rejected": reward_rejected_P,
        "rewards/margins": reward_chosen_P - reward_rejected_P,
        "rewards/accuracies": (reward_chosen_P > reward_rejected_P).float(),
        "logps/chosen": chosen_P,
        "logps/rejected": rejected_P,
    }
    if reference is not None:
        figures["budget/chosen_fall"] = start_chosen_P - chosen_P
        figures["budget/rejected_fall"] = start_rejected_P - rejected_P
    return figures


class PreferenceMetrics(Metric):
    """Means of `preference_statistics` over all pairs of a data set, however batches and ranks split them.

    beta: the objective's. has_reference: whether updates bring reference log-probs, and with them `budget/*`.
    """

    full_state_update = False
    sum_S: Tensor  # one sum for each figure
    pairs: Tensor

    def __init__(self, beta: float, has_reference: bool = True) -> None:
        super().__init__()
        self.beta, self.has_reference = beta, has_reference
        nothing = PairLogps(*torch.zeros(4, 0))
        self.names = tuple(preference_statistics(nothing, nothing if has_reference else None, beta))
        self.add_state("sum_S", torch.zeros(len(self.names)), dist_reduce_fx="sum")
        self.add_state("pairs", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, policy: PairLogps, reference: PairLogps | None) -> None:
        if (reference is not None) != self.has_reference:
            raise ValueError(
                f"has_reference is {self.has_reference}, got {'no' if reference is None else 'a'} reference"
            )
        figures = preference_statistics(policy, reference, self.beta)
        self.sum_S = self.sum_S + torch.stack([value_P.sum() for value_P in figures.values()])
        self.pairs = self.pairs + len(policy.chosen)

    def compute(self) -> dict[str, Tensor]:
        """The mean of each figure by name, scalars; NaN where no pair was seen."""
        return dict(zip(self.names, self.sum_S / self.pairs, strict=True))
