"""Demonstrations for supervised finetuning: drawn from a task, or read from files and data sets."""

from itertools import chain
from pathlib import Path

from lit_pref.data.formats.pairs import DemonstrationKeys, read_demonstrations
from lit_pref.data.formats.records import RecordsRead
from lit_pref.data.reading.rows import OnBadRow, SkippedRows
from lit_pref.data.tokens.lengths import LengthLimits
from lit_pref.data.tokens.tokenize import tokenize
from lit_pref.datamodules.files import FileRecords, SplitNames, named_sources
from lit_pref.datamodules.telling import tell_left_out
from lit_pref.datamodules.trees import Loading, _TreeDataModule, sizes_of
from lit_pref.errors import UserError
from lit_pref.tasks import CodeTask
from lit_pref.types import Demonstration, Split, Task


class DemonstrationsDataModule(_TreeDataModule):
    """Prompts with the completions to imitate.

    Args:
        task: draws demonstrations; used where `train` is not given.
        train: a file, glob, folder or hub id of rows `prompt, completion` or `messages`, instead of a task.
        validation: likewise.
        test: likewise.
        splits: of a folder or hub data set, or slices of them.
        train_size: demonstrations to draw from the task.
        validation_size: likewise, of its validation split, by default 500; of a file: how much of `train` is held out,
            a share in [0, 1) or a number of rows, by default nothing.
        test_size: likewise, of its test split.
        keys: the rows' key names where they are none of the known formats.
        limits: lengths in tokens, and what becomes of longer rows.
        on_bad_row: as of `PairsDataModule`.
        policy: whose tokens to show without a fit; in a fit it is the module's.
        batch_size: demonstrations a batch and device.
        loading: batches of so many tokens instead, and worker processes.
        seed: of what is drawn and of the order; None is the run's `seed_everything`.
    """

    def __init__(
        self,
        task: Task | None = None,
        train: str | None = None,
        validation: str | None = None,
        test: str | None = None,
        splits: SplitNames = SplitNames(),  # noqa: B008 - frozen
        train_size: int = 20_000,
        validation_size: int | float | None = None,
        test_size: int | float | None = None,
        keys: DemonstrationKeys | None = None,
        limits: LengthLimits = LengthLimits(),  # noqa: B008 - frozen
        on_bad_row: OnBadRow = "error",
        policy: str | None = None,
        batch_size: int = 64,
        loading: Loading = Loading(),  # noqa: B008 - frozen
        seed: int | None = None,
    ) -> None:
        super().__init__(policy, batch_size, loading, seed)
        self.task = (task or CodeTask()) if train is None else None
        self.limits, self.on_bad_row = limits, on_bad_row
        held_out: dict[Split, int | float | None] = {"validation": validation_size, "test": test_size}
        self.sizes: dict[Split, int | None] = {}
        if self.task is not None:
            for split, size in held_out.items():
                if isinstance(size, float):
                    raise ValueError(f"{split}_size is a number of a task's demonstrations, got the share {size}")
            wanted = (500 if size is None else int(size) for size in held_out.values())
            self.sizes = sizes_of(train_size, *wanted)
        self.files = FileRecords(
            named_sources(train, validation, test, splits),
            {split: size or 0 for split, size in held_out.items() if self.task is None},
            self.seed,
            lambda named: read_demonstrations(named.source, named.split, keys, on_bad_row),
        )

    def splits(self) -> list[Split]:
        return list({**self.sizes, **dict.fromkeys(self.files.splits())})

    def _add(self, split: Split) -> None:
        name, read = self._demonstrations(split)
        demonstrations, skipped = read
        tokenized = tokenize(
            demonstrations, self.module.tokenizer, self.limits, on_bad_row=self.on_bad_row, skipped=skipped
        )
        if not tokenized.trees:
            first = "".join(f"; the first: {message}" for message in skipped.messages[:1])
            raise UserError(f"no demonstration of {name} is left for {split}: {tokenized.counts}{first}")
        if self.first:
            folder = None if self.trainer is None else Path(self.trainer.default_root_dir)
            tell_left_out(name, split, len(demonstrations), skipped.to_json(), folder)
            if len(tokenized.trees) < len(demonstrations):
                print(f"{split}: {len(tokenized.trees):,} demonstrations, {tokenized.counts}", flush=True)
        self._check_vocabulary(max(max(chain(prompt, *completions)) for prompt, completions in tokenized.trees))
        self._keep(split, "demonstration", tokenized.trees, None, tokenized.counts)

    def _demonstrations(self, split: Split) -> tuple[str, RecordsRead[Demonstration]]:
        if self.task is not None and split not in self.files.named:
            drawn = self.task.demonstrations(split, self.sizes[split] or 0, self.seed)
            return "the task", RecordsRead(drawn, SkippedRows())
        return self.files.source(split), self.files.of(split)
