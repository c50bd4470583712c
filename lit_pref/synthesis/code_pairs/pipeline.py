"""Source code to preference pairs, stage by stage, in a folder that a later run can go on with.

The folder holds a folder of shards for each stage (`steps.py`). Models are opened one after another. What
was made is taken unchanged while the settings that it depends on are the same; pairs are made again by each run, so
another construction costs no completions that are there. Not covered: a source that changes between two runs.
"""

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from lit_pref.errors import UserError
from lit_pref.storage.files import JsonValue, provenance_digest
from lit_pref.storage.shards import MANIFEST, ShardWriter, read_manifest
from lit_pref.synthesis.code_pairs.completions import Completions, Role
from lit_pref.synthesis.code_pairs.constructions import ClippedDescription, Construction, PairFilters
from lit_pref.synthesis.code_pairs.descriptions import Describer, repeated
from lit_pref.synthesis.code_pairs.steps import (
    DESCRIBED_SCHEMA,
    DescribeSnippets,
    MakePairs,
    WriteCode,
)
from lit_pref.synthesis.mining.near_duplicates import SeenSnippets
from lit_pref.synthesis.mining.snippet_shards import SHARD_ROWS, Source, cut_snippets
from lit_pref.synthesis.mining.source_code import SnippetSettings
from lit_pref.synthesis.stages.local import Row, Runner, rows_of, run_stage, stage_counts, stream_shards
from lit_pref.types import Generator


class Writer(NamedTuple):
    """A generator that is open, and what tells it apart, as JSON."""

    generator: Generator
    identity: JsonValue


@dataclass(frozen=True)
class CodePairsJob:
    """What is made of what. limit: snippets at most, the first ones that are left; None is all."""

    source: Source
    snippets: SnippetSettings
    limit: int | None
    describer: Describer
    completions: Completions
    construction: Construction
    filters: PairFilters
    seed: int


class CodePairsMade(NamedTuple):
    """The folder of the pairs, and what became of everything, in the order of the stages."""

    folder: Path
    counts: dict[str, int]


def make_code_pairs(output: Path, job: CodePairsJob, opened: Callable[[str], Writer], runner: Runner) -> CodePairsMade:
    """Code pairs in `output / "pairs"`.

    opened: gives the writer of a part: describer, strong, weak; asked only for those that the job needs.

    Raises UserError where no snippet, description or pair is left, saying what became of them, where the folder was
    made otherwise, and for what retries of a server do not mend; what is finished stays, and a later run goes on.
    """
    with runner.opened():
        cut_snippets(output, job.source, job.snippets, job.limit, runner)
        _refuse_none(output / "snippets", "snippet")
        _describe(output, job, opened, runner)
        for role in job.construction.needs:
            _write(output, job, role, opened("weak" if role == "weak" else "strong"), runner)
        return _pair(output, job, opened, runner)


# --- descriptions and completions -------------------------------------------------------------------------------------


def _describe(output: Path, job: CodePairsJob, opened: Callable[[str], Writer], runner: Runner) -> None:
    """Descriptions of all snippets, then those that are neither empty nor said before."""
    snippets, asked = output / "snippets", job.describer.descriptions != "docstring"
    generator, identity = opened("describer") if asked else (None, None)
    origin = {**_origin(snippets), "generator": identity}
    stage = DescribeSnippets(output / "descriptions", snippets, job.describer, generator, origin, job.seed)
    shards = _shards(snippets)
    run_stage(stage, shards, _rows(snippets), runner)
    counts: Counter[str] = Counter()

    def distinct() -> Iterator[Row]:
        with closing(SeenSnippets()) as seen:
            for index in range(shards):
                rows = rows_of(stage.folder, index)
                reasons = repeated([str(row["description"]) for row in rows], seen, job.filters.near_duplicates)
                for row, reason in zip(rows, reasons, strict=True):
                    counts[f"dropped: {reason}" if reason else "descriptions"] += 1
                    if not reason:
                        yield row

    folder = output / "described"
    provenance = {**_origin(stage.folder), "near_duplicates": job.filters.near_duplicates}
    stream_shards(ShardWriter(folder, provenance, DESCRIBED_SCHEMA), distinct, counts, SHARD_ROWS)
    _refuse_none(folder, "description")


def _write(output: Path, job: CodePairsJob, role: Role, writer: Writer, runner: Runner) -> None:
    described = output / "described"
    origin = {**_origin(described), "generator": writer.identity}
    keep = job.construction.keep if isinstance(job.construction, ClippedDescription) else 1.0
    stage = WriteCode(
        output / "completions" / role, described, role, job.completions, writer.generator, origin, keep, job.seed
    )
    run_stage(stage, _shards(described), _rows(described), runner)


# --- pairs ------------------------------------------------------------------------------------------------------------


def _pair(output: Path, job: CodePairsJob, opened: Callable[[str], Writer], runner: Runner) -> CodePairsMade:
    described, folder = output / "described", output / "pairs"
    written = {role: output / "completions" / role for role in job.construction.needs}
    origin: dict[str, JsonValue] = _origin(described)
    origin |= {role: _origin(each)["from"] for role, each in written.items()}
    stage = MakePairs(folder, described, written, job.completions, job.construction, job.filters, origin, job.seed)
    _clear_if_otherwise(stage)
    made = run_stage(stage, _shards(described), _rows(described), runner)
    counts = {**stage_counts(output / "snippets"), **stage_counts(output / "descriptions")}
    counts |= {**stage_counts(described), **made}
    counts["pairs"] = counts.pop("pairs")  # last
    _refuse_none(folder, "pair")
    return CodePairsMade(folder, {name: count for name, count in counts.items() if count})


def _clear_if_otherwise(stage: MakePairs) -> None:
    """Pairs of other settings give way: what they were made of stands."""
    if (stage.folder / MANIFEST).exists():
        there = read_manifest(stage.folder)["provenance"]
        if provenance_digest(there) != provenance_digest(stage.provenance()):
            former = stage.folder.with_name(".former-pairs")
            shutil.rmtree(former, ignore_errors=True)
            stage.folder.rename(former)  # at once, so that no shard can stand beside another manifest
            shutil.rmtree(former)


# --- folders ----------------------------------------------------------------------------------------------------------


def _origin(folder: Path) -> dict[str, JsonValue]:
    """What a stage was made from: all that stands before it, in 16 hex digits."""
    return {"from": provenance_digest(read_manifest(folder)["provenance"])}


def _shards(folder: Path) -> int:
    return int(str(read_manifest(folder)["shards"]))


def _rows(folder: Path) -> int:
    return int(str(read_manifest(folder)["rows"]))


def _refuse_none(folder: Path, what: str) -> None:
    if not _rows(folder):
        counts = ", ".join(f"{name}: {count:,}" for name, count in stage_counts(folder).items() if count)
        raise UserError(f"{folder}: no {what} is left; {counts or 'there was nothing to begin with'}")
