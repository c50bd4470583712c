"""Reward finetuning: a scalar head on a language model, trained on preference pairs by Bradley–Terry.

After the finetuning step of the released CodePMP code (arXiv 2410.02229): responses are scored apart, each at its last
token, and the trained head of an earlier run is carried over. Not covered: pretraining with a language-model loss
beside it, and scores of single steps of a solution.
"""

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor
from torch.utils.data import DataLoader

from lit_pref.errors import UserError
from lit_pref.losses import BradleyTerry, PairRewards, RewardLoss
from lit_pref.metrics import reward_statistics
from lit_pref.models import (
    LoRA,
    freeze_unused_lm_head,
    fresh_score_head,
    saved_score_head,
    tree_hidden_states,
)
from lit_pref.modules.engine import Engine
from lit_pref.modules.language_model import _LanguageModule
from lit_pref.modules.schedules import WarmupCosine
from lit_pref.types import PairBatch, TreeBatch


class RewardFinetuneModule(_LanguageModule):
    """Trains a reward model on preference pairs: one score for a prompt with its response.

    Args:
        policy: `embedded:NAME`, a model folder, or a hub id: the language model to start from. Where its weights hold
            a score head of one label (`score.weight`), that is carried over.
        loss: a `RewardLoss` of a pair's two scores: BradleyTerry, or your own.
        fresh_head: start from a fresh score head also where the weights hold one.
        head_std: standard deviation of a fresh head, drawn by the run's seed; none is the model config's
            initializer_range, as transformers draws it.
        adapter: LoRA weights to train beside the head instead of the policy's own, which stay as they are; none trains
            all weights.
        dropout: whether the model's own dropout is on in training.
        engine: how the policy is run: layout of batches, attention, memory.
        optimizer: what makes the optimizer from the parameters.
        scheduler: what makes the learning-rate schedule from it, stepped every optimizer step; none is a constant rate.
    """

    needs_lm_head = False

    def __init__(
        self,
        policy: str,
        loss: RewardLoss = BradleyTerry(),  # noqa: B008 - frozen
        fresh_head: bool = False,
        head_std: float | None = None,
        adapter: LoRA | None = None,
        dropout: bool = False,
        engine: Engine = Engine(),  # noqa: B008 - frozen
        optimizer: OptimizerCallable = lambda params: torch.optim.AdamW(params, lr=1e-5),
        scheduler: LRSchedulerCallable | None = lambda optimizer: WarmupCosine(optimizer, warmup=0.03),
    ) -> None:
        super().__init__(policy, False, adapter, dropout, engine, optimizer, scheduler)
        self.loss = loss
        carried_over = None if fresh_head else saved_score_head(policy, self.model)
        self.score_head = carried_over or fresh_score_head(self.model, head_std, seed=torch.initial_seed())
        freeze_unused_lm_head(self.model)

    # --- the method ---------------------------------------------------------------------------------------------------

    def training_step(self, batch: PairBatch, batch_idx: int) -> Tensor:
        return self._step(batch, "train")

    def validation_step(self, batch: PairBatch, batch_idx: int) -> Tensor:
        return self._step(batch, "eval")

    def test_step(self, batch: PairBatch, batch_idx: int) -> Tensor:
        return self._step(batch, "test")

    def predict_step(self, batch: PairBatch, batch_idx: int) -> dict[str, Tensor]:
        """`row` in the held-out pairs, the scores of both sides and their margin, [P] each."""
        chosen_P, rejected_P = self.reward_pairs(batch)
        scores = {"score_chosen": chosen_P, "score_rejected": rejected_P, "margin": chosen_P - rejected_P}
        return {"row": batch.index_P, **scores}

    def _step(self, batch: PairBatch, stage: str) -> Tensor:
        rewards = self.reward_pairs(batch)
        loss_P = self.loss(rewards, self._margins(batch))
        loss = loss_P.mean()
        self._log_rewards(stage, batch, rewards, loss)
        return batch.weight * loss

    def rewards(self, trees: TreeBatch) -> Tensor:
        """The score of each completion, read at its last token, fp32, [K]. The LM head takes no part."""
        hidden_BTD = tree_hidden_states(self.model, trees, self.engine.attention)
        scores_K: Tensor = self.score_head(hidden_BTD.flatten(0, 1)[trees.last_K])
        return scores_K

    def reward_pairs(self, batch: PairBatch) -> PairRewards:
        """Scores of both sides of each pair, [P]. Raises UserError for a batch of anything else."""
        self.check_pairs(batch)
        scores_K = self.rewards(batch.trees)
        return PairRewards(scores_K[0::2], scores_K[1::2])

    def reward_all(self, loader: DataLoader[PairBatch]) -> PairRewards:
        """Scores of every pair of an ordered loader under the weights as they are, in the order of its rows; [P]."""
        return PairRewards(*self.of_all(loader, 2, self.reward_pairs))

    def _margins(self, batch: PairBatch) -> Tensor | None:
        if self.loss.use_margin and batch.margin_P is None:
            raise UserError(
                "model.loss.use_margin: the loss asks for each pair's margin, and the data gives none: add a `margin` "
                "to every row, or leave use_margin out"
            )
        return batch.margin_P

    def _log_rewards(self, stage: str, batch: PairBatch, rewards: PairRewards, loss: Tensor) -> None:
        if stage == "train":
            self.count_tokens(batch.trees)
        figures, pairs, shown = reward_statistics(*rewards), len(batch.index_P), stage == "train"
        self.log(f"{stage}/loss", loss.detach(), batch_size=pairs, prog_bar=shown, sync_dist=not shown)
        for name in ("accuracy", "margin", "mean_reward"):
            self.log(f"{stage}/{name}", figures[name].mean(), batch_size=pairs, sync_dist=not shown)
        # Over a validation these are true extremes; TRL gives the mean of the batches' extremes.
        self.log(f"{stage}/min_reward", figures["min_reward"].min(), reduce_fx="min", sync_dist=not shown)
        self.log(f"{stage}/max_reward", figures["max_reward"].max(), reduce_fx="max", sync_dist=not shown)
