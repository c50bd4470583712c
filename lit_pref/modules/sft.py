"""Supervised finetuning: the likelihood baseline of all methods, and the maker of the embedded models.

Loss on completion tokens only, token mean over the batch. Trains on demonstrations, or on the chosen side of
preference pairs, so that every pairwise data module has its likelihood baseline.
"""

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from lit_pref.models import LoRA
from lit_pref.modules.engine import Engine
from lit_pref.modules.language_model import _LanguageModule, is_chosen
from lit_pref.modules.schedules import WarmupCosine
from lit_pref.types import PairBatch, TreeBatch


class SFTModule(_LanguageModule):
    """Maximizes the likelihood of completions given their prompts.

    Args:
        policy: `embedded:NAME`, a model folder, or a hub id.
        random_init: start from fresh weights of the policy's configuration instead of its trained ones.
        adapter: LoRA weights to train instead of the policy's own, which stay as they are; none trains all weights.
        dropout: whether the model's own dropout is on in training.
        engine: how the policy is run: layout of batches, attention, memory.
        optimizer: what makes the optimizer from the parameters.
        scheduler: what makes the learning-rate schedule from it, stepped every optimizer step; none is a constant rate.
    """

    def __init__(
        self,
        policy: str,
        random_init: bool = False,
        adapter: LoRA | None = None,
        dropout: bool = False,
        engine: Engine = Engine(),  # noqa: B008 - frozen
        optimizer: OptimizerCallable = lambda params: torch.optim.AdamW(params, lr=2e-5),
        scheduler: LRSchedulerCallable | None = lambda optimizer: WarmupCosine(optimizer, warmup=0.1),
    ) -> None:
        super().__init__(policy, random_init, adapter, dropout, engine, optimizer, scheduler)

    def training_step(self, batch: TreeBatch | PairBatch, batch_idx: int) -> Tensor:
        return self._step(batch, "train")

    def validation_step(self, batch: TreeBatch | PairBatch, batch_idx: int) -> Tensor:
        return self._step(batch, "eval")

    def test_step(self, batch: TreeBatch | PairBatch, batch_idx: int) -> Tensor:
        return self._step(batch, "test")

    def predict_step(self, batch: PairBatch, batch_idx: int) -> dict[str, Tensor]:
        """`row` in the held-out pairs and the summed log-probs of both sides, [P] each."""
        policy = self.score_pairs(batch).logps
        return {"row": batch.index_P, "logps/chosen": policy.chosen, "logps/rejected": policy.rejected}

    def _step(self, batch: TreeBatch | PairBatch, stage: str) -> Tensor:
        trees = batch.trees if isinstance(batch, PairBatch) else batch
        scores = self.score(trees)
        # Of pairs, only the chosen side is imitated.
        imitated_N = is_chosen(trees) if isinstance(batch, PairBatch) else slice(None)
        logps_n = scores.logps_N[imitated_N]
        loss = -logps_n.mean()
        if stage == "train":
            self.count_tokens(trees)
        figures = {
            "loss": loss,
            "entropy": scores.entropy_N[imitated_N].mean(),
            "mean_token_accuracy": scores.correct_N[imitated_N].float().mean(),
        }
        self.log_dict(
            {f"{stage}/{name}": value.detach() for name, value in figures.items()},
            batch_size=len(logps_n),  # so that validation means are over tokens
            prog_bar=stage == "train",
            sync_dist=stage != "train",
        )
        return loss
