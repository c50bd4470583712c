"""Held-out preference pairs under the model as it is: which side is better, and what each is given.

Of a reward model that is a score, of a policy a log-prob.
"""

from typing import Protocol, runtime_checkable

from lightning.pytorch import LightningModule
from torch import Tensor

from lit_pref.evaluation.base import Evaluation
from lit_pref.metrics import pair_nll


@runtime_checkable
class MeasuresRows(Protocol):
    """What is asked of the module: figures of all rows of a stage of its data module."""

    def all_row_figures(self, stage: str) -> dict[str, Tensor]: ...


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
        if not isinstance(module, MeasuresRows):
            raise TypeError(f"HeldOutPairs needs a module that scores pairs, got {type(module).__name__}")
        found = module.all_row_figures("validation")
        if not found:
            if module.global_rank == 0 and not self._told:
                print("held-out pairs: none, so nothing is measured of them", flush=True)
            self._told = True
            return {}
        # A reward model's module holds a language model too, whose log-probs are beside the point.
        figures = _of_scores(found) if "score_chosen" in found else _of_log_probs(found)
        return {name: value.float().cpu() for name, value in figures.items()}


def _of_scores(found: dict[str, Tensor]) -> dict[str, Tensor]:
    return pair_figures(found["score_chosen"], found["score_rejected"])


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


def _of_log_probs(found: dict[str, Tensor]) -> dict[str, Tensor]:
    names = [name for name in ("logps/chosen", "logps/rejected", "budget/over") if name in found]
    return {"pair_accuracy": found["logps/chosen"] > found["logps/rejected"]} | {name: found[name] for name in names}
