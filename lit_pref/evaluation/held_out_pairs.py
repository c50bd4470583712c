"""Held-out preference pairs under the model as it is: which side is likelier, and how likely each is."""

from typing import Any, Protocol, runtime_checkable

from lightning.pytorch import LightningModule
from torch import Tensor

from lit_pref.errors import UserError
from lit_pref.evaluation.base import Evaluation
from lit_pref.types import PairLogps


@runtime_checkable
class ScoresPairs(Protocol):
    """What is asked of the module: the log-probs of all pairs of a loader, and figures against its reference."""

    def score_all(self, loader: Any) -> PairLogps: ...

    def reference_figures(self, stage: str, policy: PairLogps) -> dict[str, Tensor]: ...


class HeldOutPairs(Evaluation):
    """Pair accuracy and log-probs on the data module's validation pairs.

    `pair_accuracy`: share of pairs whose chosen response has the higher summed log-prob (strictly); unlike
    `rewards/accuracies`, which compares with the reference, it is defined before training too.
    """

    def __call__(self, module: LightningModule) -> dict[str, Tensor]:
        if not isinstance(module, ScoresPairs):
            raise TypeError(f"HeldOutPairs needs a module that scores pairs, got {type(module).__name__}")
        data = module.trainer.datamodule  # type: ignore[attr-defined]
        loader = None if data is None else data.ordered_loader("eval")
        if loader is None:
            raise UserError(
                "HeldOutPairs measures the data module's validation pairs, and there are none: give it some, or leave "
                "HeldOutPairs out"
            )
        policy = module.score_all(loader)
        figures = {
            "pair_accuracy": (policy.chosen > policy.rejected).float(),
            "logps/chosen": policy.chosen,
            "logps/rejected": policy.rejected,
        }
        against_reference = module.reference_figures("eval", policy)
        figures |= {name: value for name, value in against_reference.items() if name == "budget/over"}
        return {name: value.float().cpu() for name, value in figures.items()}
