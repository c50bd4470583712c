"""What all data modules share: each split made once and only where it is needed, loaders in a seeded order, a look at
rows without a fit, fingerprints for the run record."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.trainer.states import TrainerFn
from torch.utils.data import DataLoader

from lit_pref.data.batches.loading import BatchSampler, FixedBatchSampler, Steps, TreeDataset, batch_loader
from lit_pref.data.batches.order import Batching
from lit_pref.data.batches.position import DataPosition, last_step
from lit_pref.data.tokens.store import StoredTrees
from lit_pref.data.tokens.tokenize import fingerprint
from lit_pref.datamodules.policy import NamedPolicy, PolicyModule
from lit_pref.datamodules.telling import tell_longer, tell_rows
from lit_pref.errors import UserError
from lit_pref.types import Split, TokenTree


@dataclass(frozen=True)  # no slots: jsonargparse reads a default instance through vars()
class Loading:
    """How batches are filled and by whom they are put together.

    Args:
        max_tokens_per_batch: fill each batch with as many rows as take up to so many tokens, a prompt counted once,
            instead of batch_size; the loss stays a mean over rows, also of accumulated batches and of devices.
        num_workers: processes that collate batches; 0 is the main one, which is usually fastest.
    """

    max_tokens_per_batch: int | None = None
    num_workers: int = 0

    def __post_init__(self) -> None:
        if self.max_tokens_per_batch is not None and self.max_tokens_per_batch < 1:
            raise ValueError(f"max_tokens_per_batch must be >= 1, got {self.max_tokens_per_batch}")
        if self.num_workers < 0:
            raise ValueError(f"num_workers must be >= 0, got {self.num_workers}")


def run_seed() -> int:
    """The run's seed as `seed_everything` set it; 0 where it did not."""
    return int(os.environ.get("PL_GLOBAL_SEED", "0"))


class _TreeDataModule(LightningDataModule):
    """Loaders over the `TreeDataset` of each split, which a subclass's `_add` makes.

    policy: whose tokens to show without a fit; in a fit it is the module that is fed.
    batch_size: rows a batch and device.
    seed: of the order, and of what a subclass draws; None is the run's `seed_everything`.
    """

    def __init__(self, policy: str | None, batch_size: int, loading: Loading, seed: int | None) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"batch_size must be >= 1, got {batch_size}")
        if seed is not None and seed < 0:
            raise ValueError(f"seed must be >= 0, got {seed}")
        self.policy, self.batch_size, self.loading = policy, batch_size, loading
        self.seed = run_seed() if seed is None else seed
        self.data: dict[Split, TreeDataset] = {}
        self.fingerprints: dict[str, str] = {}
        self.counts: dict[str, Mapping[str, int]] = {}  # what became of each split's rows
        self._named: NamedPolicy | None = None
        self._made_for: PolicyModule | None = None
        self._resume_at: DataPosition | None = None

    # --- whom the data is for -----------------------------------------------------------------------------------------

    @property
    def module(self) -> PolicyModule:
        """The module that is being fed; without a fit, the named policy in its place."""
        if self.trainer is not None and self.trainer.lightning_module is not None:
            return self.trainer.lightning_module  # type: ignore[return-value]
        if self.policy is None:
            raise UserError(
                f"{type(self).__name__} makes tokens for a policy: run it through a Trainer, or name one, as in "
                f'{type(self).__name__}(..., policy="embedded:coder")'
            )
        if self._named is None:
            self._named = NamedPolicy(self.policy)
        return self._named

    @property
    def device(self) -> torch.device:
        """Where the module will train: what a data module computes with it is computed there."""
        return torch.get_default_device() if self.trainer is None else self.trainer.strategy.root_device

    @property
    def first(self) -> bool:
        """Whether this is the first process, which prints and writes."""
        return self.trainer is None or self.trainer.is_global_zero

    @property
    def world_size(self) -> int:
        return 1 if self.trainer is None else self.trainer.world_size

    @property
    def stage(self) -> str:
        """`fit`, `validate`, `test` or `predict`."""
        running = None if self.trainer is None else self.trainer.state.fn
        return "fit" if running is None else running.value

    def forget_other_module(self) -> None:
        """Drop what was made for another module: its tokenizer, its layout of batches, its samples."""
        if self._made_for is not self.module:
            self.data.clear()
            self.fingerprints.clear()
            self.counts.clear()
            self._made_for = self.module

    def _check_vocabulary(self, largest_id: int) -> None:
        """Raises UserError for a token that the model does not embed."""
        embedded, known = self.module.model.get_input_embeddings().weight.shape[0], len(self.module.tokenizer)
        if largest_id >= embedded:
            raise UserError(
                f"the token {largest_id} of the data is beyond the {embedded:,} that the model embeds, and the "
                f"tokenizer has {known:,}: choose a tokenizer and a model that belong together"
            )

    # --- splits -------------------------------------------------------------------------------------------------------

    def splits(self) -> Sequence[Split]:
        """Those that there is data of."""
        raise NotImplementedError

    def _add(self, split: Split) -> None:
        """Make a split's data and `_keep` it. All processes come here together."""
        raise NotImplementedError

    def setup(self, stage: str) -> None:
        for split in self.needed(stage):
            self.make(split)

    def make(self, split: Split) -> None:
        """Make a split's data unless it is there. All processes together, while the module has its first weights."""
        self.forget_other_module()
        if split not in self.data:
            self._add(split)

    def needed(self, stage: str) -> list[Split]:
        """What `fit`, `validate`, `test` or `predict` reads. Raises UserError where there is no such data."""
        there = self.splits()
        if stage == TrainerFn.FITTING:
            return [split for split in ("validation", "train") if split in there]
        wanted: Split = "validation" if stage == TrainerFn.VALIDATING else self._predicted(stage)
        if wanted not in there:
            raise UserError(f"no {wanted} data: give data.{wanted} or data.{wanted}_size")
        return [wanted]

    def _predicted(self, stage: str) -> Split:
        """Predictions are of the test data; where there is none, of the validation data."""
        there = self.splits()
        return "validation" if stage == TrainerFn.PREDICTING and "test" not in there else "test"

    def _keep(
        self,
        split: Split,
        kind: str,
        trees: Sequence[TokenTree],
        values: Sequence[float] | None,
        counts: Mapping[str, int],
    ) -> None:
        """kind, values: as of `TreeDataset`."""
        self.data[split] = TreeDataset(kind, trees, self.module.tokenizer.pad_token_id, self.module.row_layout, values)
        self.fingerprints[split] = trees.fingerprint if isinstance(trees, StoredTrees) else fingerprint(trees)
        self.counts[split] = counts

    def show(self, rows: int = 3, split: Split = "train") -> None:
        """Print a split's first rows as the model sees them, special tokens included, and what the limits cut."""
        if split in self.splits():
            self.make(split)
        if split not in self.data:
            raise UserError(f"no {split} data: give data.{split} or data.{split}_size")
        tell_rows(split, self.data[split], self.counts[split], self.module, rows)

    # --- going on within an epoch -------------------------------------------------------------------------------------

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
        max_tokens = self.loading.max_tokens_per_batch
        return {
            "data.seed": self.seed,
            "data.batch_size": self.batch_size if max_tokens is None else None,
            "data.loading.max_tokens_per_batch": max_tokens,
            "layout": self.module.row_layout,
            "devices": self.trainer.world_size,
            "trainer.accumulate_grad_batches": self.trainer.accumulate_grad_batches,
            "training data": self.fingerprints.get("train"),
        }

    # --- loaders ------------------------------------------------------------------------------------------------------

    def train_dataloader(self) -> DataLoader[Any]:
        resume_at, self._resume_at = self._resume_at, None
        return self._loader("train", resume_at)

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        return self._loader("validation") if "validation" in self.data else []

    def test_dataloader(self) -> DataLoader[Any]:
        return self._loader("test")

    def predict_dataloader(self) -> DataLoader[Any]:
        return self._loader(self._predicted(TrainerFn.PREDICTING))

    def ordered_loader(self, split: Split) -> DataLoader[Any] | None:
        """Every row of a split once, on every rank, shortest first; None where there is no such data."""
        if split not in self.data:
            return None
        data = self.data[split]
        return batch_loader(data, BatchSampler(self._batching(data), shuffle=False, seed=0))

    def _loader(self, split: Split, resume_at: DataPosition | None = None) -> DataLoader[Any]:
        data, trainer, training = self.data[split], self.trainer, split == "train"
        batching = self._batching(data)
        if self.first:
            tell_longer(split, batching)
        settings: dict[str, Any] = {}
        if training:
            tokens = data.imitated_tokens if self.module.averages_tokens else None
            settings = {"imitated_tokens": tokens, "resume_at": resume_at}
        overfit, rank = False, 0
        if trainer is not None:
            settings |= {"steps": self._steps} if training else {}
            overfit, rank = trainer.overfit_batches > 0, trainer.global_rank  # type: ignore[attr-defined]
        kind = BatchSampler if training and not overfit else FixedBatchSampler
        sampler = kind(batching, training, self.seed, rank, self.world_size, **settings)
        return batch_loader(data, sampler, self.loading.num_workers)

    def _steps(self) -> Steps:
        assert self.trainer is not None
        return Steps(self.trainer.accumulate_grad_batches, self.trainer.num_training_batches)

    def _batching(self, data: TreeDataset) -> Batching:
        padded = self.module.row_layout != "packed"
        return Batching(data.lengths, self.batch_size, self.loading.max_tokens_per_batch, padded)


def sizes_of(train: int | None, validation: int | None, test: int | None) -> dict[Split, int | None]:
    """Items of each split of a task, without those of which none are wanted; None is all. Raises ValueError below 0."""
    sizes: dict[Split, int | None] = dict(zip(get_args(Split), (train, validation, test), strict=True))
    for split, size in sizes.items():
        if size is not None and size < (split == "train"):
            raise ValueError(f"{split}_size must be >= {int(split == 'train')}, got {size}")
    return {split: size for split, size in sizes.items() if size != 0}
