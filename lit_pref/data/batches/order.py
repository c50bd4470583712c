"""Which rows make up which batch: rows of like length, as many as are asked for or as a token budget holds.

Shuffled rows are taken a window at a time, sorted by length and cut into batches, so that little is padded. Under a
budget, trees that lie one after another fill it best-fit, longest first; the emptiest batch of each window is carried
over to the next. Not covered: which rank sees which batch, and where an epoch is resumed (`loading.py`).
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from lit_pref.data.batches.packing import pack_rows

Rows: TypeAlias = npt.NDArray[np.int32]
Lengths: TypeAlias = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Batches:
    """Row numbers, batch after batch; 4 bytes a row."""

    rows_N: Rows
    ends_B: npt.NDArray[np.int64]

    @classmethod
    def of(cls, groups: Sequence[Rows]) -> "Batches":
        sizes = np.fromiter(map(len, groups), np.int64, len(groups))
        return cls(np.concatenate(groups) if groups else np.empty(0, np.int32), np.cumsum(sizes))

    def __len__(self) -> int:
        return len(self.ends_B)

    def __getitem__(self, batch: int) -> list[int]:
        end = self.ends_B[range(len(self))[batch]]
        return self.rows_N[end - self.size(batch) : end].tolist()  # type: ignore[no-any-return]

    def size(self, batch: int) -> int:
        return int(self.ends_B[batch] - (self.ends_B[batch - 1] if batch else 0))


@dataclass(frozen=True)
class Batching:
    """How much a batch holds: `batch_size` rows, or what fits into `max_tokens`.

    lengths_N: tokens of each row, its prompt counted once.
    padded: a batch's rows are padded to its longest, and so count as many tokens; False if they lie one
        after another. A row that is longer than the budget is a batch of its own.
    window: batches that are sorted together; more pads less, fewer mixes better.
    """

    lengths_N: Lengths
    batch_size: int
    max_tokens: int | None = None
    padded: bool = True
    window: int = 16

    def __post_init__(self) -> None:
        for name in ("batch_size", "max_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be >= 1, got {value}")

    def in_order(self) -> Batches:
        """Every row once, shortest first."""
        order = np.argsort(self.lengths_N, kind="stable").astype(np.int32)
        return Batches.of(self._cut_in_order(order))

    def shuffled(self, random: np.random.Generator, count: int | None = None) -> Batches:
        """Every row once, in random batches in random order.

        count: how many batches it shall be, at least `count_for_any_order()`: the largest are halved.
        """
        order = random.permutation(len(self.lengths_N)).astype(np.int32)
        groups = self._by_windows(order)
        if count is not None and len(groups) > count:
            groups = self._cut(order)  # one window: as few batches as in any other order
        if count is not None:
            _halve_largest(groups, count)
        return Batches.of([groups[place] for place in random.permutation(len(groups))])

    def count_for_any_order(self) -> int:
        """Batches into which the rows can be cut however they are shuffled."""
        # Best fit and cutting in order see only the sorted lengths: shuffling changes no count.
        return len(self._cut(np.arange(len(self.lengths_N), dtype=np.int32)))

    def _by_windows(self, order: Rows) -> list[Rows]:
        size = self.batch_size
        if self.max_tokens is not None and len(order):
            size = max(1, int(self.max_tokens / self.lengths_N.mean()))
        groups, waiting = [], order[:0]
        starts = range(0, len(order), size * self.window)
        for start in starts:
            window = np.concatenate([waiting, order[start : start + size * self.window]])
            cut = self._cut(window)
            if self.max_tokens is not None and start != starts[-1]:
                waiting = cut.pop(min(range(len(cut)), key=lambda place: int(self.lengths_N[cut[place]].sum())))
            groups += cut
        return groups

    def _cut(self, rows: Rows) -> list[Rows]:
        if self.max_tokens is None or self.padded:
            return self._cut_in_order(rows[np.argsort(self.lengths_N[rows], kind="stable")])
        fitting = np.minimum(self.lengths_N[rows], self.max_tokens)
        return [rows[places] for places in pack_rows(fitting.tolist(), self.max_tokens)]

    def _cut_in_order(self, rows: Rows) -> list[Rows]:
        """rows: shortest first."""
        if self.max_tokens is None:
            return [rows[start : start + self.batch_size] for start in range(0, len(rows), self.batch_size)]
        cuts, start, filled = [0], 0, 0
        for place, length in enumerate(self.lengths_N[rows].tolist()):
            filled = length * (place - start + 1) if self.padded else filled + length
            if filled > self.max_tokens and place > start:
                cuts.append(place)
                start, filled = place, length
        return [rows[a:b] for a, b in zip(cuts, [*cuts[1:], len(rows)], strict=True) if b > a]


def _halve_largest(groups: list[Rows], count: int) -> None:
    """Until there are `count`, or only single rows, in place."""
    largest = [(-len(group), place) for place, group in enumerate(groups)]
    heapq.heapify(largest)
    while len(groups) < count and largest and largest[0][0] < -1:
        _, place = heapq.heappop(largest)
        half = groups[place][::2]
        groups.append(groups[place][1::2])
        groups[place] = half
        for changed in (place, len(groups) - 1):
            heapq.heappush(largest, (-len(groups[changed]), changed))
