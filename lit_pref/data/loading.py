"""Token trees to batches in a seeded order: a data set that is asked for whole batches, and the sampler that asks.

The order is a function of (seed, epoch, rank, world size), and every rank gets the same number of batches; a resumed
run goes on with the very next one. Not covered: filling rows to a token budget.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.distributed import DistributedSampler

from lit_pref.data.packing import collate_pairs, collate_trees, lay_out
from lit_pref.data.token_store import StoredTrees
from lit_pref.types import PairBatch, RowLayout, TokenTree, TreeBatch

Batch = TypeVar("Batch")
Collate = Callable[[Sequence[int], Sequence[TokenTree]], Batch]
"""(row numbers, their trees) to a batch."""


@dataclass(frozen=True)
class PairCollate:
    """Rows of pairs to a `PairBatch`."""

    pad_id: int
    layout: RowLayout
    margins: Sequence[float] | None = None

    def __call__(self, rows: Sequence[int], trees: Sequence[TokenTree]) -> PairBatch:
        margins = None if self.margins is None else [self.margins[row] for row in rows]
        return collate_pairs(lay_out(trees, self.layout), rows, self.pad_id, margins, self.layout != "repeated")


@dataclass(frozen=True)
class TreeCollate:
    """Trees of any number of completions to a `TreeBatch`."""

    pad_id: int
    layout: RowLayout

    def __call__(self, rows: Sequence[int], trees: Sequence[TokenTree]) -> TreeBatch:
        return collate_trees(lay_out(trees, self.layout), self.pad_id, self.layout != "repeated")


@dataclass
class TreeDataset(Dataset[Batch], Generic[Batch]):
    """Token trees that are read a batch at a time: `data[[3, 1]]` is the batch of rows 3 and 1."""

    trees: Sequence[TokenTree]
    collate: Collate[Batch]
    lengths: npt.NDArray[np.int32] = field(init=False)  # tokens of each tree with its prompt counted once

    def __post_init__(self) -> None:
        if isinstance(self.trees, StoredTrees):  # they know theirs without being read
            self.lengths = self.trees.lengths
        else:
            self.lengths = np.fromiter((tree.shared_length for tree in self.trees), np.int32, len(self.trees))

    def __len__(self) -> int:
        return len(self.trees)

    def __getitem__(self, rows: Sequence[int]) -> Batch:
        return self.collate(rows, [self.trees[row] for row in rows])


class DataPosition(NamedTuple):
    """How far a run has come: batches of an epoch that a rank has trained on."""

    epoch: int
    batches: int


class LengthWindowBatches(DistributedSampler[list[int]]):
    """Batches of rows of like length: shuffled rows, sorted within windows, their batches shuffled again.

    A DistributedSampler by type, so that Lightning neither replaces it nor forgets to tell it the epoch.
    window: batches that are sorted together; more pads less, fewer mixes better.
    resume_at: where an earlier run stopped; the rest of that epoch comes without what it has seen.
    """

    def __init__(
        self,
        lengths: npt.ArrayLike,
        batch_size: int,
        shuffle: bool,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        window: int = 16,
        resume_at: DataPosition | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be >= 1, got {batch_size}")
        self.lengths = np.asarray(lengths)
        self.batch_size, self.shuffle, self.seed = batch_size, shuffle, seed
        self.rank, self.world_size, self.window = rank, world_size, window
        self.epoch, self.resume_at = 0, resume_at

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.lengths) // (self.batch_size * self.world_size))

    def __iter__(self) -> Iterator[list[int]]:
        batches = self._all_batches()
        resumed = self.resume_at is not None and self.resume_at.epoch == self.epoch
        first = self.resume_at.batches if self.resume_at is not None and resumed else 0
        # Whole rounds only: a rank without a batch would leave the others waiting. The first batches come again.
        return iter([batches[(step * self.world_size + self.rank) % len(batches)] for step in range(first, len(self))])

    def _all_batches(self) -> list[list[int]]:
        if not self.shuffle:
            order = np.argsort(self.lengths, kind="stable")
            return self._cut(order)
        random = np.random.default_rng([self.seed, self.epoch])
        order = random.permutation(len(self.lengths))
        size = self.batch_size * self.window
        batches = []
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            batches += self._cut(rows[np.argsort(self.lengths[rows], kind="stable")])
        return [batches[place] for place in random.permutation(len(batches))]

    def _cut(self, rows: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> list[list[int]]:
        return [rows[start : start + self.batch_size].tolist() for start in range(0, len(rows), self.batch_size)]


class BatchLoader(DataLoader[Batch]):
    """A DataLoader whose items are whole batches, and whose order is settled when the first one is asked for."""

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        # A resumed Lightning run asks for the iterator before it tells the sampler which epoch it is in.
        yield from super().__iter__()

    # With these two, Lightning knows that it can be resumed within an epoch; the data module keeps the position, since
    # Lightning forgets to load what a loader keeps where a learning-rate schedule has asked for the loader's length.
    def state_dict(self) -> dict[str, int]:
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Nothing: see above."""


def batch_loader(data: TreeDataset[Batch], sampler: LengthWindowBatches, num_workers: int = 0) -> BatchLoader[Batch]:
    """A DataLoader whose items are whole batches."""
    return BatchLoader(
        data,
        batch_size=None,
        sampler=sampler,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=False,
    )
