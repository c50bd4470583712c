"""Graded samples on disk: resumable Parquet shards with a manifest that says what they were made from.

`cached_samples` names the folder after that provenance, so that another policy, task, seed or setting makes another
one, and the same is found again; where nothing can be written the samples stay in memory. `kept_samples` writes the
folder that it is given, or fails. Either makes a shard again that is not what was written there.
Not covered: pruning what is no longer used.
"""

import inspect
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, fields, is_dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lit_pref.data.tokens.encoding import tokenizer_identity
from lit_pref.errors import UserError
from lit_pref.generation.local import MAX_TOKENS
from lit_pref.generation.policy import OpenPolicy
from lit_pref.machine.progress import progress_bar
from lit_pref.sampling.drawing import Draw, draw_all, tell_cut
from lit_pref.sampling.grading import GradedSample, sample_and_grade
from lit_pref.sampling.store import SampleStore
from lit_pref.storage.files import JsonValue, provenance_digest
from lit_pref.types import Completion, Generator, Problem, Sampling, Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SHARD_PROBLEMS = 250


@dataclass(frozen=True)
class SamplingJob:
    """Who samples which problems, and how.

    policy: what tells the sampled policy apart: the fingerprint of its weights, or a server and a model's name; None
        where nothing does.
    tokenizer: `tokenizer_fingerprint` of the policy's; None where only a server knows it.
    """

    task: Task
    problems: Sequence[Problem]
    generator: Generator
    draw: Draw
    policy: JsonValue
    tokenizer: str | None

    @classmethod
    def of(
        cls,
        task: Task,
        problems: Sequence[Problem],
        sampled: OpenPolicy | Generator,
        draw: Draw,
        max_tokens_per_batch: int = MAX_TOKENS,
    ) -> "SamplingJob":
        """Of an open policy, or of a generator, which says itself what it is.

        max_tokens_per_batch: tokens that a policy holds side by side.
        """
        if isinstance(sampled, Generator):
            identity = generator_identity(sampled) if is_dataclass(sampled) else None
            return cls(task, problems, sampled, draw, identity, None)
        generator, tokenizer = sampled.generator(max_tokens_per_batch), tokenizer_fingerprint(sampled.tokenizer)
        return cls(task, problems, generator, draw, sampled.weights, tokenizer)

    @property
    def sampling(self) -> Sampling:
        """With the stops of the task."""
        return self.task.with_stops(self.draw.sampling)

    def provenance(self) -> dict[str, JsonValue]:
        """All that the samples depend on; Raises UserError for a generator that does not say what it is."""
        if self.policy is None:
            generator_identity(self.generator)
        # With their tests: a verdict is of these, whatever the problem is called.
        tested = [(p.id, p.prompt, p.cases, p.check, p.entry_point, p.answer) for p in self.problems]
        return {
            "task": self.task.name,
            "task_settings": _settings(self.task),
            "problems": blake2b(repr(tested).encode(), digest_size=8).hexdigest(),
            "policy": self.policy,
            "tokenizer": self.tokenizer,
            "samples": self.draw.samples,
            "sampling": asdict(self.sampling),
            "seed": self.draw.seed,
            "format": 5,
        }


def _settings(task: Task) -> dict[str, JsonValue]:
    """A task's own arguments that state themselves: with other ones it may grade otherwise."""
    told = {name: repr(vars(task)[name]) for name in inspect.signature(type(task)).parameters if name in vars(task)}
    return {name: value for name, value in told.items() if " at 0x" not in value}


class GradedSamples(NamedTuple):
    """The samples, problem by problem, and the folder that keeps them, unless it could not be written."""

    samples: list[GradedSample]
    folder: Path
    kept: bool


def cached_samples(root: Path, job: SamplingJob, name: str) -> GradedSamples:
    """Samples of the job, graded; from the cache where they were made before, else made shard by shard.

    root: the cache folder.
    name: what the progress bar calls them.
    """
    provenance = job.provenance()
    folder = root / "execution" / f"{job.task.name}-{provenance_digest(provenance)}"
    return _graded(job, SampleStore(folder, provenance, cache=root), name)


def kept_samples(folder: Path, job: SamplingJob, name: str) -> GradedSamples:
    """As `cached_samples`, in the given folder; Raises UserError where it was made otherwise or cannot be written."""
    return _graded(job, SampleStore(folder, job.provenance(), cache=None), name)


def _graded(job: SamplingJob, store: SampleStore, name: str) -> GradedSamples:
    problems = job.problems
    shards = [problems[start : start + _SHARD_PROBLEMS] for start in range(0, len(problems), _SHARD_PROBLEMS)]
    if missing := store.read(len(shards)):
        with closing(store):
            begun = [store.journal(index) for index in missing if store.begun(index)]
            done, tokens = sum(map(len, store.shards.values())) + sum(len(each.found) for each in begun if each), 0
            with progress_bar(f"Sampling and running {name}", len(problems) * job.draw.samples, done) as advance:

                def sample(index: int, problems: Sequence[Problem]) -> list[list[Completion]]:
                    nonlocal done, tokens
                    journal = store.journal(index)
                    others, drawn = done - (len(journal.found) if journal else 0), tokens

                    def tell(ended: int, new: int) -> None:
                        nonlocal done, tokens
                        done, tokens = others + ended, drawn + new
                        advance(done, tokens)

                    draw = Draw(job.draw.samples, job.sampling, job.draw.seed * 10_007 + index)
                    return draw_all(job.generator, [problem.prompt for problem in problems], draw, journal, tell)

                sample_and_grade(job.task, ((index, shards[index]) for index in missing), sample, store.keep)
        tell_cut([each.completion for index in missing for each in store.shards[index]], job.sampling)
    store.finish(len(shards))
    graded = [sample for index in range(len(shards)) for sample in store.shards[index]]
    return GradedSamples(graded, store.folder, store.kept)


def tokenizer_fingerprint(tokenizer: "PreTrainedTokenizerBase") -> str:
    """Hex digits that tell apart tokenizers which make other tokens of prompts or other text of samples."""
    # One without a fast backend does not state all that it does; its vocabulary is most of it.
    return tokenizer_identity(tokenizer) or provenance_digest([type(tokenizer).__qualname__, tokenizer.get_vocab()])


def generator_identity(generator: Generator) -> JsonValue:
    """A generator's class and the fields that decide what it writes, which are those that compare; never a key."""
    if not is_dataclass(generator):
        raise UserError(
            f"the generator {type(generator).__name__} must be a dataclass: its fields say what its samples depend on, "
            "so that a later run knows whether it can go on with them"
        )
    compared = {each.name: getattr(generator, each.name) for each in fields(generator) if each.compare}
    return {"generator": type(generator).__qualname__, **compared}
