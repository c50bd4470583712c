"""Samples of a task's problems as JSON Lines, in the format of HumanEval's own harness: task_id and completion.

EvalPlus' `solution`, a whole program, is read as well. What is written also says whether a sample came to its end, how
its grading ended and why. Not covered: EvalPlus' folders of files.
"""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from lit_pref.data.reading.rows import Row, RowError
from lit_pref.data.reading.sources import read_rows
from lit_pref.errors import UserError
from lit_pref.storage.files import replacing
from lit_pref.types import Completion, Problem, Verdict


class Samples(NamedTuple):
    """Completions of each problem, and whether it is known of each if it came to its end."""

    completions: list[list[Completion]]
    ends_known: bool

    def kept(self, problems: Sequence[Problem], left: Sequence[Problem]) -> "Samples":
        """Those of the problems that are left of all."""
        names = {problem.id for problem in left}
        pairs = zip(problems, self.completions, strict=True)
        return self._replace(completions=[several for problem, several in pairs if problem.id in names])


def read_samples(path: Path, problems: Sequence[Problem]) -> Samples:
    """The samples of each problem, in the order of the file, without tokens.

    A problem may also be called by one of its aliases, or by the number at the end of a name such as Mbpp/2. Raises
    UserError for a row that is no sample or of no such problem, and where a problem has none.
    """
    found: dict[str, list[Completion]] = {problem.id: [] for problem in problems}
    called, ends_known = _called(problems), True
    for row in read_rows(path):
        written = _value(row, "task_id")
        name = called.get(str(written)) or called.get(_number(str(written)))
        if name is None or isinstance(written, bool | dict | list):
            raise RowError("no problem", f"{row.location}: there is no problem {_shown(written)}: {_known(problems)}")
        text = _value(row, "completion", "solution")
        if not isinstance(text, str):
            got = f"{type(text).__name__} {_shown(text)}"
            raise RowError("not a string", f"{row.location}: expected a completion's text, got {got}")
        finished = row.values.get("finished")
        ends_known = ends_known and isinstance(finished, bool)
        found[name].append(Completion(text, (), (), finished is not False))
    missing = [name for name, completions in found.items() if not completions]
    if missing:
        raise UserError(
            f"{path}: holds no sample of {len(missing)} of {len(found)} problems, the first {missing[0]!r}: expected "
            "at least one of each"
        )
    return Samples(list(found.values()), ends_known)


def _called(problems: Sequence[Problem]) -> dict[str, str]:
    """The id of each name; a name that would mean several problems means none."""
    names = Counter(name for problem in problems for name in {*problem.aliases, _number(problem.id)})
    called = {
        name: problem.id for problem in problems for name in (*problem.aliases, _number(problem.id)) if names[name] == 1
    }
    return called | {problem.id: problem.id for problem in problems}


def _number(name: str) -> str:
    return name.rpartition("/")[2]


def _known(problems: Sequence[Problem]) -> str:
    first = problems[0]
    places = f", or its place in the data set, from 0, as {first.aliases[0]!r}" if first.aliases else ""
    return f"expected one of {len(problems)}, such as {first.id!r}{places}"


def write_samples(
    path: Path,
    problems: Sequence[Problem],
    samples: Samples,
    verdicts: Sequence[Sequence[Verdict]] | None = None,
) -> None:
    """Write a row for each sample, whole or not at all; without verdicts where they are still to come."""
    with replacing(path) as stream:
        for place, (problem, completions) in enumerate(zip(problems, samples.completions, strict=True)):
            for number, completion in enumerate(completions):
                row: dict[str, object] = {"task_id": problem.id, "completion": completion.text}
                if samples.ends_known:
                    row["finished"] = completion.finished
                if verdicts is not None:
                    verdict = verdicts[place][number]
                    row |= {"outcome": verdict.outcome.value, "detail": verdict.detail}
                stream.write(json.dumps(row).encode() + b"\n")


def _shown(value: object) -> str:
    return repr(value if isinstance(value, str) else str(value))[:60]


def _value(row: Row, *keys: str) -> object:
    for key in keys:
        if key in row.values:
            return row.values[key]
    names, there = " or ".join(f'"{key}"' for key in keys), ", ".join(row.values) or "none"
    raise RowError("missing key", f"{row.location}: expected the key {names}, there stand: {there}")
