"""Graded samples on disk: resumable Parquet shards with a manifest that says what they were made from.

The folder is named after its provenance, so that another policy, task, seed or setting makes another one, and the same
is found again. Not covered: pruning what is no longer used.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from lit_pref.data.shards import JsonValue, ShardWriter, provenance_digest
from lit_pref.progress import progress_bar
from lit_pref.synthesis.execution import GradedSample, SampleSettings, sample_and_grade
from lit_pref.types import Completion, Generator, Outcome, Problem, Task

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
    """The samples, problem by problem, and the folder that keeps them."""

    samples: list[GradedSample]
    folder: Path


def graded_samples(
    root: Path,
    task: Task,
    problems: Sequence[Problem],
    generator: Generator,
    draw: SampleSettings,
    policy: str,
    name: str,
) -> GradedSamples:
    """Samples of the problems, graded; from the disk where they were made before, else made shard by shard.

    root: the cache folder.
    policy: fingerprint of the weights that are sampled.
    name: what the progress bar calls them.
    """
    provenance: dict[str, JsonValue] = {
        "task": task.name,
        # With their cases: a verdict is of these tests, whatever the problem is called.
        "problems": blake2b(repr([(p.id, p.prompt, p.cases) for p in problems]).encode(), digest_size=8).hexdigest(),
        "policy": policy,
        "samples": draw.samples,
        "sampling": asdict(draw.sampling),
        "seed": draw.seed,
        "format": 1,
    }
    folder = root / "execution" / f"{task.name}-{provenance_digest(provenance)}"
    writer = ShardWriter(folder, provenance, SCHEMA)
    total = -(-len(problems) // _SHARD_PROBLEMS)
    missing = writer.missing(total)
    if missing:
        with progress_bar(f"Sampling and running {name}", len(problems) * draw.samples) as advance:

            def keep(index: int, graded: list[GradedSample]) -> None:
                writer.write(index, [_to_row(sample) for sample in graded], Counter(s.outcome.value for s in graded))
                advance(len(writer.done()) * _SHARD_PROBLEMS * draw.samples)

            shards = ((i, problems[i * _SHARD_PROBLEMS : (i + 1) * _SHARD_PROBLEMS]) for i in missing)
            sample_and_grade(task, generator, shards, draw, keep)
    if not writer.complete:
        writer.finish(total)
    rows = (row for index in range(total) for row in pq.read_table(writer.path(index)).to_pylist())
    return GradedSamples([_from_row(row) for row in rows], folder)


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


def _from_row(row: dict[str, object]) -> GradedSample:
    completion = Completion(row["completion"], tuple(row["completion_ids"]), tuple(row["logps"]), row["finished"])  # type: ignore[arg-type]
    return GradedSample(str(row["problem_id"]), str(row["prompt"]), completion, Outcome(str(row["outcome"])))
