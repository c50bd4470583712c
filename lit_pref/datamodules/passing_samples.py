"""Passing samples to imitate: SFT on what the policy itself solves (RFT), the likelihood arm of arXiv 2410.18585.

On the very samples that `execution.py` makes pairs of, and validated on the same held-out pairs.
"""

from dataclasses import replace
from pathlib import Path

from lit_pref.data.batches.loading import TreeCollate, TreeDataset
from lit_pref.data.tokens.lengths import LengthLimits
from lit_pref.data.tokens.tokenize import tokenize_demonstrations
from lit_pref.datamodules.execution import _ExecutionDataModule
from lit_pref.errors import UserError
from lit_pref.sampling import passing_demonstrations
from lit_pref.types import Sampling, Split, Task


class PassingSamplesDataModule(_ExecutionDataModule):
    """The distinct passing completions of each problem, to imitate; validated on the same pairs as its sibling.

    Args:
        task: problems and their grading; by default the embedded code task.
        problems: training problems to sample.
        samples: completions a problem; the default is ours.
        sampling: how they are drawn; the default is ours.
        held_out: the split of the validation pairs: test compositions, or validation to choose settings on.
        held_out_problems: problems to sample for validation pairs.
        sampled_policy: the model that writes them; None is the module's own start policy (on-policy pairs). Where its
            tokenizer is another one, the texts are tokenized again.
        batch_size: completions a batch and device.
        max_tokens_per_batch: fill each batch with completions up to so many tokens, instead of batch_size.
        seed: draws problems, samples and the order; None is the run's `seed_everything`.
        cache_folder: where graded samples, and the pairs made of them, are kept as Parquet with a manifest of what
            they were made from; None is the user's cache folder.
    """

    def __init__(
        self,
        task: Task | None = None,
        problems: int = 2000,
        samples: int = 8,
        sampling: Sampling = Sampling(max_new_tokens=96),  # noqa: B008 - frozen
        held_out: Split = "test",
        held_out_problems: int = 500,
        sampled_policy: str | None = None,
        batch_size: int = 64,
        max_tokens_per_batch: int | None = None,
        seed: int | None = None,
        cache_folder: Path | None = None,
    ) -> None:
        super().__init__(
            task,
            problems,
            samples,
            sampling,
            held_out,
            held_out_problems,
            sampled_policy,
            batch_size,
            max_tokens_per_batch,
            seed,
            cache_folder,
        )

    def _add_training_data(self) -> None:
        demonstrations = passing_demonstrations(self._graded("train").samples)
        if not demonstrations:
            raise UserError(
                f"no sample of {self.splits['train'][1]} problems passed: raise samples or problems, or take a policy "
                "that solves some of them"
            )
        if not self.own_tokens:
            demonstrations = [replace(each, completion_ids=None) for each in demonstrations]
        tokenized = tokenize_demonstrations(demonstrations, self.consumer.tokenizer, LengthLimits())
        collate = TreeCollate(self.consumer.tokenizer.pad_token_id, self.consumer.row_layout)
        self._add("train", TreeDataset(tokenized.trees, collate), {"passing samples": len(demonstrations)})
