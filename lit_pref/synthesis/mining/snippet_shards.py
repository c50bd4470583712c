"""Source files to shards of distinct snippets: files are cut in parallel, duplicates dropped in one pass.

Files are handed out in waves of shards, so that neither their list nor their content is ever held whole, and a limit
needs no more of them than it must. Not covered: a source that changes between two runs.
"""

import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Generator as Stream
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import ClassVar, NamedTuple

import pyarrow as pa

from lit_pref.data.source_code.files import SourceFile
from lit_pref.machine.progress import progress_bar
from lit_pref.storage.files import JsonValue
from lit_pref.storage.shards import ShardWriter, read_counts
from lit_pref.synthesis.mining.snippets import Snippet
from lit_pref.synthesis.mining.source_code import (
    FileSnippets,
    SnippetSettings,
    snippets_of_file,
    unique_snippets,
)
from lit_pref.synthesis.stages.local import (
    Row,
    Runner,
    ShardRows,
    Stage,
    rows_of,
    stream_shards,
)

SHARD_ROWS = 256  # snippets that a generator is given at once
SNIPPET_SCHEMA = pa.schema([(name, pa.int64() if name == "line" else pa.string()) for name in Snippet._fields])
_SHARD_FILES, _SHARD_BYTES = 128, 2_000_000  # of a shard of files; bytes of those that came out of an archive or table
_FIRST_WAVE, _LAST_WAVE = 1, 128  # shards of files that are under way at once: few at first, as a limit may need few


class Source(NamedTuple):
    """Source files. files: starts them from the first, the same each time. identity: what they are, as JSON."""

    files: Callable[[], Iterator[SourceFile]]
    identity: Mapping[str, JsonValue]


def snippet_of(row: Row) -> Snippet:
    return Snippet(**{name: row[name] for name in Snippet._fields})  # type: ignore[arg-type]


@dataclass(frozen=True)
class ExtractSnippets(Stage):
    """Files to snippets with the keys by which duplicates are known.

    files: those of each shard of this wave.
    """

    schema: ClassVar[pa.Schema] = SNIPPET_SCHEMA.append(pa.field("key", pa.binary()))
    title: ClassVar[str] = "Cutting files into snippets"

    source: Mapping[str, JsonValue]
    settings: SnippetSettings
    files: Mapping[int, Sequence[SourceFile]]

    def provenance(self) -> dict[str, JsonValue]:
        return {**self.source, "settings": asdict(self.settings), "format": 1}

    def rows(self, index: int) -> ShardRows:
        rows, counts = list[Row](), Counter[str]()
        for file in self.files[index]:
            found = snippets_of_file(file, self.settings)
            counts.update(found.counts)
            rows += [{**s._asdict(), "key": key} for s, key in zip(found.snippets, found.keys, strict=True)]
        return ShardRows(rows, counts)

    @staticmethod
    def found(rows: Sequence[Row]) -> FileSnippets:
        """What a shard's rows hold, as of one file, without its counts."""
        snippets = tuple(snippet_of(row) for row in rows)
        return FileSnippets(snippets, tuple(row["key"] for row in rows), Counter())  # type: ignore[misc]


def cut_snippets(output: Path, source: Source, settings: SnippetSettings, limit: int | None, runner: Runner) -> None:
    """Distinct snippets of the source in `output / "snippets"`, in shards; the same ones for every runner.

    limit: the first so many that are left; None is all.
    """
    stage = ExtractSnippets(output / "extracted", source.identity, settings, {})
    writer = ShardWriter(output / "snippets", {**stage.provenance(), "limit": limit}, SNIPPET_SCHEMA)
    if writer.complete:
        return
    counts: Counter[str] = Counter()
    total = limit if limit is not None else sum(1 for _ in source.files())
    with progress_bar(stage.title, total) as advance:
        cutting = _Cutting(stage, source, limit, runner, advance)
        stream_shards(writer, lambda: cutting.distinct(counts), counts, SHARD_ROWS)
    shutil.rmtree(stage.folder)  # all that is wanted of it stands in `snippets/`


class _Cutting(NamedTuple):
    """advance: is told of files, or of snippets where these are limited."""

    stage: ExtractSnippets
    source: Source
    limit: int | None
    runner: Runner
    advance: Callable[[int], None]

    def distinct(self, counts: Counter[str]) -> Iterator[Row]:
        """Snippets without duplicates, up to the limit; `counts` has all of them once the stream has ended."""
        cut, duplicates, kept = Counter[str](), Counter[str](), 0
        with closing(self._extracted(cut)) as files:
            for snippet in islice(unique_snippets(files, duplicates), self.limit):
                kept += 1
                if self.limit is not None:
                    self.advance(kept)
                yield snippet._asdict()
        for name in sorted(cut | +duplicates, key=_order):
            counts[name] += cut[name] + duplicates[name]  # the latter takes duplicates off
        counts["snippets beyond the limit"] = counts["snippets"] - kept

    def _extracted(self, cut: Counter[str]) -> Stream[FileSnippets, None, None]:
        """What each shard of files holds, in their order; its counts are added to `cut`."""
        folder, files = self.stage.folder, 0
        writer = ShardWriter(folder, self.stage.provenance(), self.stage.schema)
        writer.drop_damaged()
        for wave in _waves(self.source.files()):
            missing = {index: wave[index] for index in sorted(wave.keys() - set(writer.done()))}
            for _ in self.runner.run(replace(self.stage, files=missing), list(missing)) if missing else ():
                pass
            for index, several in wave.items():
                cut.update(read_counts(writer.path(index)))
                files += len(several)
                if self.limit is None:
                    self.advance(files)
                yield ExtractSnippets.found(rows_of(folder, index))


def _order(name: str) -> tuple[int, str]:
    """Of counts for people: files, what became of them, definitions, what became of these."""
    what, _, reason = name.partition(":")
    return ("files", "files used", "dropped files", "definitions", "snippets", "dropped definitions").index(
        what
    ), reason


def _waves(files: Iterator[SourceFile]) -> Iterator[dict[int, list[SourceFile]]]:
    """Files in numbered shards, and these in waves whose size doubles."""
    wave: dict[int, list[SourceFile]] = {}
    shard, held, index, size = list[SourceFile](), 0, 0, _FIRST_WAVE
    for file in files:
        shard.append(file)
        held += len(file.content) if isinstance(file.content, str | bytes) else 0
        if len(shard) == _SHARD_FILES or held >= _SHARD_BYTES:
            wave[index], shard, held, index = shard, [], 0, index + 1
        if len(wave) == size:
            yield wave
            wave, size = {}, min(2 * size, _LAST_WAVE)
    if shard:
        wave[index] = shard
    if wave:
        yield wave
