"""Graded samples on disk: resumable Parquet shards with a manifest that says what they were made from.

`cached_samples` names the folder after that provenance, so that another policy, task, seed or setting makes another
one, and the same is found again; where nothing can be written the samples stay in memory. `kept_samples` writes the
folder that it is given, or fails. Either makes a shard again that is not what was written there.
Not covered: pruning what is no longer used.
"""

import inspect
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, is_dataclass
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from lit_pref.data.tokens.encoding import tokenizer_identity
from lit_pref.errors import UserError
from lit_pref.generation.policy import OpenPolicy
from lit_pref.machine.progress import progress_bar
from lit_pref.sampling.execution import Draw, GradedSample, sample_and_grade
from lit_pref.storage.arrays import keep_in_memory
from lit_pref.storage.files import JsonValue, provenance_digest
from lit_pref.storage.shards import ShardWriter
from lit_pref.types import Completion, Generator, Outcome, Problem, Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SCHEMA = pa.schema(
    [
        ("problem_id", pa.string()),
        ("prompt", pa.string()),  # plain text, or else:
        ("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        ("completion", pa.string()),
        ("completion_ids", pa.list_(pa.int32())),
        ("logps", pa.list_(pa.float32())),
        ("finished", pa.bool_()),
        ("outcome", pa.string()),
        ("case", pa.int32()),
    ]
)
_SHARD_PROBLEMS = 250


@dataclass(frozen=True)
class SamplingJob:
    """Who samples which problems, and how.

    policy: what tells the sampled policy apart: the fingerprint of its weights, or a server and a model's name.
    tokenizer: `tokenizer_fingerprint` of the policy's; None where only a server knows it.
    """

    task: Task
    problems: Sequence[Problem]
    generator: Generator
    draw: Draw
    policy: JsonValue
    tokenizer: str | None

    @classmethod
    def of(cls, task: Task, problems: Sequence[Problem], sampled: OpenPolicy | Generator, draw: Draw) -> "SamplingJob":
        """Of an open policy, or of a generator, which says itself what it is."""
        if isinstance(sampled, Generator):
            return cls(task, problems, sampled, draw, generator_identity(sampled), None)
        return cls(task, problems, sampled.generator(), draw, sampled.weights, tokenizer_fingerprint(sampled.tokenizer))

    def provenance(self) -> dict[str, JsonValue]:
        """All that the samples depend on."""
        # With their tests: a verdict is of these, whatever the problem is called.
        tested = [(p.id, p.prompt, p.cases, p.check, p.entry_point, p.answer) for p in self.problems]
        return {
            "task": self.task.name,
            "task_settings": _settings(self.task),
            "problems": blake2b(repr(tested).encode(), digest_size=8).hexdigest(),
            "policy": self.policy,
            "tokenizer": self.tokenizer,
            "samples": self.draw.samples,
            "sampling": asdict(self.task.with_stops(self.draw.sampling)),
            "seed": self.draw.seed,
            "format": 4,
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
    return _graded(job, _Store(folder, provenance, cache=root), name)


def kept_samples(folder: Path, job: SamplingJob, name: str) -> GradedSamples:
    """As `cached_samples`, in the given folder; Raises UserError where it was made otherwise or cannot be written."""
    return _graded(job, _Store(folder, job.provenance(), cache=None), name)


def _graded(job: SamplingJob, store: "_Store", name: str) -> GradedSamples:
    problems, samples = job.problems, job.draw.samples
    shards = [problems[start : start + _SHARD_PROBLEMS] for start in range(0, len(problems), _SHARD_PROBLEMS)]
    if missing := store.read(len(shards)):

        def done() -> int:
            return min(len(store.shards) * _SHARD_PROBLEMS, len(problems)) * samples

        with progress_bar(f"Sampling and running {name}", len(problems) * samples, done()) as advance:

            def keep(index: int, graded: list[GradedSample]) -> None:
                store.keep(index, graded)
                advance(done())

            sample_and_grade(job.task, job.generator, ((index, shards[index]) for index in missing), job.draw, keep)
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


class _Store:
    """Graded shards in memory, and on the disk as long as that can be written.

    cache: the cache folder that `folder` lies in, which a run can do without; None raises what stops the writing.
    kept: all that is in memory is on the disk.
    """

    def __init__(self, folder: Path, provenance: dict[str, JsonValue], cache: Path | None) -> None:
        self.folder, self.kept = folder, True
        self.shards: dict[int, list[GradedSample]] = {}
        self._cache = cache
        self._writer: ShardWriter | None = None
        with self._writing():
            self._writer = ShardWriter(folder, provenance, SCHEMA, cache is not None)

    def read(self, total: int) -> list[int]:
        """Take what earlier runs kept; which of so many shards are missing."""
        if self._writer is None:
            return list(range(total))
        missing = self._writer.missing(total)
        self.shards = {index: _read(self._writer.path(index)) for index in range(total) if index not in missing}
        return missing

    def keep(self, index: int, samples: list[GradedSample]) -> None:
        self.shards[index] = samples
        with self._writing():
            if self._writer is not None:
                counts = Counter(sample.outcome.value for sample in samples)
                self._writer.write(index, [_to_row(sample) for sample in samples], counts)

    def finish(self, total: int) -> None:
        """Declare the folder complete, where it is."""
        if self.kept and self._writer is not None and not self._writer.complete:
            with self._writing():
                self._writer.finish(total)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, UserError) as error:
            if self._cache is None:
                raise
            keep_in_memory(self._cache, error)
            self.kept = False


def _to_row(sample: GradedSample) -> dict[str, object]:
    completion = sample.completion
    is_text = isinstance(sample.prompt, str)
    return {
        "problem_id": sample.problem_id,
        "prompt": sample.prompt if is_text else None,
        "messages": None if is_text else sample.prompt,
        "completion": completion.text,
        "completion_ids": completion.token_ids,
        "logps": completion.logps,
        "finished": completion.finished,
        "outcome": sample.outcome.value,
        "case": sample.case,
    }


def _read(path: Path) -> list[GradedSample]:
    """Column by column: half the time that rows as dictionaries take."""
    table = pq.read_table(path)
    completions = map(
        Completion,
        table["completion"].to_pylist(),
        _lists(table["completion_ids"]),
        _lists(table["logps"]),
        table["finished"].to_pylist(),
    )
    prompts = table["prompt"].to_pylist()
    if table["prompt"].null_count:
        turns = table["messages"].to_pylist()
        prompts = [tuple(messages) if text is None else text for text, messages in zip(prompts, turns, strict=True)]
    outcomes = map(Outcome, table["outcome"].to_pylist())
    problems, cases = table["problem_id"].to_pylist(), table["case"].to_pylist()
    rows = zip(problems, prompts, completions, outcomes, cases, strict=True)
    return [GradedSample(*row) for row in rows]


def _lists(column: pa.ChunkedArray) -> list[tuple[Any, ...]]:
    """A tuple a row of a column of lists."""
    rows = column.combine_chunks()
    ends, values = rows.offsets.to_pylist(), rows.flatten().tolist()
    return [tuple(values[start - ends[0] : end - ends[0]]) for start, end in pairwise(ends)]
