"""Supervised finetuning: the likelihood baseline of all methods, which also trained the embedded models.

The loss is the mean over the completion tokens of the whole optimizer step. Trains on demonstrations, or on the chosen
side of preference pairs, so that every pairwise data module has its likelihood baseline.
"""

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from lit_pref.losses import completion_logps
from lit_pref.models import LoRA
from lit_pref.models.compute import Compute
from lit_pref.modules.language_model import _LanguageModule, is_first
from lit_pref.modules.pairs import score_pairs
from lit_pref.modules.schedules import WarmupCosine
from lit_pref.types import Dtype, RowBatch, Split


class SFTModule(_LanguageModule):
    """Maximizes the likelihood of completions given their prompts.

    Args:
        policy: `embedded:NAME`, a model folder, a .gguf file or a hub id.
        random_init: start from fresh weights of the policy's configuration instead of its trained ones.
        adapter: LoRA weights to train instead of the policy's own, which stay unchanged; none trains all weights.
        dtype: of the policy's own weights under an adapter, which is trained in float32; bfloat16 halves their memory.
        dropout: whether the model's own dropout is on in training.
        compute: how the policy is run: layout of batches, attention, memory.
        optimizer: builds the optimizer from the parameters.
        scheduler: builds the learning-rate schedule from it, stepped every optimizer step; none is a constant rate.
    """

    kinds = ("pair", "demonstration")
    averages_tokens = True

    def __init__(
        self,
        policy: str,
        random_init: bool = False,
        adapter: LoRA | None = None,
        dtype: Dtype = "float32",
        dropout: bool = False,
        compute: Compute = Compute(),  # noqa: B008 - frozen
        optimizer: OptimizerCallable = lambda params: torch.optim.AdamW(params, lr=2e-5, weight_decay=0.0),
        scheduler: LRSchedulerCallable | None = lambda optimizer: WarmupCosine(optimizer, warmup=0.1),
    ) -> None:
        super().__init__(policy, random_init, adapter, dropout, compute, optimizer, scheduler, dtype)

    def row_figures(self, batch: RowBatch) -> dict[str, Tensor]:
        """Of a pair, the summed log-probs of both sides."""
        policy = score_pairs(self, batch)
        return {"logps/chosen": policy.chosen, "logps/rejected": policy.rejected}

    def _step(self, batch: RowBatch, stage: Split) -> Tensor:
        scores, trees = self.score(batch.trees), batch.trees
        logps_K = completion_logps(scores.logps_N, trees.completion_N, len(trees.length_K))
        self.watch(batch, {"the log-prob": logps_K[batch.sibling_K == 0]})
        imitated_N = is_first(batch)
        nll_n = -scores.logps_N[imitated_N]
        by_products = {"entropy": scores.entropy_N[imitated_N], "mean_token_accuracy": scores.correct_N[imitated_N]}
        self.count_figures(stage, batch, {"loss": nll_n, **by_products})
        return batch.weight.tokens * nll_n.mean()
