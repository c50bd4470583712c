"""Code pairs for preference-model pretraining (CodePMP, arXiv 2410.02229): of files, or of the embedded world.

A file is what `lit-pref synthesize` makes of source code: rows of `query, better, worse` [C]. Without one, a strong
and a weak embedded model answer the descriptions of a task, once; later runs find the samples again. Not covered:
weights of single pairs by their confidence.
"""

import os
from pathlib import Path

from lit_pref.data.formats.write import write_pairs
from lit_pref.data.tokens.cache import PairSource
from lit_pref.data.tokens.lengths import LengthLimits
from lit_pref.datamodules.stored_pairs import _StoredPairsDataModule
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
        validation: likewise; None holds out a share of the training pairs.
        validation_share: how much that is, in [0, 1).
        template: what a description is put into before it is a prompt, with {query} in its place; none takes it as it
            is.
        task: whose descriptions are answered where `train` is not given; by default the embedded code task.
        descriptions: how many.
        answers: who answers them, and what becomes a pair.
        limits: lengths in tokens, and what becomes of longer pairs. Where a prompt fills the length, both sides would
            be equal: such pairs are dropped and counted.
        batch_size: pairs a batch and device.
        max_tokens_per_batch: fill each batch with as many pairs as take up to so many tokens, a prompt counted once,
            instead of batch_size; the loss stays a mean over pairs, also of accumulated batches and of devices.
        seed: draws descriptions, answers, the order and what is held out; None is the run's `seed_everything`.
    """

    def __init__(
        self,
        train: str | None = None,
        validation: str | None = None,
        validation_share: float = 0.05,
        template: str | None = None,
        task: Task | None = None,
        descriptions: int = 12_000,
        answers: StrongWeakPairs = StrongWeakPairs(),  # noqa: B008 - frozen
        limits: LengthLimits = LengthLimits(),  # noqa: B008 - frozen
        batch_size: int = 32,
        max_tokens_per_batch: int | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__(validation_share, batch_size, max_tokens_per_batch, seed, num_workers=0)
        if template is not None and "{query}" not in template:
            raise ValueError(f"template must hold {{query}}, got {template!r}")
        if descriptions < 1:
            raise ValueError(f"descriptions must be >= 1, got {descriptions}")
        if train is None and validation is not None:
            raise ValueError("validation names a file and train does not: name both, or neither")
        self.train, self.validation, self.template = train, validation, template
        self.task = task if task is not None else CodeTask()
        self.descriptions, self.answers, self.limits = descriptions, answers, limits

    def _sources(self) -> dict[Split, PairSource]:
        named: dict[Split, str | None] = {"train": self.train or str(self._file()), "validation": self.validation}
        return {
            split: PairSource(source, split, None, self.limits, "error", self.consumer.append_eos, self.template)
            for split, source in named.items()
            if source is not None
        }

    def _file(self) -> Path:
        """The task's pairs, written where later runs find their tokens."""
        cache = default_cache_folder()
        found = strong_weak_pairs(
            self.task, "train", self.descriptions, self.answers, self.seed, cache, str(self.device)
        )
        if self.trainer is not None and self.trainer.is_global_zero:
            print(", ".join(f"{count:,} {what}" for what, count in found.counts.items() if count), flush=True)
        texts = [f"{pair.prompt}\0{pair.chosen}\0{pair.rejected}" for pair in found.pairs]
        path = cache / "code_pairs" / f"{self.task.name}-{provenance_digest(texts)}.parquet"
        if not whole_parquet(path):
            if os.path.lexists(path):
                print(f"{path}: is damaged; made again", flush=True)
                remove(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_pairs(path, found.pairs)
        return path
