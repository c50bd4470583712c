"""Preference pairs of a file or a task under a reward model: which side scores higher, and what the margin is worth.

Beside `HeldOutPairs`, which measures the data module's own validation pairs. Not covered: policies; limits of length.
"""

from collections.abc import Sequence

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from lit_pref.data.formats.pairs import PairKeys, read_pairs
from lit_pref.data.formats.write import stated_vocabulary, without_tokens
from lit_pref.data.reading.rows import tell_unused
from lit_pref.data.reading.sources import source_files
from lit_pref.data.tokens.encoding import vocabulary_fingerprint
from lit_pref.errors import UserError
from lit_pref.evaluation.base import Evaluation
from lit_pref.evaluation.held_out_pairs import pair_figures
from lit_pref.rewards.learned import Candidates, RewardModel, score
from lit_pref.types import PairTask, PreferencePair, Split


class PairAccuracy(Evaluation):
    """Share of pairs whose chosen side scores higher (strictly), with their margins and −log σ(margin).

    Args:
        pairs: a task that makes pairs, or a JSON Lines, JSON, CSV or Parquet file, a glob, a folder, or a hub id, in
            any of the formats that PairsDataModule reads.
        split: of the task, or within a folder or hub id.
        count: how many; null is all of a file, and what a task without end takes for it.
        seed: draws those of a task.
        keys: a file's key names where they are none of the known formats.
        prefix: stands before the figures' names, where a run measures several sets of pairs, as in `reclor/`.
    """

    def __init__(
        self,
        pairs: PairTask | str,
        split: Split = "test",
        count: int | None = None,
        seed: int = 0,
        keys: PairKeys | None = None,
        prefix: str = "",
    ) -> None:
        if count is not None and count < 1:
            raise ValueError(f"count must be >= 1, got {count}")
        self.pairs, self.split, self.count, self.seed = pairs, split, count, seed
        self.keys, self.prefix = keys, prefix

    def __call__(self, module: LightningModule) -> dict[str, Tensor]:
        if not isinstance(module, RewardModel):
            raise TypeError(f"PairAccuracy needs a reward model's module, got {type(module).__name__}")
        sides = [
            Candidates(pair.prompt, (pair.chosen, pair.rejected), (pair.chosen_ids, pair.rejected_ids))
            for pair in self._read(module)
        ]
        chosen_P, rejected_P = torch.stack(score(module, sides)).T
        return {f"{self.prefix}{name}": values for name, values in pair_figures(chosen_P, rejected_P).items()}

    def _read(self, module: RewardModel) -> Sequence[PreferencePair]:
        if isinstance(self.pairs, PairTask):
            return self.pairs.pairs(self.split, self.count, self.seed)
        pairs, skipped = read_pairs(self.pairs, self.split, self.keys)
        tell_unused(skipped.columns)
        if self.count is not None and self.count > len(pairs):
            raise UserError(f"{self.pairs}: holds {len(pairs)} pairs, {self.count} asked for")
        stated = {stated_vocabulary(file) for file in source_files(self.pairs, self.split) or ()}
        if stated - {None, vocabulary_fingerprint(module.tokenizer)}:
            pairs = [without_tokens(pair) for pair in pairs]
        return pairs[: self.count]
