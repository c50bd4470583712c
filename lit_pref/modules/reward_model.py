"""What reward models share: a language model with a scalar head, which scores completions at their last tokens.

A method is a subclass whose step says what the scores cost. Not here: losses, data, how a head is drawn or written.
"""

from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from lit_pref.errors import UserError
from lit_pref.losses import PairRewards, RewardLoss
from lit_pref.metrics import reward_statistics
from lit_pref.models import (
    LoRA,
    freeze_unused_lm_head,
    fresh_score_head,
    hidden_states_at,
    saved_append_eos,
    saved_score_head,
)
from lit_pref.models.compute import Compute
from lit_pref.modules.language_model import _LanguageModule
from lit_pref.modules.pairs import sides
from lit_pref.types import Dtype, RowBatch, Split, TreeBatch


class _RewardModule(_LanguageModule):
    """Scores of prompts with their responses, and what is logged of pairs.

    append_eos: whether a response is scored after an EOS; None is how the start's score head was trained.
    """

    # Over a step or a validation these are true extremes; TRL gives the mean of the batches' extremes.
    lowest = ("min_reward",)
    highest = ("max_reward",)

    def __init__(
        self,
        policy: str,
        loss: RewardLoss,
        fresh_head: bool,
        head_std: float | None,
        append_eos: bool | None,
        adapter: LoRA | None,
        dropout: bool,
        compute: Compute,
        optimizer: OptimizerCallable,
        scheduler: LRSchedulerCallable | None,
        dtype: Dtype = "float32",
    ) -> None:
        super().__init__(policy, False, adapter, dropout, compute, optimizer, scheduler, dtype)
        self.loss = loss
        carried_over = None if fresh_head else saved_score_head(policy, self.model)
        self.score_head = carried_over or fresh_score_head(self.model, head_std, seed=torch.initial_seed())
        self.append_eos = saved_append_eos(self.model) if append_eos is None else append_eos
        if not self.needs_lm_head:
            freeze_unused_lm_head(self.model)

    def row_figures(self, batch: RowBatch) -> dict[str, Tensor]:
        """The scores of both sides of each pair, and their margin."""
        chosen_P, rejected_P = self.reward_pairs(batch)
        return {"score_chosen": chosen_P, "score_rejected": rejected_P, "margin": chosen_P - rejected_P}

    def rewards(self, trees: TreeBatch) -> Tensor:
        """The score of each completion, read at its last token, fp32, [K]. The LM head is not used."""
        scores_K: Tensor = self.score_head(self._hidden_states(trees, trees.last_K))
        return scores_K

    def reward_pairs(self, batch: RowBatch) -> PairRewards:
        """Scores of both sides of each pair, [P]. Raises UserError for a batch of anything else."""
        self.check_kind(batch, "pair")
        return PairRewards(*sides(self.rewards(batch.trees)))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["lit_pref"]["append_eos"] = self.append_eos

    def _hidden_states(self, trees: TreeBatch, token_n: Tensor) -> Tensor:
        """Of some tokens, by their flat indices, [n, D]."""
        return hidden_states_at(self.model, trees, token_n, self.compute.attention)

    def _margins(self, batch: RowBatch) -> Tensor | None:
        if self.loss.use_margin and batch.value_R is None:
            raise UserError(
                "model.loss.use_margin: the loss asks for each pair's margin, and the data gives none: add a `margin` "
                "to every row, or leave use_margin out"
            )
        return batch.value_R

    def count_rewards(self, stage: Split, batch: RowBatch, rewards: PairRewards, losses: dict[str, Tensor]) -> None:
        """losses: by name, [items] each."""
        values = {"the score of chosen": rewards.chosen, "the score of rejected": rewards.rejected}
        if self.loss.use_margin and batch.value_R is not None:
            values["the margin"] = batch.value_R
        self.watch(batch, values)
        self.count_figures(stage, batch, losses | reward_statistics(*rewards))
