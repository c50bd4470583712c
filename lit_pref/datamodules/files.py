"""Which file, folder or hub data set, and which split of it, the rows of each split come from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple

import numpy as np

from lit_pref.data.formats.prompts import prompt_identity
from lit_pref.data.formats.records import Record, RecordsRead
from lit_pref.data.formats.shares import check_share, rows_of_splits
from lit_pref.data.reading.rows import SkippedRows
from lit_pref.types import Split


@dataclass(frozen=True)  # no slots: jsonargparse reads a default instance through vars()
class SplitNames:
    """The splits of a folder or hub data set, or slices of them, of a file too: `train[:10%]`, `train_prefs[100:]`.

    Args:
        train: of `data.train`.
        validation: of `data.validation`; of `data.train` where no `data.validation` is given.
        test: likewise, of `data.test`.
    """

    train: str = "train"
    validation: str | None = None
    test: str | None = None


class NamedSource(NamedTuple):
    """A file, glob, folder or hub id, and which of its splits, or a slice of them."""

    source: str
    split: str


def named_sources(
    train: str | None, validation: str | None, test: str | None, splits: SplitNames
) -> dict[Split, NamedSource]:
    """Where the rows of each split come from; a split without a source of its own is one of the training data's."""
    named: dict[Split, NamedSource] = {}
    if train is not None:
        named["train"] = NamedSource(train, splits.train)
    others: dict[Split, tuple[str | None, str | None]] = {
        "validation": (validation, splits.validation),
        "test": (test, splits.test),
    }
    for split, (source, name) in others.items():
        if source is not None or (train is not None and name is not None):
            named[split] = NamedSource(source or train or "", name or split)
    return named


@dataclass
class FileRecords(Generic[Record]):
    """The records of each split, in memory; a split without a source of its own is held out of training's.

    read: all records of a source, each with a `prompt`.
    sizes: how much is held out, a share or a number of records; whole prompts.
    """

    named: Mapping[Split, NamedSource]
    sizes: Mapping[Split, int | float]
    seed: int
    read: Callable[[NamedSource], RecordsRead[Record]]
    _parts: dict[Split, RecordsRead[Any]] = field(default_factory=dict)  # of the training data

    def __post_init__(self) -> None:
        for split, size in self.sizes.items():
            check_share(split, size)

    def splits(self) -> list[Split]:
        held_out = [split for split, size in self.sizes.items() if size and "train" in self.named]
        return list({**self.named, **dict.fromkeys(held_out)})

    def source(self, split: Split) -> str:
        return self.named[split if split in self.named else "train"].source

    def of(self, split: Split) -> RecordsRead[Record]:
        owner: Split = split if split in self.named else "train"
        sizes = {each: size for each, size in self.sizes.items() if each not in self.named}
        if owner != "train" or not any(sizes.values()):
            return self.read(self.named[owner])
        if not self._parts:
            read = self.read(self.named["train"])
            prompts = np.array([prompt_identity(record.prompt) for record in read.records])  # type: ignore[attr-defined]
            for part, rows in rows_of_splits(prompts, sizes, self.seed).items():
                # What was skipped is told once, with the split that was read first.
                skipped = read.skipped if part == split else SkippedRows()
                self._parts[part] = RecordsRead([read.records[row] for row in rows], skipped)
        return self._parts[split]
