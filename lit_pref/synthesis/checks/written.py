"""Tests for the problems of a folder that have none, made before they are sampled and kept with their samples.

`tests/` holds what became of each problem in shards, so that a run goes on where one was interrupted and a finished
one asks nobody again; `checks.jsonl` says the same for people, a problem a line. The asserts are tried in the shared
sandbox. Not covered: problems of whole programs, which have no function to call.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from lit_pref.errors import UserError
from lit_pref.machine.progress import progress_bar
from lit_pref.sampling.graded_samples import SamplingJob
from lit_pref.sandbox import default_sandbox
from lit_pref.storage.files import JsonValue, replacing
from lit_pref.storage.shards import ShardWriter
from lit_pref.synthesis.checks.check_filter import CheckReport, KillFilter, summarize
from lit_pref.synthesis.checks.check_writing import with_checks, write_checks
from lit_pref.types import Check, Problem

WriteTests = Literal["no", "written", "recorded"]
"""What problems without tests get.

no: nothing; they are refused.
written: asserts that the generator writes.
recorded: calls that it writes, and what they give in the reference.
"""

_SCHEMA = pa.schema(
    [
        ("problem_id", pa.string()),
        ("fate", pa.string()),
        ("check", pa.string()),  # the code; null where there is none
        ("asserts", pa.int32()),
        ("dropped", pa.int32()),
        ("killed", pa.int32()),
        ("mutants", pa.int32()),
    ]
)
_SHARD_PROBLEMS = 50  # asked about at once: what an interruption costs


class ProblemsWithTests(NamedTuple):
    """Problems with tests, in order, and what became of each that had none."""

    problems: list[Problem]
    reports: list[CheckReport]

    @property
    def summary(self) -> dict[str, JsonValue] | None:
        """Counts for the record; None where no tests were asked for."""
        return {"problems": len(self.reports), **summarize(self.reports)} if self.reports else None

    @property
    def table(self) -> dict[str, str]:
        """The same for people: only fates that occurred."""
        if not self.reports:
            return {}
        fates = Counter(report.fate for report in self.reports if report.fate != "kept")
        rate = summarize(self.reports)["kill rate"]
        return {
            "problems that had no tests": f"{len(self.reports):,}",
            **{f"problems dropped, tests: {fate}": f"{count:,}" for fate, count in fates.most_common()},
            "kill rate of all tests made": "none" if rate is None else f"{rate:.1%}",
        }


def lacks_tests(problem: Problem) -> bool:
    """A function is asked for, and nothing says when it is right."""
    return bool(problem.entry_point) and not problem.cases and problem.check is None


def refuse_untested(problems: Sequence[Problem]) -> None:
    """Raises UserError, which says what can be done, where a problem lacks tests."""
    lacking = [problem.id for problem in problems if lacks_tests(problem)]
    if lacking:
        raise UserError(
            f"{len(lacking):,} of {len(problems):,} problems have no tests, the first is {lacking[0]}: have them made "
            "by --write_tests written, or recorded from the references by --write_tests recorded"
        )


def with_tests(folder: Path, job: SamplingJob, expected: WriteTests, rule: KillFilter) -> ProblemsWithTests:
    """The job's problems, those without tests with a check that was kept, the others of them left out.

    folder: the output's; Raises UserError where its tests were made otherwise, and where no problem is left.
    job: its generator is asked as it will be sampled.
    """
    asked = replace(job, problems=[problem for problem in job.problems if lacks_tests(problem)])
    if expected == "no" or not asked.problems:
        return ProblemsWithTests(list(job.problems), [])
    reports = _reports(folder / "tests", asked, expected, rule)
    with replacing(folder / "checks.jsonl") as stream:
        for report in reports:
            line = {**_to_row(report), "kill_rate": report.kill_rate}
            stream.write(f"{json.dumps(line, ensure_ascii=False)}\n".encode())
    tested = {problem.id: problem for problem in with_checks(asked.problems, reports)}
    left = [tested.get(problem.id) if lacks_tests(problem) else problem for problem in job.problems]
    found = ProblemsWithTests([problem for problem in left if problem is not None], reports)
    if not found.problems:
        told = ", ".join(f"{what}: {count}" for what, count in found.table.items())
        raise UserError(f"no problem is left; {told}; {folder / 'checks.jsonl'} holds what was written")
    return found


def _reports(
    folder: Path, job: SamplingJob, expected: Literal["written", "recorded"], rule: KillFilter
) -> list[CheckReport]:
    # A check depends on the reference too, which samples do not.
    references = [problem.reference for problem in job.problems]
    provenance: dict[str, JsonValue] = {
        **job.provenance(),
        "references": blake2b(repr(references).encode(), digest_size=8).hexdigest(),
        "expected": expected,
        "min_kill_rate": rule.min_kill_rate,
    }
    writer = ShardWriter(folder, provenance, _SCHEMA)
    starts = range(0, len(job.problems), _SHARD_PROBLEMS)
    shards = [job.problems[start : start + _SHARD_PROBLEMS] for start in starts]
    if missing := writer.missing(len(shards)):
        with progress_bar(f"Tests, {expected}, for {len(job.problems):,} problems", len(job.problems)) as advance:
            for index in missing:
                draw = job.draw._replace(seed=job.draw.seed * 10_007 + index)
                made = write_checks(shards[index], job.generator, default_sandbox(), draw, rule, expected)
                writer.write(index, [_to_row(report) for report in made], Counter(report.fate for report in made))
                advance(min((index + 1) * _SHARD_PROBLEMS, len(job.problems)))
    if not writer.complete:
        writer.finish(len(shards))
    return [report for index, shard in enumerate(shards) for report in _read(writer.path(index), shard)]


def _to_row(report: CheckReport) -> dict[str, Any]:
    return {**report._asdict(), "check": report.check.code if report.check else None}


def _read(path: Path, problems: Sequence[Problem]) -> list[CheckReport]:
    """The reports of a shard."""
    rows = pq.read_table(path).to_pylist()
    checks = [
        None if row["check"] is None else Check(row["check"], entry_points=(problem.entry_point,))
        for row, problem in zip(rows, problems, strict=True)
    ]
    return [CheckReport(**{**row, "check": check}) for row, check in zip(rows, checks, strict=True)]
