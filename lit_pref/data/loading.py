"""Token trees to batches in a seeded order: a data set that is asked for whole batches, and the sampler that asks.

The order is a function of (seed, epoch, rank, world size), and every rank gets the same number of batches; a resumed
run goes on with the very next one. Not covered: which rows make up a batch (`order.py`).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.distributed import DistributedSampler

from lit_pref.data.order import Batches, Batching
from lit_pref.data.packing import collate_pairs, collate_trees, lay_out
from lit_pref.data.position import DataPosition
from lit_pref.data.token_store import StoredTrees
from lit_pref.types import PairBatch, RowLayout, TokenTree, TreeBatch

Batch = TypeVar("Batch")
Collate = Callable[["BatchRows", Sequence[TokenTree]], Batch]
"""(row numbers and weight, their trees) to a batch."""


@dataclass(frozen=True)
class PairCollate:
    """Rows of pairs to a `PairBatch`."""

    pad_id: int
    layout: RowLayout
    margins: Sequence[float] | None = None

    def __call__(self, batch: "BatchRows", trees: Sequence[TokenTree]) -> PairBatch:
        margins = None if self.margins is None else [self.margins[row] for row in batch.rows]
        pairs = collate_pairs(lay_out(trees, self.layout), batch.rows, self.pad_id, margins, self.layout != "repeated")
        return pairs._replace(weight=batch.weight)


@dataclass(frozen=True)
class TreeCollate:
    """Trees of any number of completions to a `TreeBatch`."""

    pad_id: int
    layout: RowLayout

    def __call__(self, batch: "BatchRows", trees: Sequence[TokenTree]) -> TreeBatch:
        return collate_trees(lay_out(trees, self.layout), self.pad_id, self.layout != "repeated")


@dataclass
class TreeDataset(Dataset[Batch], Generic[Batch]):
    """Token trees that are read a batch at a time: `data[BatchRows([3, 1])]` is the batch of rows 3 and 1."""

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

    def __getitem__(self, batch: "BatchRows") -> Batch:
        return self.collate(batch, [self.trees[row] for row in batch.rows])


class BatchRows(NamedTuple):
    """What a sampler asks a data set for.

    weight: of the batch's mean loss, such that the mean over an optimizer step's batches on all ranks is the mean over
        the step's rows; 1 where these batches are of one size.
    """

    rows: Sequence[int]
    weight: float = 1.0


class BatchSampler(DistributedSampler[BatchRows]):
    """A rank's batches of an epoch, the same number on every rank and in every epoch.

    A DistributedSampler by type, so that Lightning neither replaces it nor forgets to tell it the epoch.
    accumulate: batches that a rank takes to an optimizer step.
    resume_at: where an earlier run stopped; the rest of that epoch comes without what it has seen.
    """

    def __init__(
        self,
        batching: Batching,
        shuffle: bool,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        accumulate: int = 1,
        resume_at: DataPosition | None = None,
    ) -> None:
        self.batching, self.shuffle, self.seed = batching, shuffle, seed
        self.rank, self.world_size, self.accumulate = rank, world_size, accumulate
        self.epoch, self.resume_at = 0, resume_at
        self._made: tuple[int, Batches] | None = None
        self._count: int | None = None  # of batches, where orders could differ in it
        if shuffle and batching.max_tokens is not None:
            most = max(len(batching.shuffled(self._random(0))), batching.count_for_any_order())
            self._count = -(-most // world_size) * world_size

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self._batches()) // self.world_size)

    def __iter__(self) -> Iterator[BatchRows]:
        batches = self._batches()
        resumed = self.resume_at is not None and self.resume_at.epoch == self.epoch
        first = self.resume_at.batches if self.resume_at is not None and resumed else 0
        # Whole rounds only: a rank without a batch would leave the others waiting. The first batches come again.
        places = (step * self.world_size + self.rank for step in range(first, len(self)))
        for place in places:
            yield BatchRows(batches[place % len(batches)], self._weight(batches, place))

    def _weight(self, batches: Batches, place: int) -> float:
        in_step = self.world_size * self.accumulate
        start = place // in_step * in_step
        step = range(start, min(start + in_step, len(self) * self.world_size))
        rows = sum(batches.size(each % len(batches)) for each in step)
        # Lightning divides by `accumulate` also where the last step has fewer batches.
        return batches.size(place % len(batches)) * in_step / rows

    def _batches(self) -> Batches:
        epoch = self.epoch if self.shuffle else 0
        if self._made is None or self._made[0] != epoch:
            made = (
                self.batching.shuffled(self._random(epoch), self._count) if self.shuffle else self.batching.in_order()
            )
            self._made = (epoch, made)
        return self._made[1]

    def _random(self, epoch: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, epoch])


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


def batch_loader(data: TreeDataset[Batch], sampler: BatchSampler, num_workers: int = 0) -> BatchLoader[Batch]:
    """A DataLoader whose items are whole batches."""
    return BatchLoader(
        data,
        batch_size=None,
        sampler=sampler,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=False,
    )
