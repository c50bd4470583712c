"""Code pairs of the embedded world for preference-model pretraining (CodePMP, arXiv 2410.02229).

A strong and a weak embedded model answer the descriptions of a task, once; later runs find the samples again. A file of
`query, better, worse` [C], which `lit-pref synthesize` makes of source code, is `PairsDataModule`'s. Not covered:
weights of single pairs by their confidence.
"""

import os
from functools import cached_property

from lit_pref.data.formats.write import write_pairs
from lit_pref.data.tokens.cache import PairSource
from lit_pref.data.tokens.lengths import LengthLimits
from lit_pref.datamodules.stored_pairs import _StoredPairsDataModule
from lit_pref.datamodules.trees import Loading
from lit_pref.storage.arrays import default_cache_folder
from lit_pref.storage.files import provenance_digest, remove
from lit_pref.storage.shards import whole_parquet
from lit_pref.synthesis.code_pairs.strong_weak import StrongWeakPairs, strong_weak_pairs
from lit_pref.tasks import CodeTask
from lit_pref.types import Split, Task


class CodePairsDataModule(_StoredPairsDataModule):
    """Pairs of better and worse code for one description.

    Args:
        task: whose descriptions are answered; by default the embedded code task.
        train_size: how many descriptions.
        validation_size: how many pairs of them are held out for validation: a share in [0, 1), or a number.
        test_size: likewise, for test.
        answers: who answers the descriptions, and what becomes a pair.
        limits: lengths in tokens, and what becomes of longer pairs.
        policy: whose tokens to show without a fit; in a fit it is the module's.
        batch_size: pairs a batch and device.
        loading: batches of so many tokens instead, and worker processes.
        seed: draws descriptions, answers, the order and what is held out; None is the run's `seed_everything`.
    """

    def __init__(
        self,
        task: Task | None = None,
        train_size: int = 12_000,
        validation_size: int | float = 0.05,
        test_size: int | float = 0,
        answers: StrongWeakPairs = StrongWeakPairs(),  # noqa: B008 - frozen
        limits: LengthLimits = LengthLimits(),  # noqa: B008 - frozen
        policy: str | None = None,
        batch_size: int = 32,
        loading: Loading = Loading(),  # noqa: B008 - frozen
        seed: int | None = None,
    ) -> None:
        super().__init__({}, validation_size, test_size, policy, batch_size, loading, seed)
        if train_size < 1:
            raise ValueError(f"train_size must be >= 1, got {train_size}")
        self.task = task if task is not None else CodeTask()
        self.train_size, self.answers, self.limits = train_size, answers, limits

    def _source(self, split: Split) -> PairSource:
        return PairSource(self._file, split, None, self.limits, "error", self.module.append_eos)

    @cached_property
    def _file(self) -> str:
        """The task's pairs, written where later runs find their tokens."""
        cache = default_cache_folder()
        found = strong_weak_pairs(self.task, "train", self.train_size, self.answers, self.seed, cache, str(self.device))
        if self.first:
            print(", ".join(f"{count:,} {what}" for what, count in found.counts.items() if count), flush=True)
        texts = [f"{pair.prompt}\0{pair.chosen}\0{pair.rejected}" for pair in found.pairs]
        path = cache / "code_pairs" / f"{self.task.name}-{provenance_digest(texts)}.parquet"
        if not whole_parquet(path):
            if os.path.lexists(path):
                print(f"{path}: is damaged; made again", flush=True)
                remove(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_pairs(path, found.pairs)
        return str(path)
