"""Reward finetuning: a scalar head on a language model, trained on preference pairs by Bradley–Terry.

After the finetuning step of the released CodePMP code (arXiv 2410.02229): each response is scored on its own, at its
last token, and the trained head of an earlier run is carried over. Not covered: a language-model loss beside it
(`pmp.py`), and scores of single steps of a solution.
"""

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from lit_pref.losses import BradleyTerry, RewardLoss
from lit_pref.models import LoRA
from lit_pref.models.compute import Compute
from lit_pref.modules.reward_model import _RewardModule
from lit_pref.modules.schedules import WarmupCosine
from lit_pref.types import Dtype, RowBatch, Split


class RewardFinetuneModule(_RewardModule):
    """Trains a reward model on preference pairs: one score for a prompt with its response.

    Args:
        policy: `embedded:NAME`, a model folder, a .gguf file or a hub id: the language model to start from. Where its
            weights hold a score head of one label (`score.weight`), that is carried over.
        loss: a `RewardLoss` of a pair's two scores: BradleyTerry, or your own.
        fresh_head: start from a fresh score head even if the weights hold one.
        head_std: standard deviation of a fresh head, drawn by the run's seed; none is the model config's
            initializer_range, as transformers draws it.
        append_eos: whether a response ends in EOS and is scored there; none is how the policy's head was
            trained, and true if it does not say. Exported models carry it in their config.
        adapter: LoRA weights to train beside the head instead of the policy's own, which stay unchanged; none trains
            all weights.
        dtype: of the policy's own weights under an adapter; adapter and head are trained in float32.
        dropout: whether the model's own dropout is on in training.
        compute: how the policy is run: layout of batches, attention, memory.
        optimizer: builds the optimizer from the parameters.
        scheduler: builds the learning-rate schedule from it, stepped every optimizer step; none is a constant rate.
    """

    needs_lm_head = False

    def __init__(
        self,
        policy: str,
        loss: RewardLoss = BradleyTerry(),  # noqa: B008 - frozen
        fresh_head: bool = False,
        head_std: float | None = None,
        append_eos: bool | None = None,
        adapter: LoRA | None = None,
        dtype: Dtype = "float32",
        dropout: bool = False,
        compute: Compute = Compute(),  # noqa: B008 - frozen
        optimizer: OptimizerCallable = lambda params: torch.optim.AdamW(params, lr=1e-5, weight_decay=0.0),
        scheduler: LRSchedulerCallable | None = lambda optimizer: WarmupCosine(optimizer, warmup=0.03),
    ) -> None:
        super().__init__(
            policy, loss, fresh_head, head_std, append_eos, adapter, dropout, compute, optimizer, scheduler, dtype
        )

    def _step(self, batch: RowBatch, stage: Split) -> Tensor:
        rewards = self.reward_pairs(batch)
        loss_P = self.loss(rewards, self._margins(batch))
        self.count_rewards(stage, batch, rewards, {"loss": loss_P})
        return batch.weight.rows * loss_P.mean()
