"""Kahneman–Tversky optimization: learning from single responses that are labelled desirable or not.

A row is a prompt with its own completion, followed by a completion of another prompt. The mean log-ratio of these
mismatched ones over a batch estimates KL(policy, reference), as in arXiv 2402.01306 and TRL. Both lie in one tree, so
the estimate needs no forward pass of its own. Not covered: pairs; a divergence over accumulated batches.
"""

from pathlib import Path

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from lit_pref.errors import UserError
from lit_pref.losses.kto import KTO
from lit_pref.models import LoRA
from lit_pref.models.compute import Compute
from lit_pref.modules.language_model import _LanguageModule, is_first
from lit_pref.modules.reference import Reference
from lit_pref.modules.schedules import WarmupCosine
from lit_pref.types import Dtype, RowBatch, Split


class KTOModule(_LanguageModule):
    """Trains a policy on labelled responses.

    Args:
        policy: `embedded:NAME`, a model folder, a .gguf file or a hub id; also the reference, as it was at first.
        objective: beta, and what desirable and undesirable responses weigh.
        adapter: LoRA weights to train instead of the policy's own, which stay unchanged; none trains all weights.
        dtype: of the policy's own weights under an adapter, which is trained in float32; bfloat16 halves their memory.
        dropout: whether the model's own dropout is on in training.
        compute: how the policy is run: layout of batches, attention, memory.
        optimizer: builds the optimizer from the parameters.
        scheduler: builds the learning-rate schedule from it, stepped every optimizer step; none is a constant rate.
        cache_folder: where reference log-probs are kept; None is the user's cache folder.
    """

    kinds = ("labelled",)

    def __init__(
        self,
        policy: str,
        objective: KTO = KTO(),  # noqa: B008 - frozen
        adapter: LoRA | None = None,
        dtype: Dtype = "float32",
        dropout: bool = False,
        compute: Compute = Compute(),  # noqa: B008 - frozen
        optimizer: OptimizerCallable = lambda params: torch.optim.AdamW(params, lr=5e-7, weight_decay=0.0),
        scheduler: LRSchedulerCallable | None = lambda optimizer: WarmupCosine(optimizer, warmup=0.1),
        cache_folder: Path | None = None,
    ) -> None:
        super().__init__(policy, False, adapter, dropout, compute, optimizer, scheduler, dtype)
        self.objective, self.reference = objective, Reference(self, cache_folder)

    def _step(self, batch: RowBatch, stage: Split) -> Tensor:
        scores = self.score_completions(batch)
        log_ratio_K = scores.logps_K - self._start_logps(batch, scores.logps_K)
        is_own_K = batch.sibling_K == 0
        logps_R, log_ratio_R = scores.logps_K[is_own_K], log_ratio_K[is_own_K]
        self.watch(batch, {"the log-prob": logps_R, "the log-ratio to the reference": log_ratio_R})
        kl = self._divergence(batch, log_ratio_K[~is_own_K].detach())
        is_desirable_R = _desirable(batch)
        loss_R = self.objective(log_ratio_R, is_desirable_R, kl)
        figures = {"loss": loss_R, "kl": kl[None], "entropy": scores.entropy_N[is_first(batch)]}
        for side, is_of_R in (("chosen", is_desirable_R), ("rejected", ~is_desirable_R)):
            figures[f"rewards/{side}"] = self.objective.beta * log_ratio_R[is_of_R]
            figures[f"logps/{side}"] = logps_R[is_of_R]
        figures["desirable"] = is_desirable_R.float()
        self.count_figures(stage, batch, figures)
        return batch.weight.rows * loss_R.mean()

    def row_figures(self, batch: RowBatch) -> dict[str, Tensor]:
        """`label`, and the log-prob and implicit reward of each row's own completion."""
        logps_K, is_own_K = self.score_completions(batch).logps_K, batch.sibling_K == 0
        rewards_K = self.objective.beta * (logps_K - self._start_logps(batch, logps_K))
        return {"label": _desirable(batch).float(), "logps": logps_K[is_own_K], "rewards": rewards_K[is_own_K]}

    def logged_figures(self, figures: dict[str, Tensor]) -> dict[str, Tensor]:
        """With `rewards/margins`; without figures of a label that no response had."""
        figures |= {"rewards/margins": figures["rewards/chosen"] - figures["rewards/rejected"]}
        of_labels = ("rewards/", "logps/")
        return {name: x for name, x in figures.items() if not (name.startswith(of_labels) and bool(x.isnan()))}

    def _start_logps(self, batch: RowBatch, policy_K: Tensor) -> Tensor:
        assert self.reference is not None
        return self.reference.logps(batch, policy_K)

    def _divergence(self, batch: RowBatch, log_ratio_M: Tensor) -> Tensor:
        """The mean over all processes' mismatched completions, at least 0; 0 if the objective does not use it."""
        if not self.objective.kl:
            return log_ratio_M.new_zeros(())
        if not len(log_ratio_M):
            raise UserError("the rows have no mismatched completion for the KL term: set model.objective.kl to false")
        counted = float(batch.weight.rows > 0)  # a batch that only keeps a process in step does not count
        sum_and_count = counted * torch.stack([log_ratio_M.sum(), log_ratio_M.new_tensor(len(log_ratio_M))])
        if self.trainer.world_size > 1:
            sum_and_count = self.trainer.strategy.reduce(sum_and_count, reduce_op="sum")
        total, count = sum_and_count.unbind()
        return (total / count.clamp(min=1)).clamp(min=0)


def _desirable(batch: RowBatch) -> Tensor:
    assert batch.value_R is not None  # `kinds` lets only labelled rows in
    return batch.value_R > 0
