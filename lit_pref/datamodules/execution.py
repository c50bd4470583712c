"""Pairs labelled by execution: what the policy itself writes, run against tests, after arXiv 2410.18585.

Samples are made once and found again in later runs; `passing_samples.py` takes the very same ones. Conversations work
where the tokenizer has a chat template. Not covered: samples of a server (`lit-pref synthesize` writes a file of them).
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from lit_pref.data.formats.write import without_tokens, write_pairs
from lit_pref.data.tokens.encoding import vocabulary_fingerprint
from lit_pref.data.tokens.lengths import LengthLimits
from lit_pref.data.tokens.tokenize import Tokenized, tokenize
from lit_pref.datamodules.trees import Loading, _TreeDataModule, sizes_of
from lit_pref.errors import UserError
from lit_pref.generation.policy import OpenPolicy, open_policy
from lit_pref.models import adapter_off, adds_nothing, computed_fingerprint, load_tokenizer
from lit_pref.sampling import Draw, GradedSamples, PairStrategy, SamplingJob, cached_samples, execution_pairs
from lit_pref.storage.arrays import default_cache_folder, keep_in_memory
from lit_pref.tasks import CodeTask
from lit_pref.tasks.references import gradable
from lit_pref.types import Dtype, Sampling, Split, Task


@dataclass(frozen=True)  # no slots: jsonargparse reads a default instance through vars()
class Samples:
    """Completions of a task's problems, which are run and graded.

    Args:
        each: completions a problem; the default is ours.
        sampling: how they are drawn; the default is ours.
        sampled_policy: the model that writes them; None is the module's own start policy (on-policy samples), in the
            precision that the module holds it in. Where its tokenizer is another one, the texts are tokenized again.
        dtype: of the sampled policy's weights; bfloat16 halves memory, and time where the hardware has it.
        cache_folder: where graded samples, and the pairs made of them, are kept as Parquet with a manifest of what
            they were made from; None is the user's cache folder.
        seed: draws problems and samples; None is the data module's. With one of their own, runs of several seeds share
            samples and draw pairs and their order, as where sampling costs more than training.
    """

    each: int = 8
    sampling: Sampling = Sampling(max_new_tokens=96)  # noqa: RUF009 - frozen
    sampled_policy: str | None = None
    dtype: Dtype = "float32"
    cache_folder: Path | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.each < 2:
            raise ValueError(f"each must be >= 2 to hold a passing and a failing sample, got {self.each}")
        if self.seed is not None and self.seed < 0:
            raise ValueError(f"seed must be >= 0, got {self.seed}")
        if self.sampling.temperature == 0:
            raise ValueError(f"{self.each} greedy samples are all alike: give a temperature above 0")


class _ExecutionDataModule(_TreeDataModule):
    """Samples a policy on a task's problems and grades them; a subclass says what to train on.

    Validation and test pairs are one a problem, at random, whatever is trained on, so that runs compare.

    Args:
        task: problems and their grading; by default the embedded code task.
        train_size: training problems to sample.
        validation_size: validation problems to sample.
        test_size: test problems to sample.
        samples: how many completions of a problem, how they are drawn, and by whom.
        policy: whose samples and tokens to show without a fit; in a fit it is the module's.
        batch_size: completions a batch and device; pairs where pairs are read.
        loading: batches of so many tokens instead, and worker processes.
        seed: draws problems, samples and the order; None is the run's `seed_everything`.
    """

    def __init__(
        self,
        task: Task | None = None,
        train_size: int = 2000,
        validation_size: int = 500,
        test_size: int = 500,
        samples: Samples = Samples(),
        policy: str | None = None,
        batch_size: int = 64,
        loading: Loading = Loading(),  # noqa: B008 - frozen
        seed: int | None = None,
    ) -> None:
        super().__init__(policy, batch_size, loading, seed)
        self.task = task if task is not None else CodeTask()
        self.sizes, self.samples = sizes_of(train_size, validation_size, test_size), samples
        self.cache_folder = samples.cache_folder or default_cache_folder()
        self.prepare_data_per_node = False  # one cache folder for all
        self.left_out: dict[Split, dict[str, str]] = {}  # problems whose references fail their own tests, and why
        self.own_tokens = True  # the samples' tokens mean the same to the module's tokenizer
        self._prepared: dict[Split, GradedSamples] = {}  # on the first of several processes, until `setup` takes them

    def splits(self) -> list[Split]:
        return [split for split in self.sizes if split in self.task.splits]

    def prepare_data(self) -> None:
        """Lightning calls this only on the first process, while the others wait."""
        if self.world_size > 1:
            # They get the samples in `setup`; had they drawn too, a last bit might differ.
            self.forget_other_module()
            needed = [split for split in self.needed(self.stage) if split not in self.data]
            self._prepared = {split: self._sampled(split) for split in needed}

    def _add(self, split: Split) -> None:
        self._add_pairs(split)

    def _add_pairs(self, split: Split, strategy: PairStrategy = "random", pairs_per_problem: int = 1) -> None:
        graded = self._graded(split)
        made = execution_pairs(graded.samples, self.seed, strategy, pairs_per_problem)
        if not made.pairs:
            raise UserError(
                f"no {split} pairs: {made.summary}; raise samples.each, {split}_size or temperature, or take a policy "
                "that solves some of the problems"
            )
        file = graded.folder / f"pairs-{strategy}-{pairs_per_problem}-seed{self.seed}.parquet"
        if graded.kept and not file.exists() and self.first:
            sampled = self.samples.sampled_policy
            tokenizer = self.module.tokenizer if sampled is None else load_tokenizer(sampled)
            try:
                write_pairs(file, made.pairs, vocabulary_fingerprint(tokenizer))
            except (OSError, UserError) as error:
                keep_in_memory(self.cache_folder, error)
        pairs = made.pairs if self.own_tokens else [without_tokens(pair) for pair in made.pairs]
        tokenized = tokenize(pairs, self.module.tokenizer, LengthLimits(), self.module.append_eos)
        self._keep_counted(split, "pair", tokenized, made.counts)

    def _keep_counted(self, split: Split, kind: str, rows: Tokenized, counts: Mapping[str, int]) -> None:
        left_out = len(self.left_out.get(split, {}))
        counts = {**counts, **({"problems left out, the reference fails": left_out} if left_out else {})}
        self._keep(split, kind, rows.trees, rows.values, counts)
        if self.first:
            print(f"{split}: " + ", ".join(f"{count:,} {what}" for what, count in counts.items() if count), flush=True)

    def _graded(self, split: Split) -> GradedSamples:
        """The samples of a split; those of the first process where there are several."""
        if self.world_size == 1:
            return self._sampled(split)
        assert self.trainer is not None
        prepared = self._prepared.pop(split, None)
        if self.first and prepared is None:
            prepared = self._sampled(split)
        broadcast = self.trainer.strategy.broadcast
        if broadcast(prepared is not None and prepared.kept):
            return prepared or self._sampled(split)  # found on the disk
        received, self.own_tokens = broadcast((prepared, self.own_tokens))
        assert received is not None
        return received

    def _sampled(self, split: Split) -> GradedSamples:
        # Without a fit the module is a name, and has no weights.
        name = self.samples.sampled_policy or (self.policy if self.trainer is None else None)
        off: AbstractContextManager[None] = nullcontext()
        if name is None:
            model = self.module.model.to(self.device)
            opened = OpenPolicy(model, self.module.tokenizer, computed_fingerprint(model))
            off = adapter_off(model) if adds_nothing(model) else off  # which costs time
        else:
            opened = open_policy(name, device=self.device, dtype=self.samples.dtype)
            self.own_tokens = opened.tokenizer.get_vocab() == self.module.tokenizer.get_vocab()
        seed = self.seed if self.samples.seed is None else self.samples.seed
        found = gradable(self.task, self.task.problems(split, self.sizes[split] or 0, seed))
        self.left_out[split] = found.left_out
        draw = Draw(self.samples.each, self.samples.sampling, seed)
        job = SamplingJob.of(self.task, found.problems, opened, draw)
        with off:
            return cached_samples(self.cache_folder, job, f"{len(found.problems):,} {split} problems x {draw.samples}")


class ExecutionPairsDataModule(_ExecutionDataModule):
    """Pairs of a passing and a failing completion of one problem; a problem without both gives no pair.

    Args:
        task: problems and their grading; by default the embedded code task.
        train_size: training problems to sample.
        validation_size: validation problems to sample, for one pair each at random.
        test_size: test problems to sample, likewise.
        samples: how many completions of a problem, how they are drawn, and by whom.
        strategy: random pairs any passing with any failing completion; best_vs_worst takes the failing one that passed
            the fewest cases before its first wrong one; length_matched those nearest in length, for reward models.
        pairs_per_problem: at most; further ones take other completions where there are any.
        policy: whose samples and tokens to show without a fit; in a fit it is the module's.
        batch_size: pairs a batch and device.
        loading: batches of so many tokens instead, and worker processes.
        seed: draws problems, samples, pairs and the order; None is the run's `seed_everything`.
    """

    def __init__(
        self,
        task: Task | None = None,
        train_size: int = 2000,
        validation_size: int = 500,
        test_size: int = 500,
        samples: Samples = Samples(),
        strategy: PairStrategy = "random",
        pairs_per_problem: int = 1,
        policy: str | None = None,
        batch_size: int = 32,
        loading: Loading = Loading(),  # noqa: B008 - frozen
        seed: int | None = None,
    ) -> None:
        sizes = train_size, validation_size, test_size
        super().__init__(task, *sizes, samples, policy, batch_size, loading, seed)
        if pairs_per_problem < 1:
            raise ValueError(f"pairs_per_problem must be >= 1, got {pairs_per_problem}")
        self.strategy, self.pairs_per_problem = strategy, pairs_per_problem

    def _add(self, split: Split) -> None:
        if split == "train":
            self._add_pairs(split, self.strategy, self.pairs_per_problem)
        else:
            self._add_pairs(split)
