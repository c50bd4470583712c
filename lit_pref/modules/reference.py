"""The start policy's log-probs of completions, for methods that compare with it: found on disk, else scored once.

Each completion is known by its prompt's and its own tokens, so any loader may bring it. Before the first step the
policy itself is the reference, so there is no second model in memory. Each process scores a share, and all get the
whole. Not covered: a reference that moves with training; models whose weights are sharded over processes, whose forward
passes would wait for each other.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import islice, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import torch
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from lit_pref.errors import UserError
from lit_pref.machine.progress import progress_bar
from lit_pref.models import computed_buffers_kept, load_causal_lm, weights_fingerprint
from lit_pref.storage.arrays import ArrayCache
from lit_pref.types import RowBatch

if TYPE_CHECKING:
    from lit_pref.modules.language_model import _LanguageModule

_LONG = 2_000  # progress is shown from so many rows on: some seconds of an embedded model


@runtime_checkable
class OrderedData(Protocol):
    """A data module that fingerprints its rows, and gives each of them once."""

    fingerprints: dict[str, str]

    def ordered_loader(self, stage: Any) -> Any: ...


class Scored(NamedTuple):
    """Log-probs of completions by their keys, which are ascending; [K] each, on the CPU."""

    key_K: Tensor
    logp_K: Tensor


class Reference:
    """What a module asks about its start policy.

    module: whose start policy it is.
    cache_folder: where log-probs are kept; None is the user's cache folder.
    """

    def __init__(self, module: "_LanguageModule", cache_folder: Path | None) -> None:
        self.module, self.cache = module, ArrayCache(cache_folder, "reference")
        self.fingerprint = ""  # of the start policy's weights
        self.at_start = True  # the module's weights are still those of the reference
        self.scored: dict[str, Scored] = {}  # by stage
        self._made_of: dict[str, Any] = {}  # where the log-probs of each stage come from: a cache key, or a loader

    def logps(self, batch: RowBatch, policy_K: Tensor) -> Tensor:
        """Summed log-probs of the batch's completions under the start policy, [K].

        policy_K: those under the policy, which must be the same before the first step.

        Raises UserError for a completion that was not there when the reference was scored.
        """
        key_K = batch.key_K.cpu()
        found_K = torch.full(key_K.shape, torch.nan)
        for _, scored in sorted(self.scored.items()):  # rows of several stages have one reference
            place_K = torch.searchsorted(scored.key_K, key_K).clamp(max=len(scored.key_K) - 1)
            found_K = torch.where(scored.key_K[place_K] == key_K, scored.logp_K[place_K], found_K)
        if bool(found_K.isnan().any()):
            raise UserError(
                f"the batch of rows {batch.row_R.tolist()} holds a completion whose reference was not scored when the "
                "run began: give a loader that brings the same rows in every epoch"
            )
        reference_K = found_K.to(policy_K.device)
        if self.at_start and not self.module.dropout:
            self._check(policy_K.detach(), reference_K, batch.trees.length_K)
        return reference_K

    def _check(self, policy_K: Tensor, reference_K: Tensor, length_K: Tensor) -> None:
        """Other weights, another template or another truncation show here."""
        # Summed over tokens in other batch shapes. Logits of pretrained models reach 40, which bf16 rounds by up to an
        # eighth; a completion may be one token (0.12 was seen), and over more tokens rounding averages out.
        whole = "32" in str(self.module.trainer.precision) and self.module.weights_dtype == "float32"
        off_K = (policy_K - reference_K).abs() / length_K
        tolerance_K = torch.full_like(off_K, 1e-3) if whole else (0.5 / length_K.sqrt()).clamp(min=0.05)
        if bool((off_K > tolerance_K).any()):
            off = off_K[(off_K / tolerance_K).argmax()]
            raise RuntimeError(
                f"before the first step the policy is {off:.2g} nats a token away from its cached reference: the cache "
                f"at {self.cache.folder} does not belong to these weights and tokens; delete it and run again"
            )

    # --- before training and before each stage ------------------------------------------------------------------------

    def setup(self) -> None:
        # A resumed run's checkpoint is restored after this: here its weights are still those of the reference.
        if not self.fingerprint:
            self.fingerprint = self.module.base_fingerprint or weights_fingerprint(
                self.module.model if self.at_start else load_causal_lm(self.module.policy)
            )

    def prepare(self, stage: str) -> None:
        """Find the log-probs of all rows of a stage in the cache, or score them."""
        trainer = self.module.trainer
        data, precision = trainer.datamodule, str(trainer.precision)  # type: ignore[attr-defined]
        if self._made_of.setdefault("precision", precision) != precision:
            self.scored.clear()
            self._made_of = {"precision": precision}
        if not isinstance(data, OrderedData):
            self._prepare_loader(stage)
            return
        if stage == "predict":  # of the test data, where there is some
            stage = "test" if "test" in data.fingerprints else "validation"
        if (loader := data.ordered_loader(stage)) is None:
            return
        key = (self.fingerprint, data.fingerprints[stage], precision, "sums by int32 keys")
        if self._made_of.get(stage) != key:
            self.scored[stage] = self._found(key) or self._kept(key, loader)
            self._made_of[stage] = key

    def _prepare_loader(self, stage: str) -> None:
        trainer = self.module.trainer
        loader = {
            "train": trainer.train_dataloader,
            "validation": trainer.val_dataloaders,
            "test": trainer.test_dataloaders,
            "predict": trainer.predict_dataloaders,
        }[stage]
        if loader not in (None, []) and self._made_of.get(stage) is not loader:
            with isolate_rng():  # the run's own epochs draw what they would without this one
                batches = (batch for each in CombinedLoader(loader).flattened for batch in each)
                self.scored[stage] = self._score(batches)
            self._made_of[stage] = loader

    def _found(self, key: tuple[str, ...]) -> Scored | None:
        found_3K = self.cache.load(key)
        # All or none: another run may write the file between two looks, and machines need not share a disk.
        if not self.module.trainer.strategy.reduce_boolean_decision(found_3K is not None):
            return None
        assert found_3K is not None
        return Scored(found_3K[:2].view(torch.int64).flatten(), found_3K[2])

    def _kept(self, key: tuple[str, ...], loader: Any) -> Scored:
        trainer, rows = self.module.trainer, len(loader.dataset)
        told = rows >= _LONG and trainer.is_global_zero
        progress = progress_bar("Scoring the reference", rows) if told else nullcontext(lambda done: None)
        with progress as advance:

            def share() -> Iterator[RowBatch]:
                # Other ranks' batches are collated and dropped; this costs about 1% of scoring them.
                done = 0
                for batch in islice(loader, trainer.global_rank, None, trainer.world_size):
                    yield batch
                    done += len(batch.row_R) * trainer.world_size
                    advance(min(done, rows))

            scored = self._score(share())
        if trainer.is_global_zero:
            self.cache.save(key, torch.cat([scored.key_K.view(torch.float32).view(2, -1), scored.logp_K[None]]))
        return scored

    def _score(self, batches: Iterable[RowBatch]) -> Scored:
        """Of all processes' batches, under the start policy."""
        with self._in_place():
            own = [
                (batch.key_K.cpu(), logp_K.cpu())
                for batch, logp_K in self.module.measured(batches, self.module.finite_logps)
            ]
        parts = [own]
        if (world_size := self.module.trainer.world_size) > 1:
            parts = [[] for _ in range(world_size)]
            torch.distributed.all_gather_object(parts, own)
        # In the order of a single process, since of equal completions the first is taken.
        made = [each for step in zip_longest(*parts) for each in step if each is not None]
        key_K, logp_K = (torch.cat(each) for each in zip(*made, strict=True))
        key_K, order_K = key_K.sort(stable=True)
        return Scored(key_K, logp_K[order_K])

    @contextmanager
    def _in_place(self) -> Iterator[None]:
        """The start weights in the module: an adapter's base, the policy while it has not been trained, else loaded."""
        module = self.module
        if module.adapter is not None:
            with module.adapter_off():
                yield
            return
        if self.at_start:
            yield
            return
        start = load_causal_lm(module.policy)
        if weights_fingerprint(start) != self.fingerprint:
            raise UserError(
                f"the weights of {module.policy!r} are not those that this policy was trained from, so its reference "
                "cannot be scored again: put them back, or start a new run"
            )
        trained = module.model
        with computed_buffers_kept(start):
            module.model = start.to(module.device, trained.dtype)
        try:
            yield
        finally:
            module.model = trained

    # --- checkpoints --------------------------------------------------------------------------------------------------

    def load(self, saved: dict[str, Any]) -> None:
        """Take the checkpoint's start policy. Raises UserError if it is another one."""
        start = saved.get("start_fingerprint", "")  # another method's may be measured against ours
        if start and self.fingerprint and start != self.fingerprint:
            raise UserError(
                f"the checkpoint was trained from other weights than those of {self.module.policy!r}, which are its "
                f"reference here: give the policy that it started from ({saved['policy']!r} by name)"
            )
        self.fingerprint = self.fingerprint or start
        self.at_start = False
