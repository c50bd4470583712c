"""The embedded code task: a description and a signature in, a short Python function out, graded by running tests.

Seeded and endless; the test split shares no composition of operations with the others. Covers one function over
lists, words, text and integers; no imports, no classes, no state.
"""

import hashlib
import random
from collections.abc import Iterator, Sequence

from lit_pref.sandbox import default_sandbox
from lit_pref.tasks.embedded.code.bugs import insert_bug
from lit_pref.tasks.embedded.code.cases import make_cases
from lit_pref.tasks.embedded.code.grammar import Draft, draw_draft
from lit_pref.types import Demonstration, Problem, Program, Sandbox, Split, Task, Verdict

_TEST_PERCENT = 15  # of compositions
_VALIDATION_PERCENT = 10  # of the problems of the other compositions
_MAX_MISSES = 200_000  # draws in a row without a new problem: the split is used up


class CodeTask(Task):
    """Problems whose completions are the indented body of `solve`.

    Args:
        sandbox: runs the graded programs; by default the isolated one of this process, opened at the first grading.
        bug_rate: the share of demonstrations that get a human-like slip, where one applies.
    """

    def __init__(self, sandbox: Sandbox | None = None, bug_rate: float = 0.0) -> None:
        if not 0 <= bug_rate <= 1:
            raise ValueError(f"bug_rate must be in [0, 1], got {bug_rate}")
        self._sandbox = sandbox
        self.bug_rate = bug_rate

    name = "code"
    references_pass = True

    def problems(self, split: Split, count: int, seed: int) -> list[Problem]:
        """`count` problems with distinct prompts; with a larger count the same ones come first.

        A problem's cases depend on the problem alone, not on the seed that drew it.
        """
        if count < 0:
            raise ValueError(f"count must be >= 0, got {count}")
        found: dict[str, Problem] = {}
        misses = 0
        drafts = _drafts(split, seed)
        while len(found) < count:
            draft = next(drafts)
            problem = None if draft.prompt in found else _finish(draft)
            misses = 0 if problem else misses + 1
            if problem:
                found[draft.prompt] = problem
            elif misses > _MAX_MISSES:
                raise ValueError(f"split {split!r} of the code task has about {len(found)} problems, {count} asked for")
        return list(found.values())

    def demonstrations(self, split: Split, count: int, seed: int) -> list[Demonstration]:
        """The problems of the same arguments with their references, slips put in at `bug_rate`."""
        return [
            Demonstration(problem.prompt, self._completion(problem, seed))
            for problem in self.problems(split, count, seed)
        ]

    def grade(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[Verdict]:
        if len(problems) != len(completions):
            raise ValueError(f"one completion a problem: got {len(problems)} problems, {len(completions)} completions")
        programs = [
            Program(f"{problem.prompt}{completion}", problem.cases)
            for problem, completion in zip(problems, completions, strict=True)
        ]
        return (self._sandbox or default_sandbox()).run(programs)

    def _completion(self, problem: Problem, seed: int) -> str:
        rng = random.Random(f"slip:{seed}:{problem.id}")
        return insert_bug(problem.reference, rng) if rng.random() < self.bug_rate else problem.reference


def _drafts(split: Split, seed: int) -> Iterator[Draft]:
    """The endless drafts of one split."""
    rng = random.Random(f"code:{split}:{seed}")
    while True:
        draft = draw_draft(rng)
        if _split_of(draft) == split:
            yield draft


def _split_of(draft: Draft) -> Split:
    if _percentile("composition:" + draft.composition) < _TEST_PERCENT:
        return "test"
    if _percentile("problem:" + draft.prompt + draft.body) < _VALIDATION_PERCENT:
        return "validation"
    return "train"


def _percentile(text: str) -> int:
    """A number in 0..99 that depends on the text alone, equal on every machine and Python."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") % 100


def _finish(draft: Draft) -> Problem | None:
    """The problem with its cases, or None where they would not tell programs apart."""
    key = hashlib.blake2b((draft.prompt + draft.body).encode(), digest_size=8).hexdigest()
    cases = make_cases(draft, random.Random(key))
    if cases is None:
        return None
    return Problem(f"code-{key}", draft.prompt, draft.body, cases, draft.composition)
