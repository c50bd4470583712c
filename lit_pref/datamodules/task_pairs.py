"""Pairs that a task knows how to make: right over wrong solutions, right over wrong options; generated or read.

After the second stage of CodePMP (arXiv 2410.02229), which finetunes on MathShepherd, ReClor and LogiQA2 [C]. Wrong
solutions that a model wrote are `ExecutionPairsDataModule`'s, with `task: ReasoningTask` and a sampled_policy.
"""

from lit_pref.data.tokens.lengths import LengthLimits
from lit_pref.data.tokens.tokenize import tokenize
from lit_pref.datamodules.trees import Loading, _TreeDataModule, sizes_of
from lit_pref.errors import UserError
from lit_pref.tasks import ReasoningTask
from lit_pref.types import PairTask, Split

_HELD_OUT_SEED = 0  # validation and test pairs are the same for every run


class TaskPairsDataModule(_TreeDataModule):
    """Pairs of a right and a wrong response to one question.

    Args:
        task: makes the pairs; by default the embedded word problems.
        train_size: training pairs; null is all of a data set, and 2,000 of a task that can make any number.
        validation_size: likewise, of the validation split; these are the same for every seed.
        test_size: likewise, of the test split.
        limits: lengths in tokens, and what becomes of longer pairs.
        policy: whose tokens to show without a fit; in a fit it is the module's.
        batch_size: pairs a batch and device.
        loading: batches of so many tokens instead, and worker processes.
        seed: draws training pairs and the order; None is the run's `seed_everything`.
    """

    def __init__(
        self,
        task: PairTask | None = None,
        train_size: int | None = 2000,
        validation_size: int | None = 1000,
        test_size: int | None = 1000,
        limits: LengthLimits = LengthLimits(),  # noqa: B008 - frozen
        policy: str | None = None,
        batch_size: int = 32,
        loading: Loading = Loading(),  # noqa: B008 - frozen
        seed: int | None = None,
    ) -> None:
        super().__init__(policy, batch_size, loading, seed)
        self.task = task if task is not None else ReasoningTask()
        self.sizes, self.limits = sizes_of(train_size, validation_size, test_size), limits

    def splits(self) -> list[Split]:
        return [split for split in self.sizes if split in self.task.splits]

    def _add(self, split: Split) -> None:
        pairs = self.task.pairs(split, self.sizes[split], self.seed if split == "train" else _HELD_OUT_SEED)
        tokenized = tokenize(pairs, self.module.tokenizer, self.limits, self.module.append_eos)
        if not tokenized.trees:
            raise UserError(f"no pair of {self.task.name}, {split}, is left: {tokenized.counts}")
        if len(tokenized.trees) < len(pairs) and self.first:
            print(f"{split}: {len(tokenized.trees):,} pairs, {tokenized.counts}", flush=True)
        self._keep(split, "pair", tokenized.trees, tokenized.values, tokenized.counts)
