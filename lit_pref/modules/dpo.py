"""Direct preference optimization and its relatives: one module, the objective and the regularizer injected.

Objective and regularizer are per-pair functions of summed log-probs (`lit_pref.losses`). Where either needs a
reference, it is the frozen start policy (`reference.py`). Not covered: a reference that moves with training.
"""

from pathlib import Path
from typing import NamedTuple

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from lit_pref.losses import PairObjective, Regularizer
from lit_pref.metrics import preference_statistics
from lit_pref.models import LoRA
from lit_pref.models.compute import Compute
from lit_pref.modules.language_model import CompletionScores, _LanguageModule
from lit_pref.modules.pairs import pair_logps
from lit_pref.modules.reference import Reference
from lit_pref.modules.schedules import WarmupCosine
from lit_pref.types import Dtype, PairLogps, RowBatch, Split


class _Scored(NamedTuple):
    scores: CompletionScores
    policy: PairLogps
    reference: PairLogps | None


class DPOModule(_LanguageModule):
    """Trains a policy on preference pairs.

    Args:
        policy: `embedded:NAME`, a model folder, a .gguf file or a hub id; also the reference, as it was at first.
        objective: a `PairObjective`: DPO, IPO, SimPO, Hinge, DPOPositive, or your own.
        regularizer: added to the objective, pair by pair: ChosenNLL, LikelihoodBudget, or none.
        adapter: LoRA weights to train instead of the policy's own, which stay unchanged; none trains all weights.
        dtype: of the policy's own weights under an adapter, which is trained in float32; bfloat16 halves their memory.
        dropout: whether the model's own dropout is on in training.
        compute: how the policy is run: layout of batches, attention, memory.
        optimizer: builds the optimizer from the parameters.
        scheduler: builds the learning-rate schedule from it, stepped every optimizer step; none is a constant rate.
        cache_folder: where reference log-probs are kept; None is the user's cache folder.
    """

    def __init__(
        self,
        policy: str,
        objective: PairObjective,
        regularizer: Regularizer | None = None,
        adapter: LoRA | None = None,
        dtype: Dtype = "float32",
        dropout: bool = False,
        compute: Compute = Compute(),  # noqa: B008 - frozen
        optimizer: OptimizerCallable = lambda params: torch.optim.AdamW(params, lr=5e-7, weight_decay=0.0),
        scheduler: LRSchedulerCallable | None = lambda optimizer: WarmupCosine(optimizer, warmup=0.1),
        cache_folder: Path | None = None,
    ) -> None:
        super().__init__(policy, False, adapter, dropout, compute, optimizer, scheduler, dtype)
        self.objective, self.regularizer = objective, regularizer
        if objective.needs_reference or (regularizer is not None and regularizer.needs_reference):
            self.reference = Reference(self, cache_folder)

    def _step(self, batch: RowBatch, stage: Split) -> Tensor:
        scores, policy, reference = self._scored(batch)
        self.watch(batch, _named(policy, reference))
        loss_P = self.objective(policy, reference)
        if self.regularizer is not None:
            loss_P = loss_P + self.regularizer(policy, reference)
        figures = {"loss": loss_P, **self._pair_figures(policy, reference)}
        figures |= {"entropy": scores.entropy_N, "mean_token_accuracy": scores.hit_n}
        self.count_figures(stage, batch, figures)
        return batch.weight.rows * loss_P.mean()

    def row_figures(self, batch: RowBatch) -> dict[str, Tensor]:
        """What is logged of each pair: `rewards/*`, `logps/*`, and with a reference `budget/*`."""
        _, policy, reference = self._scored(batch)
        return self._pair_figures(policy, reference)

    def _scored(self, batch: RowBatch) -> _Scored:
        scores = self.score_completions(batch)
        start_K = None if self.reference is None else self.reference.logps(batch, scores.logps_K)
        reference = None if start_K is None else pair_logps(batch, start_K)
        return _Scored(scores, pair_logps(batch, scores.logps_K), reference)

    def _pair_figures(self, policy: PairLogps, reference: PairLogps | None) -> dict[str, Tensor]:
        figures = preference_statistics(policy, reference, beta=self.objective.beta)
        if self.regularizer is not None:
            figures |= self.regularizer.statistics(policy, reference)
        return figures


def _named(policy: PairLogps, reference: PairLogps | None) -> dict[str, Tensor]:
    """The values that a pair's loss is computed from."""
    values = {"the log-prob of chosen": policy.chosen, "the log-prob of rejected": policy.rejected}
    if reference is not None:
        values["the reference's log-prob of chosen"] = reference.chosen
        values["the reference's log-prob of rejected"] = reference.rejected
    return values
