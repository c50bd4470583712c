"""Supervised finetuning: the likelihood baseline of all methods, and the maker of the embedded models.

The loss is the mean over the completion tokens of the whole optimizer step. Trains on demonstrations, or on the chosen
side of preference pairs, so that every pairwise data module has its likelihood baseline.
"""

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from lit_pref.losses import completion_logps
from lit_pref.models import LoRA
from lit_pref.models.compute import Compute
from lit_pref.modules.language_model import LoggedStage, _LanguageModule, is_chosen
from lit_pref.modules.schedules import WarmupCosine
from lit_pref.types import PairBatch, TreeBatch


class SFTModule(_LanguageModule):
    """Maximizes the likelihood of completions given their prompts.

    Args:
        policy: `embedded:NAME`, a model folder, or a hub id.
        random_init: start from fresh weights of the policy's configuration instead of its trained ones.
        adapter: LoRA weights to train instead of the policy's own, which stay as they are; none trains all weights.
        dropout: whether the model's own dropout is on in training.
        compute: how the policy is run: layout of batches, attention, memory.
        optimizer: what makes the optimizer from the parameters.
        scheduler: what makes the learning-rate schedule from it, stepped every optimizer step; none is a constant rate.
    """

    averages_tokens = True

    def __init__(
        self,
        policy: str,
        random_init: bool = False,
        adapter: LoRA | None = None,
        dropout: bool = False,
        compute: Compute = Compute(),  # noqa: B008 - frozen
        optimizer: OptimizerCallable = lambda params: torch.optim.AdamW(params, lr=2e-5),
        scheduler: LRSchedulerCallable | None = lambda optimizer: WarmupCosine(optimizer, warmup=0.1),
    ) -> None:
        super().__init__(policy, random_init, adapter, dropout, compute, optimizer, scheduler)

    def training_step(self, batch: TreeBatch | PairBatch, batch_idx: int) -> Tensor:
        return self._step(batch, "train")

    def validation_step(self, batch: TreeBatch | PairBatch, batch_idx: int) -> Tensor:
        return self._step(batch, "validation")

    def test_step(self, batch: TreeBatch | PairBatch, batch_idx: int) -> Tensor:
        return self._step(batch, "test")

    def predict_step(self, batch: PairBatch, batch_idx: int) -> dict[str, Tensor]:
        """`row` in the held-out pairs and the summed log-probs of both sides, [P] each."""
        policy = self.score_pairs(batch).logps
        return self.predictions(batch, {"logps/chosen": policy.chosen, "logps/rejected": policy.rejected})

    def _step(self, batch: TreeBatch | PairBatch, stage: LoggedStage) -> Tensor:
        trees = batch.trees if isinstance(batch, PairBatch) else batch
        scores = self.score(trees)
        logps_K = completion_logps(scores.logps_N, trees.completion_N, len(trees.length_K))
        self.watch(batch, {"the log-prob": logps_K[0::2] if isinstance(batch, PairBatch) else logps_K})
        # Of pairs, only the chosen side is imitated.
        imitated_N = is_chosen(trees) if isinstance(batch, PairBatch) else slice(None)
        nll_n = -scores.logps_N[imitated_N]
        by_products = {"entropy": scores.entropy_N[imitated_N], "mean_token_accuracy": scores.correct_N[imitated_N]}
        self.count_figures(stage, batch, {"loss": nll_n, **by_products})
        return batch.weight.tokens * nll_n.mean()
