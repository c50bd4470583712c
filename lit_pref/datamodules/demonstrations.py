"""Demonstrations for supervised finetuning: drawn from a task, or read from files and data sets."""

from lit_pref.data.formats import read_demonstrations
from lit_pref.data.lengths import LengthLimits
from lit_pref.data.loading import TreeCollate, TreeDataset
from lit_pref.data.tokenize import fingerprint, tokenize_demonstrations
from lit_pref.datamodules.trees import Stage, _TreeDataModule
from lit_pref.tasks import CodeTask
from lit_pref.types import Demonstration, Split, Task


class DemonstrationsDataModule(_TreeDataModule):
    """Prompts with the completions to imitate.

    task: draws demonstrations; used where `train` is not given.
    train, validation: files, globs, folders or hub ids of rows `prompt, completion` or `messages`, instead of a task.
    train_size, validation_size: demonstrations to draw from the task.
    limits: lengths in tokens, and what becomes of longer rows.
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
        seed: int | None = None,
        num_workers: int = 0,
    ) -> None:
        super().__init__(batch_size, seed, num_workers)
        self.task = (task or CodeTask()) if train is None else None
        self.sources: dict[Stage, str | None] = {"train": train, "eval": validation}
        self.sizes: dict[Stage, int] = {"train": train_size, "eval": validation_size}
        self.limits = limits

    def setup(self, stage: str) -> None:
        if self.data:
            return
        stages: tuple[Stage, ...] = ("train", "eval")
        for name in stages:
            demonstrations = self._demonstrations(name)
            if demonstrations:
                tokenized = tokenize_demonstrations(demonstrations, self.consumer.tokenizer, self.limits)
                collate = TreeCollate(self.consumer.tokenizer.pad_token_id, self.consumer.shares_prompts)
                self.data[name] = TreeDataset(tokenized.trees, collate)
                self.fingerprints[name] = fingerprint(tokenized.trees)

    def _demonstrations(self, stage: Stage) -> list[Demonstration]:
        source = self.sources[stage]
        if source is not None:
            return list(read_demonstrations(source).demonstrations)
        if self.task is None:
            return []
        split: Split = "train" if stage == "train" else "validation"
        return self.task.demonstrations(split, self.sizes[stage], self.seed)
