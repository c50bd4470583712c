"""Passing samples to imitate: SFT on what the policy itself solves (RFT), the likelihood arm of arXiv 2410.18585.

On the very samples that `execution.py` makes pairs of, and validated and tested on the same pairs.
"""

from dataclasses import replace

from lit_pref.data.tokens.tokenize import tokenize
from lit_pref.datamodules.execution import Samples, _ExecutionDataModule
from lit_pref.datamodules.trees import Loading
from lit_pref.errors import UserError
from lit_pref.sampling import passing_demonstrations
from lit_pref.types import Split, Task


class PassingSamplesDataModule(_ExecutionDataModule):
    """The distinct passing completions of each problem, to imitate.

    Args:
        task: problems and their grading; by default the embedded code task.
        train_size: training problems to sample.
        validation_size: validation problems to sample, for one pair each at random.
        test_size: test problems to sample, likewise.
        samples: how many completions of a problem, how they are drawn, and by whom.
        samples_per_problem: to imitate at most, drawn at random; None is all.
        policy: whose samples and tokens to show without a fit; in a fit it is the module's.
        batch_size: demonstrations a batch and device.
        loading: batches of so many tokens instead, and worker processes.
        seed: draws problems, samples and the order; None is the run's `seed_everything`.
    """

    def __init__(
        self,
        task: Task | None = None,
        train_size: int = 2000,
        validation_size: int = 500,
        test_size: int = 500,
        samples: Samples = Samples(),  # noqa: B008 - frozen
        samples_per_problem: int | None = None,
        policy: str | None = None,
        batch_size: int = 64,
        loading: Loading = Loading(),  # noqa: B008 - frozen
        seed: int | None = None,
    ) -> None:
        sizes = train_size, validation_size, test_size
        super().__init__(task, *sizes, samples, policy, batch_size, loading, seed)
        if samples_per_problem is not None and samples_per_problem < 1:
            raise ValueError(f"samples_per_problem must be >= 1, got {samples_per_problem}")
        self.samples_per_problem = samples_per_problem

    def _add(self, split: Split) -> None:
        if split != "train":
            self._add_pairs(split)
            return
        demonstrations = passing_demonstrations(self._graded(split).samples, self.samples_per_problem, self.seed)
        if not demonstrations:
            raise UserError(
                f"no sample of {self.sizes[split]} problems passed: raise samples.each or train_size, or take a "
                "policy that solves some of them"
            )
        if not self.own_tokens:
            demonstrations = [replace(each, completion_ids=None) for each in demonstrations]
        tokenized = tokenize(demonstrations, self.module.tokenizer)
        self._keep_counted(split, "demonstration", tokenized, {"passing samples": len(demonstrations)})
