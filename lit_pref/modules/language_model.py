"""What all methods share: a causal LM with its tokenizer, scored on token trees, and its optimizer.

A method is a subclass whose step reads like the paper's algorithm. Not here: losses, data, evaluation.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from lit_pref.errors import UserError
from lit_pref.losses import TokenScores, completion_logps, token_scores
from lit_pref.models import can_share_prompts, lm_head, load_causal_lm, load_tokenizer, predictor_hidden_states
from lit_pref.modules.engine import Engine
from lit_pref.modules.schedules import _WholeRunSchedule
from lit_pref.types import PairBatch, PairLogps, RowLayout, TreeBatch


class PairScores(NamedTuple):
    """Log-probs of a batch of pairs, and what falls off on the way: entropy in nats and greedy hits, each a scalar."""

    logps: PairLogps
    entropy: Tensor  # over the tokens of both sides
    token_accuracy: Tensor  # over those of chosen alone, as TRL counts it


def is_chosen(trees: TreeBatch) -> Tensor:
    """Which completion tokens of a batch of pairs belong to chosen responses, [N]."""
    return trees.completion_N % 2 == 0


class _LanguageModule(LightningModule):
    """Loads the policy and its tokenizer, scores token trees, counts tokens, configures the optimizer."""

    def __init__(
        self,
        policy: str,
        random_init: bool,
        dropout: bool,
        engine: Engine,
        optimizer: OptimizerCallable,
        scheduler: LRSchedulerCallable | None,
    ) -> None:
        super().__init__()
        self.policy, self.random_init, self.dropout = policy, random_init, dropout
        # Fresh weights follow the run's seed_everything, which is what torch was last seeded with.
        self.model = load_causal_lm(policy, random_init=random_init, seed=torch.initial_seed())
        self.tokenizer = load_tokenizer(policy)
        self.engine = engine
        self.row_layout = self._row_layout()
        self.make_optimizer, self.make_scheduler = optimizer, scheduler
        self.num_tokens = 0
        self._batch_tokens, self._batch_start = 0, 0.0

    def _row_layout(self) -> RowLayout:
        if self.engine.layout != "auto":
            return self.engine.layout
        return "shared" if can_share_prompts(self.model) else "repeated"

    def score(self, trees: TreeBatch) -> TokenScores:
        """Log-prob, entropy and greedy hit of each completion token, [N]."""
        hidden_ND = predictor_hidden_states(self.model, trees)
        return token_scores(hidden_ND, lm_head(self.model), trees.target_N)

    def score_pairs(self, batch: PairBatch) -> PairScores:
        """Summed log-probs of both sides of each pair, [P]. Raises UserError for a batch of anything else."""
        if not isinstance(batch, PairBatch):
            raise UserError(
                f"{type(self).__name__} scores preference pairs, its data module gives {type(batch).__name__}: take "
                "PairsDataModule, ExecutionPairsDataModule or another one of pairs"
            )
        scores = self.score(batch.trees)
        completions = len(batch.trees.length_K)
        logps_K = completion_logps(scores.logps_N, batch.trees.completion_N, completions)
        length_K = batch.trees.length_K.to(logps_K.dtype)
        logps = PairLogps(logps_K[0::2], logps_K[1::2], length_K[0::2], length_K[1::2])
        chosen_hit_n = scores.correct_N[is_chosen(batch.trees)]
        return PairScores(logps, scores.entropy_N.mean(), chosen_hit_n.float().mean())

    def score_all(self, loader: DataLoader[PairBatch]) -> PairLogps:
        """Log-probs of every pair of an ordered loader under the weights as they are, in the order of its rows; [P]."""
        was_training, rows = self.model.training, len(loader.dataset)  # type: ignore[arg-type]
        self.model.eval()
        all_4P = torch.zeros(4, rows, device=self.device)
        with torch.no_grad(), self.trainer.precision_plugin.forward_context():
            for batch in loader:
                moved: PairBatch = self.trainer.strategy.batch_to_device(batch, self.device)
                all_4P[:, moved.index_P] = torch.stack(self.score_pairs(moved).logps).float()
        self.model.train(was_training)
        return PairLogps(*all_4P)

    def reference_figures(self, stage: str, policy: PairLogps) -> dict[str, Tensor]:
        """Figures of all pairs of a stage that compare with a reference, [P] each; none for a method without one."""
        return {}

    def configure_optimizers(self) -> Any:
        optimizer = self.make_optimizer([p for p in self.parameters() if p.requires_grad])
        if self.make_scheduler is None:
            return optimizer
        scheduler = self.make_scheduler(optimizer)
        if isinstance(scheduler, _WholeRunSchedule):
            scheduler.set_total_steps(int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_train_start(self) -> None:
        # from_pretrained returns eval mode and Lightning leaves it so; dropout is the user's decision, not an accident.
        self.model.train(self.dropout)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        gradients = [p.grad for p in self.parameters() if p.grad is not None]
        self.log("train/grad_norm", nn.utils.get_total_norm(gradients))
        self.log("train/learning_rate", optimizer.param_groups[0]["lr"])

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self._batch_tokens, self._batch_start = 0, time.perf_counter()

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        rate = self._batch_tokens / (time.perf_counter() - self._batch_start)
        self.log("train/tokens_per_second", rate, reduce_fx="sum", sync_dist=True)

    def count_tokens(self, trees: TreeBatch) -> None:
        """Add a training batch's tokens, prompts counted once a completion, to what this rank has seen."""
        self.num_tokens += trees.num_tokens
        self._batch_tokens += trees.num_tokens
        self.log("train/num_tokens", float(self.num_tokens), reduce_fx="sum", sync_dist=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # Plain values only, so that checkpoints load with weights_only=True. Export reads them.
        checkpoint["lit_pref"] = {"policy": self.policy, "num_tokens": self.num_tokens}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.num_tokens = int(checkpoint["lit_pref"]["num_tokens"])


def adamw(lr: float, weight_decay: float = 0.0) -> Callable[[Any], Optimizer]:
    """AdamW with the kit's betas, for notebooks: `optimizer=adamw(2e-4)`."""
    return lambda params: torch.optim.AdamW(params, lr=lr, weight_decay=weight_decay, betas=(0.9, 0.95))
