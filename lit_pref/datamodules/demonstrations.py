"""Demonstrations for supervised finetuning: drawn from a task, or read from files and data sets."""

from itertools import chain
from pathlib import Path

from lit_pref.data.batches.loading import TreeCollate, TreeDataset
from lit_pref.data.formats.pairs import DemonstrationKeys, DemonstrationsRead, read_demonstrations
from lit_pref.data.reading.rows import OnBadRow, SkippedRows
from lit_pref.data.tokens.lengths import LengthLimits
from lit_pref.data.tokens.tokenize import fingerprint, tokenize_demonstrations
from lit_pref.datamodules.trees import Stage, _TreeDataModule, named_sources, tell_left_out
from lit_pref.errors import UserError
from lit_pref.tasks import CodeTask
from lit_pref.types import Split, Task


class DemonstrationsDataModule(_TreeDataModule):
    """Prompts with the completions to imitate.

    Args:
        task: draws demonstrations; used where `train` is not given.
        train: a file, glob, folder or hub id of rows `prompt, completion` or `messages`, instead of a task.
        validation: likewise.
        train_split: as of `PairsDataModule`.
        validation_split: likewise, of `validation`, or of `train` where no `validation` is given.
        keys: the rows' key names where they are none of the known formats.
        on_bad_row: as of `PairsDataModule`.
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
        train_split: str = "train",
        validation_split: str | None = None,
        keys: DemonstrationKeys | None = None,
        on_bad_row: OnBadRow = "error",
    ) -> None:
        super().__init__(batch_size, max_tokens_per_batch, seed, num_workers)
        self.task = (task or CodeTask()) if train is None else None
        self.named = named_sources(train, validation, train_split, validation_split)
        self.keys, self.on_bad_row = keys, on_bad_row
        self.sizes: dict[Stage, int] = {"train": train_size, "validation": validation_size}
        self.limits = limits

    def setup(self, stage: str) -> None:
        self._forget_other_consumer()
        if self.data:
            return
        self._add("train")
        if "validation" in self.named or (self.task is not None and self.sizes["validation"]):
            self._add("validation")

    def _add(self, stage: Stage) -> None:
        name, read = self._demonstrations(stage)
        demonstrations, skipped = read
        tokenized = tokenize_demonstrations(
            demonstrations, self.consumer.tokenizer, self.limits, on_bad_row=self.on_bad_row, skipped=skipped
        )
        if not tokenized.trees:
            first = "".join(f"; the first: {message}" for message in skipped.messages[:1])
            raise UserError(f"no demonstration of {name} is left for {stage}: {tokenized.counts}{first}")
        if self.trainer is not None and self.trainer.is_global_zero:
            tell_left_out(name, stage, len(demonstrations), skipped.to_json(), Path(self.trainer.default_root_dir))
            if len(tokenized.trees) < len(demonstrations):
                print(f"{stage}: {len(tokenized.trees):,} demonstrations, {tokenized.counts}", flush=True)
        collate = TreeCollate(self.consumer.tokenizer.pad_token_id, self.consumer.row_layout)
        self._check_vocabulary(max(max(chain(prompt, *completions)) for prompt, completions in tokenized.trees))
        self.data[stage] = TreeDataset(tokenized.trees, collate)
        self.fingerprints[stage] = fingerprint(tokenized.trees)

    def _demonstrations(self, stage: Stage) -> tuple[str, DemonstrationsRead]:
        if (named := self.named.get(stage)) is not None:
            return named.source, read_demonstrations(named.source, named.split, self.keys, self.on_bad_row)
        assert self.task is not None
        split: Split = "train" if stage == "train" else "validation"
        drawn = self.task.demonstrations(split, self.sizes[stage], self.seed)
        return "the task", DemonstrationsRead(drawn, SkippedRows())
