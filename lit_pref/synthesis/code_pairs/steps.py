"""The steps from source files to code pairs as stages in shards: each reads the shards of the one before it.

extracted/ -> snippets/ -> descriptions/ -> described/ -> completions/strong, weak, clipped -> pairs/
Parallel stages keep their order; between them, duplicates are dropped in one pass over all rows (`stream_shards`).
"""

from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import ClassVar

import pyarrow as pa

from lit_pref.sampling.sample_journal import SampleJournal
from lit_pref.storage.files import JsonValue, provenance_digest
from lit_pref.storage.shards import shard_path
from lit_pref.synthesis.code_pairs.completions import (
    Completions,
    Role,
    clipped,
    completed,
    completion_prompt,
    written_code,
)
from lit_pref.synthesis.code_pairs.constructions import (
    CodePair,
    Construction,
    Material,
    NoPairError,
    PairFilters,
    code_pair,
)
from lit_pref.synthesis.code_pairs.descriptions import Describer, described
from lit_pref.synthesis.code_pairs.sides import Written
from lit_pref.synthesis.mining.snippet_shards import SNIPPET_SCHEMA, snippet_of
from lit_pref.synthesis.mining.snippets import Snippet
from lit_pref.synthesis.stages.local import Row, ShardRows, Stage, rows_of
from lit_pref.types import Generator

_TEXT = pa.string()
DESCRIBED_SCHEMA = SNIPPET_SCHEMA.append(pa.field("description", _TEXT)).append(pa.field("generated", pa.bool_()))


def seed_of(seed: int, role: str, index: int) -> int:
    """A generator's seed for a shard: 31 bits, apart for each part and shard."""
    return int.from_bytes(blake2b(f"{seed}:{role}:{index}".encode(), digest_size=4).digest(), "big") >> 1


@dataclass(frozen=True)
class _SamplingStage(Stage):
    """One whose rows a generator writes: what it wrote of a shard that is not whole yet stands beside it."""

    def journal(self, index: int) -> SampleJournal:
        provenance: dict[str, JsonValue] = {"stage": provenance_digest(self.provenance()), "shard": index}
        return SampleJournal(self._journal_of(index), provenance)

    def write(self, index: int) -> None:
        super().write(index)
        self._journal_of(index).unlink(missing_ok=True)

    def _journal_of(self, index: int) -> Path:
        return shard_path(self.folder, index).with_suffix(".drawn.jsonl")


# --- the stages -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DescribeSnippets(_SamplingStage):
    """Snippets to descriptions, some of them empty."""

    schema: ClassVar[pa.Schema] = DESCRIBED_SCHEMA
    title: ClassVar[str] = "Describing snippets"

    snippets: Path
    describer: Describer
    generator: Generator | None
    origin: Mapping[str, JsonValue]
    seed: int

    def provenance(self) -> dict[str, JsonValue]:
        taken: dict[str, JsonValue] = {
            "descriptions": self.describer.descriptions,
            "summary": self.describer.summary,
        }
        if self.generator is None:
            return {**self.origin, **taken}
        return {**self.origin, **taken, "sampling": asdict(self.describer.sampling), "seed": self.seed}

    def rows(self, index: int) -> ShardRows:
        snippets = [snippet_of(row) for row in rows_of(self.snippets, index)]
        seed = seed_of(self.seed, "describer", index)
        with closing(self.journal(index)) as journal:
            found = described(snippets, self.describer, self.generator, seed, journal)
        rows = [
            {**snippet._asdict(), "description": description.text, "generated": description.generated}
            for snippet, description in zip(snippets, found, strict=True)
        ]
        return ShardRows(rows, {"descriptions generated": sum(description.generated for description in found)})


@dataclass(frozen=True)
class WriteCode(_SamplingStage):
    """Descriptions to what one model writes from them.

    keep: of a clipped description; without meaning for the other roles.
    """

    schema: ClassVar[pa.Schema] = pa.schema([("text", _TEXT), ("finished", pa.bool_())])

    described: Path
    role: Role
    completions: Completions
    generator: Generator
    origin: Mapping[str, JsonValue]
    keep: float
    seed: int

    @property
    def title(self) -> str:  # type: ignore[override]
        return f"Writing code, {self.role}"

    def provenance(self) -> dict[str, JsonValue]:
        clip = {"keep": self.keep} if self.role == "clipped" else {}
        return {**self.origin, **asdict(self.completions), **clip, "role": self.role, "seed": self.seed}

    def rows(self, index: int) -> ShardRows:
        """A row a description; without text where it is too short to clip."""
        given = rows_of(self.described, index)
        descriptions = [str(row["description"]) for row in given]
        if self.role == "clipped":
            descriptions = [clipped(description, self.keep) for description in descriptions]
        style = self.completions.style
        prompts = [
            completion_prompt(snippet_of(row), description, style)
            for row, description in zip(given, descriptions, strict=True)
            if description
        ]
        name = "weak" if self.role == "weak" else "strong"
        seed = seed_of(self.seed, self.role, index)
        with closing(self.journal(index)) as journal:
            answers = iter(completed(name, self.generator, prompts, self.completions.sampling, seed, journal))
        rows: list[Row] = []
        for description in descriptions:
            answer = next(answers) if description else None
            rows.append({"text": answer and answer.text, "finished": answer and answer.finished})
        return ShardRows(rows)


@dataclass(frozen=True)
class MakePairs(Stage):
    """Descriptions and completions to pairs.

    written: the folder of each role's completions.
    """

    title: ClassVar[str] = "Making pairs"
    schema: ClassVar[pa.Schema] = pa.schema(
        [(name, pa.float64() if name == "confidence" else _TEXT) for name in CodePair._fields]
    )

    described: Path
    written: Mapping[Role, Path]
    completions: Completions
    construction: Construction
    filters: PairFilters
    origin: Mapping[str, JsonValue]
    seed: int

    def provenance(self) -> dict[str, JsonValue]:
        construction = {"name": type(self.construction).__name__, **asdict(self.construction)}  # type: ignore[call-overload]
        return {**self.origin, "construction": construction, "filters": asdict(self.filters), "seed": self.seed}

    def rows(self, index: int) -> ShardRows:
        columns = {role: rows_of(folder, index) for role, folder in self.written.items()}
        rows, counts = list[Row](), Counter[str]()
        for number, row in enumerate(rows_of(self.described, index)):
            snippet = snippet_of(row)
            written = {role: self._code(snippet, column[number]) for role, column in columns.items()}
            try:
                pair = code_pair(
                    Material(snippet, str(row["description"]), **written), self.construction, self.filters, self.seed
                )
            except NoPairError as error:
                counts[f"no pair: {error}"] += 1
                continue
            rows.append(pair._asdict())
        return ShardRows(rows, {**dict(sorted(counts.items())), "pairs": len(rows)})

    def _code(self, snippet: Snippet, row: Row) -> Written | None:
        text, finished = row["text"], row["finished"]
        return None if text is None else written_code(snippet, str(text), bool(finished), self.completions.style)
