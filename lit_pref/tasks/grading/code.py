"""Benchmarks of functions to write: rows to problems, answers to programs, programs to verdicts of their tests.

An answer becomes a program as EvalPlus (arXiv 2305.01210) has it: the code is taken out of the text, and of the code
what the function needs. Tests run outside the program's process. Not covered: other languages than Python.
"""

from collections.abc import Sequence
from functools import cache, lru_cache
from typing import ClassVar, get_args

from lit_pref.sandbox import IsolatedSandbox, default_sandbox
from lit_pref.syntax.extraction import NoCodeError, extract_code, sanitize
from lit_pref.syntax.python import missing, statements
from lit_pref.syntax.thoughts import THOUGHTS, without_thoughts
from lit_pref.tasks.data_sets import _Problems, check_one_each
from lit_pref.tasks.wording import EVALPLUS_CHAT_STOPS, CodeStyle, begun, shown_source
from lit_pref.types import Check, FailingReferences, Outcome, Problem, Program, Sandbox, Verdict


class _CodeBenchmark(_Problems):
    """Functions to write.

    Args:
        source: a file (JSON Lines, also as .gz, JSON, CSV, Parquet), a folder or a hub id, of the rows that the class
            describes; null is the published data.
        style: completion gives the prompt as text to be continued, chat a user's turn that asks for the function;
            evalplus, of the published benchmarks, asks in EvalPlus' words and begins the answer, as many figures are
            published.
        extract: take the code out of the completion and drop what the function does not need; false runs prompt and
            completion as they are.
        thoughts: tags that mark what the model thinks before it answers, which is no answer: an opening one as in
            "<think>", or an opening and a closing one with a space between.
        failing_references: leave_out leaves out the problems whose references fail their own tests, and counts them;
            error stops before anything is sampled.
        sandbox: runs the graded programs; by default the isolated one of this process, or one with the time and memory
            that the benchmark's references need, opened at the first grading.
        stop: texts of which the first to appear ends a completion; null is what the benchmark's users stop text
            completions at, what EvalPlus stops at for its style, and nothing for chat; [] stops at nothing.
    """

    # Where text completions of its problems end in the published evaluations: a base model goes on after the function.
    stops: ClassVar[tuple[str, ...]] = ()

    # What a program and its tests have each, unless the user gives a sandbox.
    seconds: ClassVar[int] = 2
    memory_mb: ClassVar[int] = 256

    def __init__(
        self,
        source: str | None = None,
        style: CodeStyle = "completion",
        extract: bool = True,
        thoughts: Sequence[str] = THOUGHTS,
        failing_references: FailingReferences = "leave_out",
        sandbox: Sandbox | None = None,
        stop: Sequence[str] | None = None,
    ) -> None:
        super().__init__(source, style, thoughts)
        if isinstance(stop, str) or "" in (stop or ()):
            raise ValueError(f"stop must be a list of texts of at least one character, got {stop!r}")
        ends = {"completion": self.stops, "evalplus": EVALPLUS_CHAT_STOPS}.get(style, ())
        self.stop = ends if stop is None else tuple(stop)
        if failing_references not in get_args(FailingReferences):
            raise ValueError(f'failing_references must be "leave_out" or "error", got {failing_references!r}')
        self.extract, self.failing_references, self._sandbox = extract, failing_references, sandbox

    def grade(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[Verdict]:
        """NO_CODE for a completion that holds no program; nothing is run for it."""
        check_one_each(problems, completions)
        graded = [self._program(*pair) for pair in zip(problems, completions, strict=True)]
        programs = [each for each in graded if isinstance(each, Program)]
        ran = iter((self._sandbox or _sandbox_of(self.seconds, self.memory_mb)).run(programs)) if programs else iter(())
        return [next(ran) if isinstance(each, Program) else each for each in graded]

    def _program(self, problem: Problem, completion: str) -> Program | Verdict:
        if not self.extract:
            prompt = problem.prompt if isinstance(problem.prompt, str) else ""
            return Program(prompt + completion, check=problem.check)
        answer = begun(problem.prompt) + without_thoughts(completion, self.thoughts)
        try:
            code = extract_code(answer, problem.entry_point, shown_source(problem.prompt)).code
        except NoCodeError as error:
            thought = answer != begun(problem.prompt) + completion
            lacking = f"{error}, but for thoughts" if thought else str(error)
            return Verdict(Outcome.NO_CODE, detail=lacking)
        if problem.check is None:
            return Program(code)
        return Program(sanitize(code, problem.entry_point, _asked_of(problem.check)), check=problem.check)


@lru_cache(maxsize=4096)
def _asked_of(check: Check) -> frozenset[str]:
    """What tests use beside their context: the program's functions, and its classes and constants."""
    return missing(statements(check.code)).union(check.entry_points)


@cache
def _sandbox_of(seconds: int, memory_mb: int) -> Sandbox:
    """The shared sandbox, or one of its level with more time than it gives."""
    shared = default_sandbox()
    return shared if seconds <= 2 else IsolatedSandbox(shared.level, None, seconds, seconds, memory_mb)
