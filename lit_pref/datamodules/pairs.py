"""Preference pairs from files, globs, folders and the hub, in the row formats of the field.

Streaming is not covered: all pairs are tokenized before the first step.
"""

import random
from pathlib import Path

from lit_pref.data.formats import PairKeys, PairsRead, read_pairs
from lit_pref.data.lengths import LengthLimits
from lit_pref.data.loading import PairCollate, TreeDataset
from lit_pref.data.shards import write_json
from lit_pref.data.sources import OnBadRow
from lit_pref.data.tokenize import fingerprint, tokenize_pairs
from lit_pref.datamodules.trees import Stage, _TreeDataModule
from lit_pref.errors import UserError
from lit_pref.types import PreferencePair


class PairsDataModule(_TreeDataModule):
    """Pairs of a chosen and a rejected response to one prompt.

    Args:
        train: a JSON Lines, JSON, CSV or Parquet file, a glob, a folder, or a hub id.
        validation: likewise; None holds out a share of `train` at random.
        validation_share: how much that is, in [0, 1).
        keys: the rows' key names where they are none of the known formats.
        limits: lengths in tokens, and what becomes of longer pairs.
        on_bad_row: stop at the first row that cannot be used, or skip such rows, count them by reason and write the
            counts into the run folder.
        batch_size: pairs a batch and device.
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
        seed: int | None = None,
        num_workers: int = 0,
    ) -> None:
        super().__init__(batch_size, seed, num_workers)
        if not 0 <= validation_share < 1:
            raise ValueError(f"validation_share must be in [0, 1), got {validation_share}")
        self.train, self.validation, self.validation_share = train, validation, validation_share
        self.keys, self.limits, self.on_bad_row = keys, limits, on_bad_row

    def setup(self, stage: str) -> None:
        self._forget_other_consumer()
        if self.data:
            return
        pairs = self._read(self.train, "train")
        if self.validation is not None:
            held_out = self._read(self.validation, "validation")
        else:
            count = round(self.validation_share * len(pairs))
            random.Random(self.seed).shuffle(pairs)
            held_out, pairs = pairs[:count], pairs[count:]
        self._add("train", pairs)
        if held_out:
            self._add("eval", held_out)

    def _read(self, source: str, split: str) -> list[PreferencePair]:
        read: PairsRead = read_pairs(source, split, self.keys, self.on_bad_row)
        if read.skipped.counts:
            counts = ", ".join(f"{count:,} {reason}" for reason, count in read.skipped.counts.items())
            print(f"{source}: {len(read.pairs):,} pairs; skipped rows: {counts}", flush=True)
            if self.trainer is not None and self.trainer.is_global_zero:
                folder = Path(self.trainer.default_root_dir)
                write_json(folder / f"skipped_rows_{split}.json", read.skipped.to_json())
        return read.pairs

    def _add(self, stage: Stage, pairs: list[PreferencePair]) -> None:
        tokenized = tokenize_pairs(pairs, self.consumer.tokenizer, self.limits)
        if not tokenized.trees:
            source = self.validation if stage == "eval" and self.validation is not None else self.train
            raise UserError(f"no pair of {source} is left to train on or to validate with: {tokenized.counts}")
        collate = PairCollate(self.consumer.tokenizer.pad_token_id, self.consumer.row_layout, tokenized.margins)
        self.data[stage] = TreeDataset(tokenized.trees, collate)
        self.fingerprints[stage] = fingerprint(tokenized.trees)
        if len(tokenized.trees) < len(pairs):
            print(f"{stage}: {len(tokenized.trees):,} pairs, {tokenized.counts}", flush=True)
