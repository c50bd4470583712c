"""Direct preference optimization and its relatives: one module, the objective and the regularizer injected.

Objective and regularizer are per-pair functions of summed log-probs (`lit_pref.losses`). Where either needs a
reference, the frozen start policy's log-probs are scored once, before step 0, by the policy itself while it still is
the reference, and kept on disk: no second model is in memory. Not covered: a reference that moves with training.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor
from torch.optim import Optimizer

from lit_pref.errors import UserError
from lit_pref.losses import PairObjective, Regularizer
from lit_pref.metrics import preference_statistics
from lit_pref.models import LoRA, load_causal_lm, weights_fingerprint
from lit_pref.models.compute import Compute
from lit_pref.modules.language_model import LoggedStage, _LanguageModule
from lit_pref.modules.reference import StageReference, check_start, reference_logps
from lit_pref.modules.schedules import WarmupCosine
from lit_pref.storage.arrays import ArrayCache
from lit_pref.types import PairBatch, PairLogps


class DPOModule(_LanguageModule):
    """Trains a policy on preference pairs.

    Args:
        policy: `embedded:NAME`, a model folder, or a hub id; also the reference, as it is before training.
        objective: a `PairObjective`: DPO, IPO, SimPO, Hinge, DPOPositive, or your own.
        regularizer: added to the objective, pair by pair: ChosenNLL, LikelihoodBudget, or none.
        adapter: LoRA weights to train instead of the policy's own, which stay as they are; none trains all weights.
        dropout: whether the model's own dropout is on in training.
        compute: how the policy is run: layout of batches, attention, memory.
        optimizer: what makes the optimizer from the parameters.
        scheduler: what makes the learning-rate schedule from it, stepped every optimizer step; none is a constant rate.
        cache_folder: where reference log-probs are kept; None is the user's cache folder.
    """

    def __init__(
        self,
        policy: str,
        objective: PairObjective,
        regularizer: Regularizer | None = None,
        adapter: LoRA | None = None,
        dropout: bool = False,
        compute: Compute = Compute(),  # noqa: B008 - frozen
        optimizer: OptimizerCallable = lambda params: torch.optim.AdamW(params, lr=5e-7),
        scheduler: LRSchedulerCallable | None = lambda optimizer: WarmupCosine(optimizer, warmup=0.1),
        cache_folder: Path | None = None,
    ) -> None:
        super().__init__(policy, False, adapter, dropout, compute, optimizer, scheduler)
        self.objective, self.regularizer = objective, regularizer
        self.needs_reference = objective.needs_reference or (regularizer is not None and regularizer.needs_reference)
        self.cache = ArrayCache(cache_folder, "reference")
        self._at_start = True  # the weights are still those of the reference
        self._start_fingerprint = ""
        self._reference: dict[str, StageReference] = {}

    # --- the method ---------------------------------------------------------------------------------------------------

    def training_step(self, batch: PairBatch, batch_idx: int) -> Tensor:
        return self._step(batch, "train")

    def validation_step(self, batch: PairBatch, batch_idx: int) -> Tensor:
        return self._step(batch, "validation")

    def test_step(self, batch: PairBatch, batch_idx: int) -> Tensor:
        return self._step(batch, "test")

    def predict_step(self, batch: PairBatch, batch_idx: int) -> dict[str, Tensor]:
        """`row` in the held-out data and every figure of `pair_figures`, [P] each."""
        policy = self.score_pairs(batch).logps
        return self.predictions(batch, self.pair_figures(policy, self.reference(batch, "predict")))

    def _step(self, batch: PairBatch, stage: LoggedStage) -> Tensor:
        scores = self.score_pairs(batch)
        policy, reference = scores.logps, self.reference(batch, stage)
        self.watch(batch, _named(policy, reference))
        loss_P = self.objective(policy, reference)
        if self.regularizer is not None:
            loss_P = loss_P + self.regularizer(policy, reference)
        if stage == "train":
            self._check_start(policy, reference)
        figures = {"loss": loss_P, **self.pair_figures(policy, reference)}
        figures |= {"entropy": scores.entropy_N, "mean_token_accuracy": scores.chosen_hit_n}
        self.count_figures(stage, batch, figures)
        return batch.weight.rows * loss_P.mean()

    def pair_figures(self, policy: PairLogps, reference: PairLogps | None) -> dict[str, Tensor]:
        """What is logged of each pair, [P] each: `rewards/*`, `logps/*`, and `budget/*` where there is a reference."""
        figures = preference_statistics(policy, reference, beta=self.objective.beta)
        if self.regularizer is not None:
            figures |= self.regularizer.statistics(policy, reference)
        return figures

    # --- the reference ------------------------------------------------------------------------------------------------

    def reference(self, batch: PairBatch, stage: str) -> PairLogps | None:
        """The start policy's log-probs of the batch's pairs; None where neither objective nor regularizer uses them."""
        if not self.needs_reference:
            return None
        values_P2 = self._reference[stage].values_P2[batch.index_P.cpu()].to(batch.index_P.device)
        lengths = batch.trees.length_K.to(values_P2.dtype)
        return PairLogps(values_P2[:, 0], values_P2[:, 1], lengths[0::2], lengths[1::2])

    def setup(self, stage: str) -> None:
        super().setup(stage)
        # A resumed run's checkpoint is restored after this hook: here its weights are still those of the reference.
        if self.needs_reference and not self._start_fingerprint:
            self._start_fingerprint = self.base_fingerprint or self._fingerprint_of_start()

    def _fingerprint_of_start(self) -> str:
        return weights_fingerprint(self.model if self._at_start else load_causal_lm(self.policy))

    def on_fit_start(self) -> None:
        self._prepare_reference("train")
        self._prepare_reference("validation")

    def on_train_start(self) -> None:
        super().on_train_start()
        self._prepare_reference("train")  # Lightning's finders train before `on_fit_start` comes to this module

    def on_validation_start(self) -> None:
        self._prepare_reference("validation")

    def on_test_start(self) -> None:
        self._prepare_reference("test")

    def on_predict_start(self) -> None:
        self._prepare_reference("predict")

    def _prepare_reference(self, stage: str) -> None:
        """Find the reference log-probs of a stage's pairs in the cache, or score them."""
        if not self.needs_reference:
            return
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if data is None:
            raise TypeError(
                "DPOModule scores its reference on a data module's pairs: give fit() a PairsDataModule, an "
                "ExecutionPairsDataModule or one of your own instead of bare data loaders"
            )
        split = stage
        if stage == "predict":  # the test data, where there is some
            split = "test" if "test" in data.fingerprints else "validation"
        loader = data.ordered_loader(split)
        if loader is None:
            return
        key = (self._start_fingerprint, data.fingerprints[split], str(self.trainer.precision), "sum-of-both-sides")
        if stage in self._reference and self._reference[stage].key == key:
            return
        values_P2 = reference_logps(self, loader, self.cache, key, self._as_reference)
        self._reference[stage] = StageReference(key, values_P2)

    @contextmanager
    def _as_reference(self) -> Iterator[None]:
        """The start weights in place: an adapter's base, the policy while it has not been trained, else loaded."""
        if self.adapter is not None:
            with self.adapter_off():
                yield
            return
        if self._at_start:
            yield
            return
        start = load_causal_lm(self.policy)
        if weights_fingerprint(start) != self._start_fingerprint:
            raise UserError(
                f"the weights of {self.policy!r} are not those that this policy was trained from, so its reference "
                "cannot be scored again: put them back, or start a new run"
            )
        trained = self.model
        self.model = start.to(self.device, trained.dtype)
        try:
            yield
        finally:
            self.model = trained

    def reference_figures(self, stage: str, policy: PairLogps) -> dict[str, Tensor]:
        """`pair_figures` of all pairs of a stage, given the policy's log-probs of them in order."""
        self._prepare_reference(stage)
        reference = None
        if self.needs_reference:
            values_P2 = self._reference[stage].values_P2.to(policy.chosen.device)
            reference = PairLogps(values_P2[:, 0], values_P2[:, 1], policy.chosen_length, policy.rejected_length)
        return self.pair_figures(policy, reference)

    def _check_start(self, policy: PairLogps, reference: PairLogps | None) -> None:
        """Before training policy and reference are one: values of another template or truncation show here."""
        if reference is None or self.dropout or not self._at_start:
            return
        # Summed over tokens in other batch shapes; half precision rounds each token's logit by up to 2^-8.
        check_start(policy, reference, 1e-3 if "32" in str(self.trainer.precision) else 0.05, self.cache)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        super().on_before_optimizer_step(optimizer)
        self._at_start = False

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["lit_pref"]["start_fingerprint"] = self._start_fingerprint

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        start = checkpoint["lit_pref"].get("start_fingerprint", "")  # another method's may be measured against ours
        if start and self._start_fingerprint and start != self._start_fingerprint:
            raise UserError(
                f"the checkpoint was trained from other weights than those of {self.policy!r}, which are its "
                f"reference here: give the policy that it started from ({checkpoint['lit_pref']['policy']!r} by name)"
            )
        self._start_fingerprint = self._start_fingerprint or start
        self._at_start = False


def _named(policy: PairLogps, reference: PairLogps | None) -> dict[str, Tensor]:
    """What a pair's loss is made of."""
    values = {"the log-prob of chosen": policy.chosen, "the log-prob of rejected": policy.rejected}
    if reference is not None:
        values["the reference's log-prob of chosen"] = reference.chosen
        values["the reference's log-prob of rejected"] = reference.rejected
    return values
