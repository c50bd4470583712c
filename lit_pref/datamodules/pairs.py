"""Preference pairs from files, globs, folders and the hub, in the row formats of the field.

All pairs are tokenized before the first step, once. Not covered: endless sources.
"""

from lit_pref.data.formats.pairs import PairKeys
from lit_pref.data.reading.sources import OnBadRow
from lit_pref.data.tokens.cache import PairSource
from lit_pref.data.tokens.lengths import LengthLimits
from lit_pref.datamodules.files import SplitNames, named_sources
from lit_pref.datamodules.stored_pairs import _StoredPairsDataModule
from lit_pref.datamodules.trees import Loading
from lit_pref.types import Split


class PairsDataModule(_StoredPairsDataModule):
    """Pairs of a chosen and a rejected response to one prompt.

    Args:
        train: a JSON Lines, JSON, CSV or Parquet file, a glob, a folder, or a hub id.
        validation: likewise; None holds out some of `train`, whole prompts drawn with numpy from `seed`.
        test: likewise.
        splits: of a folder or hub data set, or slices of them.
        validation_size: how much of `train` is held out for validation: a share in [0, 1), above 0 at least one prompt,
            or a number of pairs.
        test_size: likewise, for test.
        keys: the rows' key names where they are none of the known formats.
        template: what a prompt of text is put into, with {query} in its place; none takes it as it is.
        limits: lengths in tokens, and what becomes of longer pairs. Where a prompt fills the length, both sides would
            be equal: such pairs are dropped and counted.
        on_bad_row: stop at the first row that cannot be used, or skip such rows, count them by reason and write the
            counts into the run folder.
        policy: whose tokens to show without a fit; in a fit it is the module's.
        batch_size: pairs a batch and device.
        loading: batches of so many tokens instead, and worker processes.
        seed: of the order and of what is held out; None is the run's `seed_everything`.
    """

    def __init__(
        self,
        train: str,
        validation: str | None = None,
        test: str | None = None,
        splits: SplitNames = SplitNames(),  # noqa: B008 - frozen
        validation_size: int | float = 0.05,
        test_size: int | float = 0,
        keys: PairKeys | None = None,
        template: str | None = None,
        limits: LengthLimits = LengthLimits(),  # noqa: B008 - frozen
        on_bad_row: OnBadRow = "error",
        policy: str | None = None,
        batch_size: int = 32,
        loading: Loading = Loading(),  # noqa: B008 - frozen
        seed: int | None = None,
    ) -> None:
        named = named_sources(train, validation, test, splits)
        super().__init__(named, validation_size, test_size, policy, batch_size, loading, seed)
        if template is not None and "{query}" not in template:
            raise ValueError(f"template must hold {{query}}, got {template!r}")
        self.keys, self.template, self.limits, self.on_bad_row = keys, template, limits, on_bad_row

    def _source(self, split: Split) -> PairSource:
        ends = self.module.append_eos
        return PairSource(*self.named[split], self.keys, self.limits, self.on_bad_row, ends, self.template)
