"""Graded samples on disk: resumable Parquet shards with a manifest that says what they were made from.

The folder is named after its provenance, so that another policy, task, seed or setting makes another one, and the same
is found again; a shard that cannot be read is made again, and where nothing can be written the samples stay in memory.
Not covered: pruning what is no longer used; bytes of a shard that were altered and still read as one.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from lit_pref.data.encoding import tokenizer_identity
from lit_pref.data.reference_cache import keep_in_memory
from lit_pref.data.shards import JsonValue, ShardWriter, provenance_digest
from lit_pref.errors import UserError
from lit_pref.progress import progress_bar
from lit_pref.synthesis.execution import GradedSample, SampleSettings, sample_and_grade
from lit_pref.types import Completion, Generator, Outcome, Problem, Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SCHEMA = pa.schema(
    [
        ("problem_id", pa.string()),
        ("prompt", pa.string()),
        ("completion", pa.string()),
        ("completion_ids", pa.list_(pa.int32())),
        ("logps", pa.list_(pa.float32())),
        ("finished", pa.bool_()),
        ("outcome", pa.string()),
    ]
)
_SHARD_PROBLEMS = 250


class GradedSamples(NamedTuple):
    """The samples, problem by problem, and the folder that keeps them, unless it could not be written."""

    samples: list[GradedSample]
    folder: Path
    kept: bool


def graded_samples(
    root: Path,
    task: Task,
    problems: Sequence[Problem],
    generator: Generator,
    draw: SampleSettings,
    policy: str,
    tokenizer: str,
    name: str,
) -> GradedSamples:
    """Samples of the problems, graded; from the disk where they were made before, else made shard by shard.

    root: the cache folder.
    policy: fingerprint of the weights that are sampled.
    tokenizer: `tokenizer_fingerprint` of the policy's.
    name: what the progress bar calls them.
    """
    provenance: dict[str, JsonValue] = {
        "task": task.name,
        # With their cases: a verdict is of these tests, whatever the problem is called.
        "problems": blake2b(repr([(p.id, p.prompt, p.cases) for p in problems]).encode(), digest_size=8).hexdigest(),
        "policy": policy,
        "tokenizer": tokenizer,
        "samples": draw.samples,
        "sampling": asdict(draw.sampling),
        "seed": draw.seed,
        "format": 2,
    }
    folder = root / "execution" / f"{task.name}-{provenance_digest(provenance)}"
    shards = [problems[start : start + _SHARD_PROBLEMS] for start in range(0, len(problems), _SHARD_PROBLEMS)]
    store = _Store(root, folder, provenance)
    store.read([len(shard) * draw.samples for shard in shards])
    missing = [index for index in range(len(shards)) if index not in store.shards]
    if missing:
        with progress_bar(f"Sampling and running {name}", len(problems) * draw.samples) as advance:

            def keep(index: int, graded: list[GradedSample]) -> None:
                store.keep(index, graded)
                advance(len(store.shards) * _SHARD_PROBLEMS * draw.samples)

            sample_and_grade(task, generator, ((index, shards[index]) for index in missing), draw, keep)
    store.finish(len(shards))
    samples = [sample for index in range(len(shards)) for sample in store.shards[index]]
    return GradedSamples(samples, folder, store.kept)


def tokenizer_fingerprint(tokenizer: "PreTrainedTokenizerBase") -> str:
    """Hex digits that tell apart tokenizers which make other tokens of prompts or other text of samples."""
    # One without a fast backend does not state all that it does; its vocabulary is most of it.
    return tokenizer_identity(tokenizer) or provenance_digest([type(tokenizer).__qualname__, tokenizer.get_vocab()])


class _Store:
    """Graded shards in memory, and on the disk as long as that can be written.

    kept: all that is in memory is on the disk.
    """

    def __init__(self, root: Path, folder: Path, provenance: dict[str, JsonValue]) -> None:
        self.root, self.kept = root, True
        self.shards: dict[int, list[GradedSample]] = {}
        self._writer: ShardWriter | None = None
        with self._writing():
            self._writer = ShardWriter(folder, provenance, SCHEMA)

    def read(self, rows: Sequence[int]) -> None:
        """Take what earlier runs kept. rows: samples of each shard; one that holds others is no shard."""
        if self._writer is None:
            return
        for index in self._writer.done():
            path = self._writer.path(index)
            try:
                samples = _read(path)
            except (OSError, pa.ArrowException, KeyError, ValueError):  # cut short, or no Parquet of ours
                samples = []
            if index < len(rows) and len(samples) == rows[index]:
                self.shards[index] = samples
            else:
                print(f"{path}: is no whole shard of {rows[index : index + 1]} samples; made again", flush=True)

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
            keep_in_memory(self.root, error)
            self.kept = False


def _to_row(sample: GradedSample) -> dict[str, object]:
    completion = sample.completion
    return {
        "problem_id": sample.problem_id,
        "prompt": sample.prompt,
        "completion": completion.text,
        "completion_ids": completion.token_ids,
        "logps": completion.logps,
        "finished": completion.finished,
        "outcome": sample.outcome.value,
    }


def _read(path: Path) -> list[GradedSample]:
    """Column by column: half the time that rows as dictionaries take."""
    table = pq.read_table(path)
    ids, logps = (_lists(table[name]) for name in ("completion_ids", "logps"))
    texts = (table[name].to_pylist() for name in ("completion", "finished", "problem_id", "prompt", "outcome"))
    return [
        GradedSample(problem, prompt, Completion(text, tokens, scores, finished), Outcome(outcome))
        for tokens, scores, text, finished, problem, prompt, outcome in zip(ids, logps, *texts, strict=True)
    ]


def _lists(column: pa.ChunkedArray) -> list[tuple[Any, ...]]:
    """A tuple a row of a column of lists."""
    rows = column.combine_chunks()
    ends, values = rows.offsets.to_pylist(), rows.flatten().tolist()
    return [tuple(values[start - ends[0] : end - ends[0]]) for start, end in pairwise(ends)]
