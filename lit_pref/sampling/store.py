"""Graded shards of samples on the disk, and what was drawn of those that are not whole yet.

A shard that is being sampled has a journal beside it, so that an interruption costs no sample; it goes once the shard
is kept. Where a cache cannot be written, shards are held in memory.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lit_pref.errors import UserError
from lit_pref.sampling.grading import GradedSample
from lit_pref.sampling.sample_journal import SampleJournal
from lit_pref.storage.arrays import keep_in_memory
from lit_pref.storage.files import JsonValue, provenance_digest
from lit_pref.storage.shards import ShardWriter, shard_path
from lit_pref.types import Completion, Outcome

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


class SampleStore:
    """Graded shards in memory, and on the disk as long as that can be written.

    cache: the cache folder that `folder` lies in, which a run can do without; None raises what stops the writing.
    kept: all that is in memory is on the disk.
    """

    def __init__(self, folder: Path, provenance: dict[str, JsonValue], cache: Path | None) -> None:
        self.folder, self.kept = folder, True
        self.shards: dict[int, list[GradedSample]] = {}
        self._cache, self._provenance = cache, provenance
        self._journals: dict[int, SampleJournal] = {}
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
                if journal := self._journals.pop(index, None):
                    journal.remove()

    def finish(self, total: int) -> None:
        """Declare the folder complete, where it is."""
        if self.kept and self._writer is not None and not self._writer.complete:
            with self._writing():
                self._writer.finish(total)

    # --- shards that are being sampled --------------------------------------------------------------------------------

    def begun(self, index: int) -> bool:
        """Whether an earlier run drew some of a shard's samples."""
        return self._journal_of(index).exists()

    def journal(self, index: int) -> SampleJournal | None:
        """What keeps a shard's completions from now on, with those; None where nothing can be kept."""
        if self._writer is not None and index not in self._journals:
            provenance: dict[str, JsonValue] = {"samples": provenance_digest(self._provenance), "shard": index}
            self._journals[index] = SampleJournal(self._journal_of(index), provenance, self._cache)
        return self._journals.get(index)

    def close(self) -> None:
        """Leave what is unfinished to later runs."""
        for journal in self._journals.values():
            journal.close()

    def _journal_of(self, index: int) -> Path:
        return shard_path(self.folder, index).with_suffix(".drawn.jsonl")

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
