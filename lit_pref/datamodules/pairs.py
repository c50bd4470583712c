"""Preference pairs from files, globs, folders and the hub, in the row formats of the field.

All pairs are tokenized before the first step, once. Not covered: endless sources.
"""

from lit_pref.data.formats.pairs import PairKeys
from lit_pref.data.reading.sources import OnBadRow
from lit_pref.data.tokens.cache import PairSource
from lit_pref.data.tokens.lengths import LengthLimits
from lit_pref.datamodules.stored_pairs import _StoredPairsDataModule
from lit_pref.datamodules.trees import Stage, named_sources
from lit_pref.types import Split


class PairsDataModule(_StoredPairsDataModule):
    """Pairs of a chosen and a rejected response to one prompt.

    Args:
        train: a JSON Lines, JSON, CSV or Parquet file, a glob, a folder, or a hub id.
        validation: likewise; None holds out a share of `train`, whole prompts drawn with numpy from `seed`.
        validation_share: how much that is, in [0, 1); above 0 at least one prompt.
        train_split: of a folder or hub data set; or a slice, of a file too, as in `train[:10%]` or `train_prefs[100:]`.
        validation_split: likewise, of `validation`, or of `train` where no `validation` is given.
        keys: the rows' key names where they are none of the known formats.
        limits: lengths in tokens, and what becomes of longer pairs.
        on_bad_row: stop at the first row that cannot be used, or skip such rows, count them by reason and write the
            counts into the run folder.
        batch_size: pairs a batch and device.
        max_tokens_per_batch: fill each batch with as many pairs as take up to so many tokens, a prompt counted once,
            instead of batch_size; the loss stays a mean over pairs, also of accumulated batches and of devices.
        seed: of the order and of what is held out; None is the run's `seed_everything`.
        num_workers: processes that collate batches; 0 is the main one, which is usually fastest.
    """

    def __init__(
        self,
        train: str,
        validation: str | None = None,
        validation_share: float = 0.05,
        keys: PairKeys | None = None,
        limits: LengthLimits = LengthLimits(),  # noqa: B008 - frozen
        on_bad_row: OnBadRow = "error",
        batch_size: int = 32,
        max_tokens_per_batch: int | None = None,
        seed: int | None = None,
        num_workers: int = 0,
        train_split: str = "train",
        validation_split: str | None = None,
    ) -> None:
        super().__init__(validation_share, batch_size, max_tokens_per_batch, seed, num_workers)
        self.named = named_sources(train, validation, train_split, validation_split)
        self.keys, self.limits, self.on_bad_row = keys, limits, on_bad_row

    def _sources(self) -> dict[Split, PairSource]:
        ends = self.consumer.append_eos
        splits: dict[Stage, Split] = {"train": "train", "validation": "validation"}
        return {
            splits[stage]: PairSource(named.source, named.split, self.keys, self.limits, self.on_bad_row, ends)
            for stage, named in self.named.items()
        }
