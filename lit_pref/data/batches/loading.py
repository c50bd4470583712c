"""Token trees to batches in a seeded order: a data set that is asked for whole batches, and the sampler that asks.

The order is a function of (seed, epoch, rank, world size); every row comes once an epoch, and every rank gets the same
number of batches. A resumed run continues with the very next one. Each batch knows its weight in its optimizer step.
Not covered: which rows make up a batch (`order.py`).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from torch.utils.data import DataLoader, Dataset, SequentialSampler
from torch.utils.data.distributed import DistributedSampler

from lit_pref.data.batches.order import Batches, Batching
from lit_pref.data.batches.packing import collate_rows, lay_out
from lit_pref.data.batches.position import DataPosition
from lit_pref.data.tokens.store import StoredTrees
from lit_pref.types import RowBatch, RowLayout, StepWeight, TokenTree


@dataclass
class TreeDataset(Dataset[RowBatch]):
    """Rows that are read a batch at a time: `data[BatchRows([3, 1])]` is the batch of rows 3 and 1.

    kind: what a row is: "pair", "demonstration", ...
    values: what the data says of each row, as a pair's margin; None where not every row has one.
    """

    kind: str
    trees: Sequence[TokenTree]
    pad_id: int
    layout: RowLayout
    values: Sequence[float] | None = None
    lengths: npt.NDArray[np.int32] = field(init=False)  # tokens of each tree with its prompt counted once

    def __post_init__(self) -> None:
        if isinstance(self.trees, StoredTrees):  # they know theirs without being read
            self.lengths = self.trees.lengths
        else:
            self.lengths = np.fromiter((tree.shared_length for tree in self.trees), np.int32, len(self.trees))

    def __len__(self) -> int:
        return len(self.trees)

    def __getitem__(self, batch: "BatchRows") -> RowBatch:
        rows = lay_out([self.trees[row] for row in batch.rows], self.layout)
        values = None if self.values is None else [self.values[row] for row in batch.rows]
        made = collate_rows(self.kind, rows, batch.rows, self.pad_id, values, self.layout != "repeated")
        return made._replace(weight=batch.weight)

    def imitated_tokens(self, row: int) -> int:
        """How many of a row's tokens a language-model loss is the mean over: those of its first completion."""
        if isinstance(self.trees, StoredTrees):
            return self.trees.completion_lengths(row)[0]
        return len(self.trees[row].completion_ids[0])


class BatchRows(NamedTuple):
    """What a sampler asks a data set for."""

    rows: Sequence[int]
    weight: StepWeight = StepWeight()


class Steps(NamedTuple):
    """How a run takes a rank's batches: `accumulate` to an optimizer step, and so many of an epoch at most."""

    accumulate: int = 1
    limit: float = math.inf


class BatchSampler(DistributedSampler[BatchRows]):
    """A rank's batches of an epoch, the same number on every rank and in every epoch.

    A DistributedSampler by type, so that Lightning neither replaces it nor forgets to tell it the epoch.
    steps: asked at the start of each epoch, since callbacks may change it.
    imitated_tokens: of a row; None where no loss is a mean over tokens: `weight.tokens` is then NaN where it matters.
    resume_at: where an earlier run stopped; the rest of that epoch comes without what it has seen.
    """

    def __init__(
        self,
        batching: Batching,
        shuffle: bool,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        steps: Callable[[], Steps] = Steps,
        imitated_tokens: Callable[[int], int] | None = None,
        resume_at: DataPosition | None = None,
    ) -> None:
        self.batching, self.shuffle, self.seed = batching, shuffle, seed
        self.rank, self.world_size, self.steps = rank, world_size, steps
        self.imitated_tokens = imitated_tokens
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
        batches, steps = self._batches(), self.steps()
        resumed = self.resume_at is not None and self.resume_at.epoch == self.epoch
        first = self.resume_at.batches if self.resume_at is not None and resumed else 0
        for start in range(first - first % steps.accumulate, len(self), steps.accumulate):
            step = range(start, int(min(start + steps.accumulate, len(self), steps.limit)))
            yield from islice(self._step(batches, step, steps.accumulate), max(0, first - start), None)

    def _step(self, batches: Batches, step: range, accumulate: int) -> Iterator[BatchRows]:
        """The rank's batches of an optimizer step, given their numbers in the epoch."""
        everyone = range(step.start * self.world_size, min(step.stop * self.world_size, len(batches)))
        # Lightning divides by `accumulate` also where the last step has fewer batches.
        places = accumulate * self.world_size
        mean_rows = sum(map(batches.size, everyone)) / places
        tokens = [self._tokens(batches[place]) for place in everyone]
        mean_tokens = sum(tokens) / places
        for place in range(step.start * self.world_size + self.rank, step.stop * self.world_size, self.world_size):
            if place in everyone:
                of_tokens = tokens[place - everyone.start] / mean_tokens
                yield BatchRows(batches[place], StepWeight(batches.size(place) / mean_rows, of_tokens))
            else:  # a rank without a batch would leave the others waiting
                yield BatchRows([int(self.batching.lengths_N.argmin())], StepWeight(0.0, 0.0))

    def _tokens(self, rows: Sequence[int]) -> float:
        return math.nan if self.imitated_tokens is None else sum(map(self.imitated_tokens, rows))

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


class FixedBatchSampler(BatchSampler, SequentialSampler):  # type: ignore[misc]
    """The same batches in the same order in every epoch; a SequentialSampler by type, as `overfit_batches` wants it."""

    def set_epoch(self, epoch: int) -> None:
        """Nothing: every epoch is the first one."""


class BatchLoader(DataLoader[RowBatch]):
    """A DataLoader whose items are whole batches, and whose order is settled when the first one is asked for."""

    def __iter__(self) -> Iterator[RowBatch]:  # type: ignore[override]
        # A resumed Lightning run asks for the iterator before it tells the sampler which epoch it is in.
        yield from super().__iter__()

    # With these two, Lightning knows that it can be resumed within an epoch; the data module keeps the position, since
    # Lightning forgets to load what a loader keeps where a learning-rate schedule has asked for the loader's length.
    def state_dict(self) -> dict[str, int]:
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Nothing: see above."""


def batch_loader(data: TreeDataset, sampler: BatchSampler, num_workers: int = 0) -> BatchLoader:
    """A DataLoader whose items are whole batches."""
    return BatchLoader(
        data,
        batch_size=None,
        sampler=sampler,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=False,
    )
