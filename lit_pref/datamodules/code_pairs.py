"""Code pairs for preference-model pretraining (CodePMP, arXiv 2410.02229): of files, or of the embedded world.

A file is what `lit-pref synthesize` makes of source code: rows of `query, better, worse` [C]. Without one, a strong
and a weak embedded model answer the descriptions of a task, once; later runs find the samples again. Not covered:
weights of single pairs by their confidence.
"""

import os
from functools import cached_property

from lit_pref.data.formats.write import write_pairs
from lit_pref.data.tokens.cache import PairSource
from lit_pref.data.tokens.lengths import LengthLimits
from lit_pref.datamodules.files import SplitNames, named_sources
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
        train: a file, glob, folder or hub id of rows; None makes pairs of a task.
        validation: likewise; None holds out some of the training pairs.
        test: likewise.
        task: whose descriptions are answered where `train` is not given; by default the embedded code task.
        train_size: how many descriptions are answered.
        validation_size: how many pairs are held out for validation: a share in [0, 1), or a number.
        test_size: likewise, for test.
        template: what a description is put into before it is a prompt, with {query} in its place; none takes it as it
            is.
        answers: who answers the descriptions, and what becomes a pair.
        limits: lengths in tokens, and what becomes of longer pairs. Where a prompt fills the length, both sides would
            be equal: such pairs are dropped and counted.
        policy: whose tokens to show without a fit; in a fit it is the module's.
        batch_size: pairs a batch and device.
        loading: batches of so many tokens instead, and worker processes.
        seed: draws descriptions, answers, the order and what is held out; None is the run's `seed_everything`.
    """

    def __init__(
        self,
        train: str | None = None,
        validation: str | None = None,
        test: str | None = None,
        task: Task | None = None,
        train_size: int = 12_000,
        validation_size: int | float = 0.05,
        test_size: int | float = 0,
        template: str | None = None,
        answers: StrongWeakPairs = StrongWeakPairs(),  # noqa: B008 - frozen
        limits: LengthLimits = LengthLimits(),  # noqa: B008 - frozen
        policy: str | None = None,
        batch_size: int = 32,
        loading: Loading = Loading(),  # noqa: B008 - frozen
        seed: int | None = None,
    ) -> None:
        named = named_sources(train, validation, test, SplitNames())
        super().__init__(named, validation_size, test_size, policy, batch_size, loading, seed)
        if template is not None and "{query}" not in template:
            raise ValueError(f"template must hold {{query}}, got {template!r}")
        if train_size < 1:
            raise ValueError(f"train_size must be >= 1, got {train_size}")
        if train is None and named:
            raise ValueError(f"{next(iter(named))} names a file and train does not: name both, or neither")
        self.template, self.task = template, task if task is not None else CodeTask()
        self.train_size, self.answers, self.limits = train_size, answers, limits

    def _source(self, split: Split) -> PairSource:
        source = self.named[split].source if split in self.named else self._file
        return PairSource(source, split, None, self.limits, "error", self.module.append_eos, self.template)

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
