"""Pairs labelled by execution: what the policy itself writes, run against tests, after arXiv 2410.18585.

Samples are made once and found again in later runs; `passing_samples.py` takes the very same ones. Conversations work
where the tokenizer has a chat template. Not covered: samples of a server (`lit-pref synthesize` writes a file of them).
"""

from pathlib import Path
from typing import Any

from lightning.pytorch.trainer.states import TrainerFn

from lit_pref.data.batches.loading import PairCollate, TreeDataset
from lit_pref.data.formats.write import without_tokens, write_pairs
from lit_pref.data.tokens.encoding import vocabulary_fingerprint
from lit_pref.data.tokens.lengths import LengthLimits
from lit_pref.data.tokens.tokenize import fingerprint, tokenize_pairs, tokenize_prompt
from lit_pref.datamodules.trees import Stage, _TreeDataModule
from lit_pref.errors import UserError
from lit_pref.generation import LocalGenerator
from lit_pref.models import load_causal_lm, load_tokenizer, weights_fingerprint
from lit_pref.sampling import GradedSamples, PairStrategy, SampleSettings, SamplingJob, cached_samples, execution_pairs
from lit_pref.sampling.graded_samples import tokenizer_fingerprint
from lit_pref.storage.arrays import default_cache_folder, keep_in_memory
from lit_pref.tasks import CodeTask
from lit_pref.tasks.references import gradable
from lit_pref.types import Sampling, Split, Task


class _ExecutionDataModule(_TreeDataModule):
    """Samples a policy on a task's problems and grades them; a subclass says what to train on."""

    def __init__(
        self,
        task: Task | None,
        problems: int,
        samples: int,
        sampling: Sampling,
        held_out: Split,
        held_out_problems: int,
        sampled_policy: str | None,
        batch_size: int,
        max_tokens_per_batch: int | None,
        seed: int | None,
        cache_folder: Path | None,
    ) -> None:
        super().__init__(batch_size, max_tokens_per_batch, seed, num_workers=0)
        if samples < 2:
            raise ValueError(f"samples must be >= 2 to hold a passing and a failing one, got {samples}")
        if problems < 1 or held_out_problems < 1:
            given = f"problems {problems}, held_out_problems {held_out_problems}"
            raise ValueError(f"problems and held_out_problems must be >= 1, got {given}")
        if sampling.temperature == 0:
            raise ValueError(f"{samples} greedy samples are all alike: give a temperature above 0")
        self.task = task if task is not None else CodeTask()
        self.draw = SampleSettings(samples, sampling, self.seed)
        self.splits: dict[Stage, tuple[Split, int]] = {
            "train": ("train", problems),
            "validation": (held_out, held_out_problems),
        }
        self.sampled_policy = sampled_policy
        self.cache_folder = cache_folder or default_cache_folder()
        self.prepare_data_per_node = False  # one cache folder for all
        self.counts: dict[str, dict[str, int]] = {}
        self.left_out: dict[Stage, dict[str, str]] = {}  # problems whose references fail their own tests, and why
        self.own_tokens = True  # the samples' tokens mean the same to the module's tokenizer
        self._prepared: dict[Stage, GradedSamples] = {}  # on the first of several processes, until `setup` takes them

    def prepare_data(self) -> None:
        """Lightning calls this on the first process alone, while the others wait."""
        assert self.trainer is not None
        if self.trainer.world_size > 1:  # they get the samples in `setup`; had they drawn too, a last bit might differ
            self._forget_other_consumer()
            stages: list[Stage] = (
                ["validation", "train"] if self.trainer.state.fn == TrainerFn.FITTING else ["validation"]
            )
            self._prepared = {stage: self._sampled(stage) for stage in stages if stage not in self.data}

    def setup(self, stage: str) -> None:
        self._forget_other_consumer()
        if "validation" not in self.data:
            self._add_pairs("validation")
        if stage == "fit" and "train" not in self.data:
            self._add_training_data()

    def _add_training_data(self) -> None:
        raise NotImplementedError

    def _add_pairs(self, stage: Stage, strategy: PairStrategy = "random", pairs_per_problem: int = 1) -> None:
        graded = self._graded(stage)
        made = execution_pairs(graded.samples, self.seed, strategy, pairs_per_problem)
        if not made.pairs:
            raise UserError(
                f"no pairs: {made.summary}; raise samples, problems or temperature, or take a policy that solves some "
                "of the problems"
            )
        file = graded.folder / f"pairs-{strategy}-{pairs_per_problem}-seed{self.seed}.parquet"
        if graded.kept and not file.exists() and self.trainer is not None and self.trainer.is_global_zero:
            tokenizer = self.consumer.tokenizer if self.sampled_policy is None else load_tokenizer(self.sampled_policy)
            try:
                write_pairs(file, made.pairs, vocabulary_fingerprint(tokenizer))
            except (OSError, UserError) as error:
                keep_in_memory(self.cache_folder, error)
        pairs = made.pairs if self.own_tokens else [without_tokens(pair) for pair in made.pairs]
        tokenized = tokenize_pairs(pairs, self.consumer.tokenizer, LengthLimits(), self.consumer.append_eos)
        collate = PairCollate(self.consumer.tokenizer.pad_token_id, self.consumer.row_layout)
        self._add(stage, TreeDataset(tokenized.trees, collate), made.counts)

    def _add(self, stage: Stage, data: TreeDataset[Any], counts: dict[str, int]) -> None:
        left_out = len(self.left_out.get(stage, {}))
        counts = counts | ({"problems left out, the reference fails": left_out} if left_out else {})
        self.data[stage] = data
        self.fingerprints[stage] = fingerprint(data.trees)
        self.counts[stage] = counts
        if self.trainer is not None and self.trainer.is_global_zero:
            print(f"{stage}: " + ", ".join(f"{count:,} {what}" for what, count in counts.items() if count), flush=True)

    def _graded(self, stage: Stage) -> GradedSamples:
        """The samples of a stage; those of the first process where there are several."""
        assert self.trainer is not None
        if self.trainer.world_size == 1:
            return self._sampled(stage)
        prepared = self._prepared.pop(stage, None)
        broadcast = self.trainer.strategy.broadcast
        if broadcast(prepared is not None and prepared.kept):
            return prepared or self._sampled(stage)  # found on the disk
        received, self.own_tokens = broadcast((prepared, self.own_tokens))
        assert received is not None
        return received

    def _sampled(self, stage: Stage) -> GradedSamples:
        split, count = self.splits[stage]
        model, tokenizer = self.consumer.model, self.consumer.tokenizer
        if self.sampled_policy is not None:
            model, tokenizer = load_causal_lm(self.sampled_policy), load_tokenizer(self.sampled_policy)
            self.own_tokens = tokenizer.get_vocab() == self.consumer.tokenizer.get_vocab()
        model = model.to(self.device)
        found = gradable(self.task, self.task.problems(split, count, self.seed))
        self.left_out[stage] = found.left_out
        job = SamplingJob(
            self.task,
            found.problems,
            LocalGenerator(model, tokenizer, tokenize_prompt),
            self.draw,
            weights_fingerprint(model),
            tokenizer_fingerprint(tokenizer),
        )
        return cached_samples(self.cache_folder, job, f"{len(found.problems):,} {split} problems x {self.draw.samples}")


class ExecutionPairsDataModule(_ExecutionDataModule):
    """Pairs of a passing and a failing completion of one problem; a problem without both gives no pair.

    Held-out pairs are one a problem, at random, whatever the training pairs are, so that runs compare.

    Args:
        task: problems and their grading; by default the embedded code task.
        problems: training problems to sample.
        samples: completions a problem; the default is ours.
        sampling: how they are drawn; the default is ours.
        strategy: random pairs any passing with any failing completion; best_vs_worst takes the failing one that passed
            the fewest cases before its first wrong one; length_matched those nearest in length, for reward models.
        pairs_per_problem: at most; further ones take other completions where there are any.
        held_out: the split of the validation pairs: test compositions, or validation to choose settings on.
        held_out_problems: problems to sample for validation pairs.
        sampled_policy: the model that writes them; None is the module's own start policy (on-policy pairs). Where its
            tokenizer is another one, the texts are tokenized again.
        batch_size: pairs a batch and device.
        max_tokens_per_batch: fill each batch with as many pairs as take up to so many tokens, a prompt counted once,
            instead of batch_size; the loss stays a mean over pairs, also of accumulated batches and of devices.
        seed: draws problems, samples, pairs and the order; None is the run's `seed_everything`.
        cache_folder: where graded samples, and the pairs made of them, are kept as Parquet with a manifest of what
            they were made from; None is the user's cache folder.
    """

    def __init__(
        self,
        task: Task | None = None,
        problems: int = 2000,
        samples: int = 8,
        sampling: Sampling = Sampling(max_new_tokens=96),  # noqa: B008 - frozen
        strategy: PairStrategy = "random",
        pairs_per_problem: int = 1,
        held_out: Split = "test",
        held_out_problems: int = 500,
        sampled_policy: str | None = None,
        batch_size: int = 32,
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

        if pairs_per_problem < 1:
            raise ValueError(f"pairs_per_problem must be >= 1, got {pairs_per_problem}")
        self.strategy, self.pairs_per_problem = strategy, pairs_per_problem

    def _add_training_data(self) -> None:
        self._add_pairs("train", self.strategy, self.pairs_per_problem)
