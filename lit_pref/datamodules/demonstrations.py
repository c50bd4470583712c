"""Demonstrations for supervised finetuning: drawn from a task, or read from files and data sets."""

from lit_pref.data.formats import read_demonstrations
from lit_pref.data.lengths import LengthLimits
from lit_pref.data.loading import TreeCollate, TreeDataset
from lit_pref.data.tokenize import fingerprint, tokenize_demonstrations
from lit_pref.datamodules.trees import Stage, _TreeDataModule
from lit_pref.errors import UserError
from lit_pref.tasks import CodeTask
from lit_pref.types import Demonstration, Split, Task


class DemonstrationsDataModule(_TreeDataModule):
    """Prompts with the completions to imitate.

    Args:
        task: draws demonstrations; used where `train` is not given.
        train: a file, glob, folder or hub id of rows `prompt, completion` or `messages`, instead of a task.
        validation: likewise.
        train_size: demonstrations to draw from the task.
        validation_size: likewise, of its validation split.
        limits: lengths in tokens, and what becomes of longer rows.
        batch_size: demonstrations a batch and device.
        max_tokens_per_batch: fill each batch with demonstrations up to so many tokens, instead of batch_size.
        seed: of what is drawn and of the order; None is the run's `seed_everything`.
        num_workers: processes that collate batches; 0 is the main one, which is usually fastest.
    """

    def __init__(
        self,
        task: Task | None = None,
        train: str | None = None,
        validation: str | None = None,
        train_size: int = 20_000,
        validation_size: int = 500,
        limits: LengthLimits = LengthLimits(),  # noqa: B008 - frozen
        batch_size: int = 64,
        max_tokens_per_batch: int | None = None,
        seed: int | None = None,
        num_workers: int = 0,
    ) -> None:
        super().__init__(batch_size, max_tokens_per_batch, seed, num_workers)
        self.task = (task or CodeTask()) if train is None else None
        self.sources: dict[Stage, str | None] = {"train": train, "eval": validation}
        self.sizes: dict[Stage, int] = {"train": train_size, "eval": validation_size}
        self.limits = limits

    def setup(self, stage: str) -> None:
        self._forget_other_consumer()
        if self.data:
            return
        self._add("train", self._demonstrations("train"))
        held_out = self._demonstrations("eval")
        if held_out:
            self._add("eval", held_out)

    def _add(self, stage: Stage, demonstrations: list[Demonstration]) -> None:
        tokenized = tokenize_demonstrations(demonstrations, self.consumer.tokenizer, self.limits)
        if not tokenized.trees:
            source = self.sources[stage] or "the task"
            raise UserError(f"no demonstration of {source} is left for {stage}: {tokenized.counts}")
        if len(tokenized.trees) < len(demonstrations):
            print(f"{stage}: {len(tokenized.trees):,} demonstrations, {tokenized.counts}", flush=True)
        collate = TreeCollate(self.consumer.tokenizer.pad_token_id, self.consumer.row_layout)
        self.data[stage] = TreeDataset(tokenized.trees, collate)
        self.fingerprints[stage] = fingerprint(tokenized.trees)

    def _demonstrations(self, stage: Stage) -> list[Demonstration]:
        split: Split = "train" if stage == "train" else "validation"
        source = self.sources[stage]
        if source is not None:
            return list(read_demonstrations(source, split).demonstrations)
        if self.task is None:
            return []
        return self.task.demonstrations(split, self.sizes[stage], self.seed)
