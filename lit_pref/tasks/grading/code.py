"""Benchmarks of functions to write: rows to problems, answers to programs, programs to verdicts of their tests.

An answer becomes a program as EvalPlus (arXiv 2305.01210) has it: the code is taken out of the text, and of the code
what the function needs. Tests run outside the program's process. Not covered: other languages than Python.
"""

import random
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from typing import ClassVar, Literal, get_args

from lit_pref.data.reading.rows import Row, RowError, string_at
from lit_pref.errors import UserError
from lit_pref.sandbox import IsolatedSandbox, default_sandbox
from lit_pref.syntax.extraction import NoCodeError, extract_code, sanitize
from lit_pref.syntax.python import missing, statements
from lit_pref.syntax.thoughts import without_thoughts
from lit_pref.types import (
    Check,
    Demonstration,
    FailingReferences,
    Outcome,
    Problem,
    Program,
    Sandbox,
    Split,
    Task,
    Text,
    Verdict,
)

Style = Literal["completion", "chat"]
"""How a problem is put: the benchmark's own prompt, to be continued as text; or a user's turn with it, in our words."""

_FENCE, _FENCE_END = "```python\n", "\n```"


class _CodeBenchmark(Task):
    """Problems from a file or the hub, the same ones for every seed; a smaller number is drawn from all."""

    splits: ClassVar[tuple[Split, ...]] = ("test",)
    # What a program and its tests have each, unless the user gives a sandbox.
    seconds: ClassVar[int] = 2
    memory_mb: ClassVar[int] = 256

    def __init__(
        self,
        style: Style,
        extract: bool,
        thoughts: Sequence[str],
        failing_references: FailingReferences,
        sandbox: Sandbox | None,
    ) -> None:
        if style not in ("completion", "chat"):
            raise ValueError(f'style must be "completion" or "chat", got {style!r}')
        if failing_references not in get_args(FailingReferences):
            raise ValueError(f'failing_references must be "leave_out" or "error", got {failing_references!r}')
        without_thoughts("", thoughts)  # raises for a tag that has no end
        self.style, self.extract, self.thoughts, self._sandbox = style, extract, tuple(thoughts), sandbox
        self.failing_references = failing_references

    @abstractmethod
    def _rows(self, split: Split) -> Iterable[Row]:
        """The split's rows as they were published."""

    @abstractmethod
    def _problem(self, row: Row) -> Problem:
        """Raises RowError, which names the row, where it lacks what a problem needs."""

    def size(self, split: Split) -> int:
        """How many problems a split has."""
        return len(self._all(split))

    def problems(self, split: Split, count: int, seed: int) -> list[Problem]:
        """`count` problems of a split in the order of the file; the seed decides which, where not all are asked for."""
        every = self._all(split)
        if not 0 <= count <= len(every):
            raise UserError(f"split {split!r} of {self.name} has {len(every)} problems, {count} asked for")
        chosen = random.Random(f"{self.name}:{split}:{seed}").sample(range(len(every)), count)
        return [every[index] for index in sorted(chosen)]

    def demonstrations(self, split: Split, count: int, seed: int) -> list[Demonstration]:
        """The problems of the same arguments with their references, as an assistant's turn where they are a user's."""
        return [
            Demonstration(
                problem.prompt,
                problem.reference
                if isinstance(problem.prompt, str)
                else ({"role": "assistant", "content": problem.reference},),
            )
            for problem in self.problems(split, count, seed)
        ]

    def grade(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[Verdict]:
        """NO_CODE for a completion that holds no program; nothing is run for it."""
        if len(problems) != len(completions):
            raise ValueError(f"one completion a problem: got {len(problems)} problems, {len(completions)} completions")
        graded = [self._program(*pair) for pair in zip(problems, completions, strict=True)]
        programs = [each for each in graded if isinstance(each, Program)]
        ran = iter((self._sandbox or _sandbox_of(self.seconds, self.memory_mb)).run(programs)) if programs else iter(())
        return [next(ran) if isinstance(each, Program) else each for each in graded]

    def _program(self, problem: Problem, completion: str) -> Program | Verdict:
        if not self.extract:
            prompt = problem.prompt if isinstance(problem.prompt, str) else ""
            return Program(prompt + completion, check=problem.check)
        answer = without_thoughts(completion, self.thoughts)
        try:
            code = extract_code(answer, problem.entry_point, shown_source(problem.prompt)).code
        except NoCodeError as error:
            lacking = f"{error}, but for thoughts" if answer != completion else str(error)
            return Verdict(Outcome.NO_CODE, detail=lacking)
        if problem.check is None:
            return Program(code)
        return Program(sanitize(code, problem.entry_point, _asked_of(problem.check)), check=problem.check)

    def _all(self, split: Split) -> list[Problem]:
        if split not in self.splits:
            raise UserError(f"{self.name} has no split {split!r}: expected one of {', '.join(self.splits)}")
        found: dict[str, Problem] = {}
        for row in self._rows(split):
            problem = self._problem(row)
            if problem.id in found:
                raise RowError("duplicate", f"{row.location}: task_id {problem.id[:60]!r} stands in an earlier row too")
            found[problem.id] = problem
        if not found:
            raise UserError(f"the rows of {self.name} hold no problem of split {split!r}")
        return list(found.values())


@lru_cache(maxsize=4096)
def _asked_of(check: Check) -> frozenset[str]:
    """What tests use beside their context: the program's functions, and its classes and constants."""
    return missing(statements(check.code)).union(check.entry_points)


@cache
def _sandbox_of(seconds: int, memory_mb: int) -> Sandbox:
    """The shared sandbox, or one of its level with more time than it gives."""
    shared = default_sandbox()
    return shared if seconds <= 2 else IsolatedSandbox(shared.level, None, seconds, seconds, memory_mb)


def user_turn(request: str, source: str = "") -> Text:
    """A conversation of one turn: a request, and the source that it is about in a fence."""
    shown = f"\n\n{fenced(source)}" if source else ""
    return ({"role": "user", "content": request + shown},)


def shown_source(prompt: Text) -> str:
    """The source that a prompt shows: all of a text, of a conversation what `user_turn` has fenced."""
    if isinstance(prompt, str):
        return prompt
    _, _, shown = prompt[-1]["content"].partition(_FENCE)
    return shown.removesuffix(_FENCE_END)


def fenced(source: str) -> str:
    """Source as a chat model answers with it."""
    return f"{_FENCE}{source.strip()}{_FENCE_END}"


# --- what stands in a row ---------------------------------------------------------------------------------------------


def text_in(row: Row, *keys: str) -> str:
    """The text under the first of the keys that the row has; Raises RowError where there is none."""
    return string_at(row, _key(row, keys))


def told_in(row: Row, *keys: str) -> str:
    """The same, without space around it; Raises RowError where nothing is left."""
    told = text_in(row, *keys).strip()
    if not told:
        raise RowError("empty text", f'{row.location}: "{_key(row, keys)}" is empty: expected what is asked for')
    return told


def texts_in(row: Row, key: str) -> list[str]:
    """The list of texts under a key; Raises RowError where there is none."""
    value = row.values[_key(row, (key,))]
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise RowError("not a list of strings", f"{row.location}: expected a list of texts under {_found(key, value)}")
    return [string_at(Row(row.location, {key: each}), key) for each in value]


def lists_in(row: Row, key: str) -> list[list[object]]:
    """The list of argument lists under a key, where `{}` is an empty one; Raises RowError where there is none."""
    value = row.values[_key(row, (key,))]
    if value == {}:
        return []
    if not isinstance(value, list) or not all(isinstance(each, list) for each in value):
        raise RowError("not lists", f"{row.location}: expected a list of argument lists under {_found(key, value)}")
    return value


def number_in(row: Row, key: str) -> float:
    """The number under a key; Raises RowError where there is none."""
    value = row.values[_key(row, (key,))]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RowError("not a number", f"{row.location}: expected a number under {_found(key, value)}")
    return value


def identifier_in(row: Row, key: str) -> str:
    """The text or whole number under a key, as text; Raises RowError where there is none."""
    value = row.values[_key(row, (key,))]
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise RowError("no identifier", f"{row.location}: expected a name or number under {_found(key, value)}")
    return str(value)


def _key(row: Row, keys: Sequence[str]) -> str:
    for key in keys:
        if key in row.values:
            return key
    there = ", ".join(row.values) or "none"
    names = " or ".join(f'"{key}"' for key in keys)
    raise RowError("missing key", f"{row.location}: expected the key {names}, there stand: {there}")


def _found(key: str, value: object) -> str:
    return f'"{key}", got {type(value).__name__} {str(value)[:40]!r}'
