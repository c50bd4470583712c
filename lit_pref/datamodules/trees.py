"""What all data modules share: token trees made once, loaders in a seeded order, fingerprints for the run record."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.trainer.states import TrainerFn
from torch.utils.data import DataLoader

from lit_pref.data.batches.loading import BatchSampler, FixedBatchSampler, Steps, TreeDataset, batch_loader
from lit_pref.data.batches.order import Batching
from lit_pref.data.batches.position import DataPosition, last_step
from lit_pref.data.reading.rows import tell_unused
from lit_pref.errors import UserError
from lit_pref.storage.files import write_json
from lit_pref.types import RowLayout

Stage = Literal["train", "validation"]


class PolicyModule(Protocol):
    """What data modules ask of the module they feed: its model and tokenizer, how it lays out batches, what ends a
    completion, and whether a loss of its is a mean over imitated tokens."""

    model: Any
    tokenizer: Any
    policy: str
    row_layout: RowLayout
    append_eos: bool
    averages_tokens: bool


class NamedSource(NamedTuple):
    """A file, glob, folder or hub id, and which of its splits, or a slice of them."""

    source: str
    split: str


def named_sources(
    train: str | None, validation: str | None, train_split: str, validation_split: str | None
) -> dict[Stage, NamedSource]:
    """Where the rows of each stage come from; a validation split without a source of its own is the training data's."""
    named: dict[Stage, NamedSource] = {}
    if train is not None:
        named["train"] = NamedSource(train, train_split)
    if validation is not None or (train is not None and validation_split is not None):
        named["validation"] = NamedSource(validation or train or "", validation_split or "validation")
    return named


def run_seed() -> int:
    """The run's seed as `seed_everything` set it; 0 where it did not."""
    return int(os.environ.get("PL_GLOBAL_SEED", "0"))


class _TreeDataModule(LightningDataModule):
    """Loaders over `TreeDataset`s that a subclass's `setup` puts into `self.data`, by stage.

    max_tokens_per_batch: None takes `batch_size` rows.
    seed: of the order, and of what a subclass draws; None is the run's `seed_everything`.
    """

    def __init__(self, batch_size: int, max_tokens_per_batch: int | None, seed: int | None, num_workers: int) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"batch_size must be >= 1, got {batch_size}")
        if max_tokens_per_batch is not None and max_tokens_per_batch < 1:
            raise ValueError(f"max_tokens_per_batch must be >= 1, got {max_tokens_per_batch}")
        if num_workers < 0:
            raise ValueError(f"num_workers must be >= 0, got {num_workers}")
        if seed is not None and seed < 0:
            raise ValueError(f"seed must be >= 0, got {seed}")
        self.batch_size, self.max_tokens_per_batch = batch_size, max_tokens_per_batch
        self.num_workers = num_workers
        self.seed = run_seed() if seed is None else seed
        self.data: dict[Stage, TreeDataset[Any]] = {}
        self.fingerprints: dict[str, str] = {}
        self._made_for: PolicyModule | None = None
        self._resume_at: DataPosition | None = None

    @property
    def consumer(self) -> PolicyModule:
        """The module that is being fed."""
        if self.trainer is None or self.trainer.lightning_module is None:
            raise RuntimeError(f"{type(self).__name__} tokenizes with its module's tokenizer: run it through a Trainer")
        return self.trainer.lightning_module  # type: ignore[return-value]

    def _forget_other_consumer(self) -> None:
        """Drop what was made for another module: its tokenizer, its layout of batches, its samples."""
        if self._made_for is not self.consumer:
            self.data.clear()
            self.fingerprints.clear()
            self._made_for = self.consumer

    def _check_vocabulary(self, largest_id: int) -> None:
        """Raises UserError for a token that the model does not embed."""
        embedded, known = self.consumer.model.get_input_embeddings().weight.shape[0], len(self.consumer.tokenizer)
        if largest_id >= embedded:
            raise UserError(
                f"the token {largest_id} of the data is beyond the {embedded:,} that the model embeds, and the "
                f"tokenizer has {known:,}: choose a tokenizer and a model that belong together"
            )

    @property
    def device(self) -> torch.device:
        """Where the module will train: what a data module computes with it is computed there."""
        assert self.trainer is not None
        return self.trainer.strategy.root_device

    def state_dict(self) -> dict[str, Any]:
        """How far the run has come in its epoch, and what its order of batches depends on; it lies in checkpoints."""
        if self.trainer is None or "train" not in self.data:
            return {}
        position = last_step(self.trainer)
        ended = position.batches in (0, self.trainer.num_training_batches)
        return {**position._asdict(), "ended": ended, "order": self._order()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Raise UserError where a run would go on within an epoch whose batches are others now."""
        # Validating a checkpoint loads it too: only a resumed fit may go on from there.
        if not state_dict or self.trainer is None or self.trainer.state.fn != TrainerFn.FITTING:
            return
        position = DataPosition(state_dict["epoch"], state_dict["batches"])
        there, here = state_dict.get("order"), self._order()  # older checkpoints have none
        if there is not None and not state_dict["ended"]:
            changed = [f"{name} {there.get(name)} there, {value} here" for name, value in here.items()
                       if there.get(name) != value]  # fmt: skip
            if changed:
                raise UserError(
                    f"the checkpoint stands within epoch {position.epoch}, after {position.batches} batches, and the "
                    f"rest of it cannot be told under other settings ({'; '.join(changed)}), so that rows would be "
                    "seen twice or never: give the same ones, or take a checkpoint from an epoch's end"
                )
        self._resume_at = position

    def _order(self) -> dict[str, Any]:
        """All that the batches of an epoch and their order depend on, by the name of what sets it."""
        assert self.trainer is not None
        return {
            "data.seed": self.seed,
            "data.batch_size": self.batch_size if self.max_tokens_per_batch is None else None,
            "data.max_tokens_per_batch": self.max_tokens_per_batch,
            "layout": self.consumer.row_layout,
            "devices": self.trainer.world_size,
            "trainer.accumulate_grad_batches": self.trainer.accumulate_grad_batches,
            "training data": self.fingerprints.get("train"),
        }

    def train_dataloader(self) -> DataLoader[Any]:
        resume_at, self._resume_at = self._resume_at, None
        return self._loader("train", shuffle=True, resume_at=resume_at)

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        return self._loader("validation", shuffle=False) if "validation" in self.data else []

    # Test and predict read the same held-out data as validate: each subclass's arguments say which that is.
    test_dataloader = val_dataloader
    predict_dataloader = val_dataloader

    def ordered_loader(self, stage: Stage) -> DataLoader[Any] | None:
        """Every row of a stage once, on every rank, shortest first; None where there is no such data."""
        if stage not in self.data:
            return None
        data = self.data[stage]
        return batch_loader(data, BatchSampler(self._batching(data), shuffle=False, seed=0))

    def _loader(self, stage: Stage, shuffle: bool, resume_at: DataPosition | None = None) -> DataLoader[Any]:
        data, consumer, trainer = self.data[stage], self.consumer, self.trainer
        assert trainer is not None  # which `consumer` has seen to
        batching = self._batching(data)
        if trainer.is_global_zero:
            _tell_longer(stage, batching)
        settings: dict[str, Any] = {}
        if stage == "train":
            tokens = data.imitated_tokens if consumer.averages_tokens else None
            settings = {"steps": self._steps, "imitated_tokens": tokens, "resume_at": resume_at}
        overfit = trainer.overfit_batches > 0  # type: ignore[attr-defined]
        kind = BatchSampler if shuffle and not overfit else FixedBatchSampler
        sampler = kind(batching, shuffle, self.seed, trainer.global_rank, trainer.world_size, **settings)
        return batch_loader(data, sampler, self.num_workers)

    def _steps(self) -> Steps:
        assert self.trainer is not None
        return Steps(self.trainer.accumulate_grad_batches, self.trainer.num_training_batches)

    def _batching(self, data: TreeDataset[Any]) -> Batching:
        padded = self.consumer.row_layout != "packed"
        return Batching(data.lengths, self.batch_size, self.max_tokens_per_batch, padded)


def tell_left_out(source: str, name: str, rows: int, skipped: Mapping[str, Any], folder: Path) -> None:
    """Print which columns were not used and how many rows were skipped, and write the latter into the run folder.

    name: of the file there. skipped: as `SkippedRows.to_json` gives it.
    """
    tell_unused(skipped["unused_columns"])
    if skipped["counts"]:
        counts = ", ".join(f"{count:,} {reason}" for reason, count in skipped["counts"].items())
        print(f"{source}: {rows:,} rows; skipped rows: {counts}", flush=True)
        write_json(folder / f"skipped_rows_{name}.json", skipped)


def _tell_longer(stage: Stage, batching: Batching) -> None:
    """Print how many rows are longer than the token budget."""
    budget = batching.max_tokens
    longer = 0 if budget is None else int((batching.lengths_N > budget).sum())
    if longer:
        print(
            f"{stage}: {longer:,} of {len(batching.lengths_N):,} rows are longer than max_tokens_per_batch {budget:,}, "
            f"the longest {batching.lengths_N.max():,} tokens: each is a batch of its own; raise the budget, or "
            "shorten or drop such rows (data.limits)",
            flush=True,
        )
