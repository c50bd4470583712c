"""Items of endless splits: drawn one after another, put into a split by hashes, each prompt once.

A test split shares no composition with the others; validation and train share compositions and no item.
"""

import random
from collections.abc import Callable, Iterator
from hashlib import blake2b
from itertools import islice
from typing import Generic, Protocol, TypeVar

from lit_pref.types import Split

_TEST_PERCENT = 15  # of compositions
_VALIDATION_PERCENT = 10  # of the items of the other compositions
_MAX_MISSES = 200_000  # draws in a row without a new item: the split is used up


class Drawn(Protocol):
    @property
    def prompt(self) -> str: ...


Draft = TypeVar("Draft", bound=Drawn)
Item = TypeVar("Item")


class Splits(Generic[Draft]):
    """The splits of one task.

    draw: a draft; None where that did not work out.
    composition, item: what a draft is made of and all of it, as texts that decide its split.
    """

    def __init__(
        self,
        task: str,
        draw: Callable[[random.Random], Draft | None],
        composition: Callable[[Draft], str],
        item: Callable[[Draft], str],
    ) -> None:
        self.task, self._draw, self._composition, self._item = task, draw, composition, item

    def of(self, draft: Draft) -> Split:
        if percentile(self._composition(draft)) < _TEST_PERCENT:
            return "test"
        return "validation" if percentile(self._item(draft)) < _VALIDATION_PERCENT else "train"

    def items(self, split: Split, count: int, seed: int, finish: Callable[[Draft], Item | None]) -> list[Item]:
        """`count` items of distinct prompts; with a larger count the same ones come first.

        finish: makes an item of a draft, or None where it is not fit to be one. Raises ValueError where too few can be.
        """
        if count < 0:
            raise ValueError(f"count must be >= 0, got {count}")
        return list(islice(self._distinct(split, count, seed, finish), count))

    def _distinct(self, split: Split, count: int, seed: int, finish: Callable[[Draft], Item | None]) -> Iterator[Item]:
        found, misses, rng = set[str](), 0, random.Random(f"{self.task}:{split}:{seed}")
        while misses <= _MAX_MISSES:
            draft = self._draw(rng)
            if draft is None or self.of(draft) != split:
                continue
            item = None if draft.prompt in found else finish(draft)
            misses += 1
            if item is not None:
                found.add(draft.prompt)
                misses = 0
                yield item
        raise ValueError(f"split {split!r} of the {self.task} task has about {len(found)} items, {count} asked for")


def percentile(text: str) -> int:
    """A number in 0..99 that depends only on the text, equal on every machine and Python."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") % 100


def key(text: str) -> str:
    """16 hex digits that tell texts apart."""
    return blake2b(text.encode(), digest_size=8).hexdigest()
