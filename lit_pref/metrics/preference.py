"""What is logged of preference pairs under a policy, with TRL's names; a regularizer adds figures of its own.

Not covered: length-normalized rewards. `rewards/*` are of summed log-probs for every objective, as peers log them. The
losses of SimPO and IPO compare means, so a pair's order by its rewards may differ from its order in the loss.
"""

import torch
from torch import Tensor

from lit_pref.types import PairLogps


def preference_statistics(policy: PairLogps, reference: PairLogps | None, beta: float) -> dict[str, Tensor]:
    """Figures of each pair, [P] each, fp32, without a gradient; their means are what is logged.

    `rewards/chosen`, `rewards/rejected`: beta · (log p − log p_ref), or beta · log p without a reference.
    `rewards/margins`: their difference. `rewards/accuracies`: 1 where it is above 0; a tie counts as wrong.
    `logps/chosen`, `logps/rejected`: summed over tokens, in nats.
    `logps/chosen_fall`, `logps/rejected_fall`: log p_ref − log p, in nats a sequence; only with a reference.
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
        figures["logps/chosen_fall"] = start_chosen_P - chosen_P
        figures["logps/rejected_fall"] = start_rejected_P - rejected_P
    return figures
