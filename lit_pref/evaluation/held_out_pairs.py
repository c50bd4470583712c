"""Held-out preference pairs under the model as it is: which side is better, and what each is given.

Of a reward model that is a score, of a policy a log-prob.
"""

from typing import Any, Protocol, runtime_checkable

from lightning.pytorch import LightningModule
from torch import Tensor

from lit_pref.evaluation.base import Evaluation
from lit_pref.losses import PairRewards
from lit_pref.metrics import pair_nll
from lit_pref.types import PairLogps


@runtime_checkable
class ScoresPairs(Protocol):
    """What is asked of the module: the log-probs of all pairs of a loader, and figures against its reference."""

    def score_all(self, loader: Any) -> PairLogps: ...

    def reference_figures(self, stage: str, policy: PairLogps) -> dict[str, Tensor]: ...


@runtime_checkable
class RewardsPairs(Protocol):
    """What is asked of a reward model's module: the scores of all pairs of a loader."""

    def reward_all(self, loader: Any) -> PairRewards: ...


class HeldOutPairs(Evaluation):
    """Pair accuracy on the data module's validation pairs, and what it rests on: log-probs, or a reward model's scores.

    `pair_accuracy`: share of pairs whose chosen response has the higher summed log-prob, or score (strictly); unlike
    `rewards/accuracies`, which compares with the reference, it is defined before training too. A reward model's `nll`
    is the loss of its margins under Bradley–Terry; its calibration error, no mean over pairs, is `lit-pref evaluate`'s.
    """

    def __init__(self) -> None:
        self._told = False  # that there is nothing to measure

    def __call__(self, module: LightningModule) -> dict[str, Tensor]:
        """No figures where the data module holds no pairs out, which a line says once."""
        if not isinstance(module, RewardsPairs | ScoresPairs):
            raise TypeError(f"HeldOutPairs needs a module that scores pairs, got {type(module).__name__}")
        data = module.trainer.datamodule  # type: ignore[attr-defined]
        loader = None if data is None else data.ordered_loader("validation")
        if loader is None:
            if module.global_rank == 0 and not self._told:
                print("held-out pairs: none, so nothing is measured of them", flush=True)
            self._told = True
            return {}
        # A reward model's module holds a language model too, whose log-probs are beside the point.
        figures = _of_scores(module, loader) if isinstance(module, RewardsPairs) else _of_log_probs(module, loader)
        return {name: value.float().cpu() for name, value in figures.items()}


def _of_scores(module: RewardsPairs, loader: Any) -> dict[str, Tensor]:
    return pair_figures(*module.reward_all(loader))


def pair_figures(chosen_P: Tensor, rejected_P: Tensor) -> dict[str, Tensor]:
    """Figures of each pair from the scores of its sides, [P] each, fp32.

    `nll` is −log σ(margin), below 0.693 where the margins are worth more than a coin.
    """
    margin_P = chosen_P - rejected_P
    return {
        "pair_accuracy": (chosen_P > rejected_P).float(),
        "nll": pair_nll(margin_P).float(),
        "margin": margin_P,
        "score_chosen": chosen_P,
        "score_rejected": rejected_P,
    }


def _of_log_probs(module: ScoresPairs, loader: Any) -> dict[str, Tensor]:
    policy = module.score_all(loader)
    figures = {
        "pair_accuracy": policy.chosen > policy.rejected,
        "logps/chosen": policy.chosen,
        "logps/rejected": policy.rejected,
    }
    against_reference = module.reference_figures("validation", policy)
    return figures | {name: value for name, value in against_reference.items() if name == "budget/over"}
