"""Preference-model pretraining (CodePMP): a reward loss on pairs, and a language-model loss on chosen.

After the released code of arXiv 2410.02229 [C]: one forward pass feeds the LM head and a scalar head;
L = rm_coef · L_RM + lm_coef · L_LM, with L_RM = mean −log σ(s_chosen − s_rejected), scores read at the last token, and
L_LM the mean negative log-prob of the chosen responses' tokens, prompts left out. The prompt is computed once for both
responses, with the same result as the released code, which encodes each on its own. Not covered: weights of single
pairs by the tag's confidence.
"""

import math

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from lit_pref.losses import BradleyTerry, PairRewards, RewardLoss, token_scores
from lit_pref.models import LoRA, freeze_unused_lm_head, lm_head
from lit_pref.models.compute import Compute
from lit_pref.modules.language_model import is_first
from lit_pref.modules.pairs import sides
from lit_pref.modules.reward_model import _RewardModule
from lit_pref.modules.schedules import WarmupStableDecay
from lit_pref.types import Dtype, RowBatch, Split


class PMPretrainModule(_RewardModule):
    """Pretrains a reward model on preference pairs while it remains a language model.

    Args:
        policy: `embedded:NAME`, a model folder, a .gguf file or a hub id: the language model to start from. Where its
            weights hold a score head of one label (`score.weight`), that is carried over.
        rm_coef: weight of the reward loss; 0 trains only the language model.
        lm_coef: weight of the language-model loss; 0 leaves out the LM head.
        loss: a `RewardLoss` of a pair's two scores: BradleyTerry, or your own.
        head_std: standard deviation of a fresh head, drawn by the run's seed; none is the model config's
            initializer_range, as transformers draws it.
        append_eos: end each response with EOS, the end-of-code token of the released code's ablation; without it a
            response is scored at its last own token. Exported models carry it in their config.
        adapter: LoRA weights to train beside the head instead of the policy's own, which stay unchanged; none trains
            all weights.
        dtype: of the policy's own weights under an adapter; adapter and head are trained in float32.
        compute: how the policy is run: layout of batches, attention, memory.
        optimizer: builds the optimizer from the parameters.
        scheduler: builds the learning-rate schedule from it, stepped every optimizer step; none is a constant rate.
    """

    def __init__(
        self,
        policy: str,
        rm_coef: float = 1.0,
        lm_coef: float = 1.0,
        loss: RewardLoss = BradleyTerry(),  # noqa: B008 - frozen
        head_std: float | None = None,
        append_eos: bool = False,
        adapter: LoRA | None = None,
        dtype: Dtype = "float32",
        compute: Compute = Compute(),  # noqa: B008 - frozen
        optimizer: OptimizerCallable = lambda params: torch.optim.AdamW(params, lr=1e-6, weight_decay=0.1),
        scheduler: LRSchedulerCallable | None = lambda optimizer: WarmupStableDecay(optimizer, warmup=0.03, decay=0.1),
    ) -> None:
        for name, value in (("rm_coef", rm_coef), ("lm_coef", lm_coef)):
            if not value >= 0 or value == math.inf:
                raise ValueError(f"{name} must be {'finite' if value > 0 else '>= 0'}, got {value}")
        if rm_coef == lm_coef == 0:
            raise ValueError("rm_coef and lm_coef are both 0: there is nothing to train")
        super().__init__(
            policy, loss, False, head_std, append_eos, adapter, False, compute, optimizer, scheduler, dtype
        )
        self.rm_coef, self.lm_coef = rm_coef, lm_coef
        self.averages_tokens = lm_coef > 0
        if not lm_coef:
            freeze_unused_lm_head(self.model)

    def _step(self, batch: RowBatch, stage: Split) -> Tensor:
        trees = batch.trees
        is_imitated_N = is_first(batch) & (self.lm_coef > 0)
        last_K, predictor_n = trees.last_K, trees.predictor_N[is_imitated_N]
        # One pass for both, only at these tokens.
        hidden_MD = self._hidden_states(trees, torch.cat([last_K, predictor_n]))
        hidden_KD, hidden_nD = torch.split(hidden_MD, [len(last_K), len(predictor_n)])
        rewards = PairRewards(*sides(self.score_head(hidden_KD)))
        rm_loss_P = self.loss(rewards, self._margins(batch))
        losses, loss = {"rm_loss": rm_loss_P}, batch.weight.rows * self.rm_coef * rm_loss_P.mean()
        if self.lm_coef:
            nll_n = -token_scores(hidden_nD, lm_head(self.model), trees.target_N[is_imitated_N]).logps_N
            losses["lm_loss"] = nll_n
            loss = loss + batch.weight.tokens * self.lm_coef * nll_n.mean()
        self.count_rewards(stage, batch, rewards, losses)
        return loss

    def logged_figures(self, figures: dict[str, Tensor]) -> dict[str, Tensor]:
        """With `loss`, the weighted sum of a mean over pairs and a mean over tokens."""
        loss = self.rm_coef * figures["rm_loss"]
        if self.lm_coef:
            loss = loss + self.lm_coef * figures["lm_loss"]
        return {"loss": loss, **figures}
