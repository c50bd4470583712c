"""Pairs that a task knows how to make: right over wrong solutions, right over wrong options; generated or read.

After the second stage of CodePMP (arXiv 2410.02229), which finetunes on MathShepherd, ReClor and LogiQA2 [C]. Wrong
solutions that a model wrote are `ExecutionPairsDataModule`'s, with `task: ReasoningTask` and a sampled_policy.
"""

from lit_pref.data.batches.loading import PairCollate, TreeDataset
from lit_pref.data.tokens.lengths import LengthLimits
from lit_pref.data.tokens.tokenize import fingerprint, tokenize_pairs
from lit_pref.datamodules.trees import Stage, _TreeDataModule
from lit_pref.errors import UserError
from lit_pref.tasks import ReasoningTask
from lit_pref.types import PairTask, Split


class TaskPairsDataModule(_TreeDataModule):
    """Pairs of a right and a wrong response to one question.

    Args:
        task: makes the pairs; by default the embedded word problems.
        pairs: training pairs; null is all of a data set, and 2,000 of a task that can make any number.
        held_out: the split of the validation pairs: test, or validation to choose settings on.
        held_out_pairs: likewise.
        limits: lengths in tokens, and what becomes of longer pairs.
        batch_size: pairs a batch and device.
        max_tokens_per_batch: fill each batch with as many pairs as take up to so many tokens, a prompt counted once,
            instead of batch_size; the loss stays a mean over pairs, also of accumulated batches and of devices.
        seed: draws pairs and the order; None is the run's `seed_everything`.
        held_out_seed: draws the validation pairs, which are thus the same for every run; None is `seed`.
        num_workers: processes that collate batches; 0 is the main one, which is usually fastest.
    """

    def __init__(
        self,
        task: PairTask | None = None,
        pairs: int | None = 2000,
        held_out: Split = "test",
        held_out_pairs: int | None = 1000,
        limits: LengthLimits = LengthLimits(),  # noqa: B008 - frozen
        batch_size: int = 32,
        max_tokens_per_batch: int | None = None,
        seed: int | None = None,
        held_out_seed: int | None = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(batch_size, max_tokens_per_batch, seed, num_workers)
        for name, count in (("pairs", pairs), ("held_out_pairs", held_out_pairs)):
            if count is not None and count < 1:
                raise ValueError(f"{name} must be >= 1, got {count}")
        self.task = task if task is not None else ReasoningTask()
        self.splits: dict[Stage, tuple[Split, int | None]] = {
            "train": ("train", pairs),
            "validation": (held_out, held_out_pairs),
        }
        self.limits = limits
        self.seeds: dict[Stage, int] = {
            "train": self.seed,
            "validation": self.seed if held_out_seed is None else held_out_seed,
        }

    def setup(self, stage: str) -> None:
        self._forget_other_consumer()
        if "validation" not in self.data:
            self._add("validation")
        if stage == "fit" and "train" not in self.data:
            self._add("train")

    def _add(self, stage: Stage) -> None:
        split, count = self.splits[stage]
        pairs = self.task.pairs(split, count, self.seeds[stage])
        tokenized = tokenize_pairs(pairs, self.consumer.tokenizer, self.limits, self.consumer.append_eos)
        if not tokenized.trees:
            raise UserError(f"no pair of {self.task.name}, {split}, is left: {tokenized.counts}")
        if len(tokenized.trees) < len(pairs) and self.trainer is not None and self.trainer.is_global_zero:
            print(f"{stage}: {len(tokenized.trees):,} pairs, {tokenized.counts}", flush=True)
        collate = PairCollate(self.consumer.tokenizer.pad_token_id, self.consumer.row_layout, tokenized.margins)
        self.data[stage] = TreeDataset(tokenized.trees, collate)
        self.fingerprints[stage] = fingerprint(tokenized.trees)
