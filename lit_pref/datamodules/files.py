"""Which file, folder or hub data set, and which split of it, the rows of each split come from."""

from dataclasses import dataclass
from typing import NamedTuple

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
