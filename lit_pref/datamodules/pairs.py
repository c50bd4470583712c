"""Preference pairs from files, globs, folders and the hub, in the row formats of the field.

All pairs are tokenized before the first step, once. Not covered: endless sources.
"""

from lit_pref.data.formats import PairKeys
from lit_pref.data.lengths import LengthLimits
from lit_pref.data.sources import OnBadRow
from lit_pref.data.token_cache import PairSource
from lit_pref.datamodules.stored_pairs import _StoredPairsDataModule
from lit_pref.types import Split


class PairsDataModule(_StoredPairsDataModule):
    """Pairs of a chosen and a rejected response to one prompt.

    Args:
        train: a JSON Lines, JSON, CSV or Parquet file, a glob, a folder, or a hub id.
        validation: likewise; None holds out a share of `train` at random, drawn with numpy from `seed`.
        validation_share: how much that is, in [0, 1).
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
    ) -> None:
        super().__init__(validation_share, batch_size, max_tokens_per_batch, seed, num_workers)
        self.train, self.validation = train, validation
        self.keys, self.limits, self.on_bad_row = keys, limits, on_bad_row

    def _sources(self) -> dict[Split, PairSource]:
        named: dict[Split, str | None] = {"train": self.train, "validation": self.validation}
        return {
            split: PairSource(source, split, self.keys, self.limits, self.on_bad_row, self.consumer.append_eos)
            for split, source in named.items()
            if source is not None
        }
