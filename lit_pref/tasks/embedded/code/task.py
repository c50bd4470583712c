"""The embedded code task: a description and a signature in, a short Python function out, graded by running tests.

Seeded and endless; the test split shares no composition of operations with the others. Covers one function over
lists, words, text and integers; no imports, no classes, no state.
"""

import random
from collections.abc import Sequence

from lit_pref.sandbox import default_sandbox
from lit_pref.tasks.data_sets import check_one_each
from lit_pref.tasks.embedded.code.bugs import insert_bug
from lit_pref.tasks.embedded.code.cases import make_cases
from lit_pref.tasks.embedded.code.grammar import Draft, draw_draft
from lit_pref.tasks.embedded.splits import Splits, key
from lit_pref.types import Demonstration, Problem, Program, Sandbox, Split, Task, Verdict


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

        A problem's cases depend only on the problem, not on the seed that drew it.
        """
        return _SPLITS.items(split, count, seed, _finish)

    def demonstrations(self, split: Split, count: int, seed: int) -> list[Demonstration]:
        """The problems of the same arguments with their references, slips put in at `bug_rate`."""
        return [
            Demonstration(problem.prompt, self._completion(problem, seed))
            for problem in self.problems(split, count, seed)
        ]

    def grade(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[Verdict]:
        check_one_each(problems, completions)
        programs = [
            Program(f"{problem.prompt}{completion}", problem.cases)
            for problem, completion in zip(problems, completions, strict=True)
        ]
        return (self._sandbox or default_sandbox()).run(programs)

    def _completion(self, problem: Problem, seed: int) -> str:
        rng = random.Random(f"slip:{seed}:{problem.id}")
        return insert_bug(problem.reference, rng) if rng.random() < self.bug_rate else problem.reference


_SPLITS = Splits[Draft](
    "code",
    draw_draft,
    composition=lambda draft: f"composition:{draft.composition}",
    item=lambda draft: f"problem:{draft.prompt}{draft.body}",
)


def _finish(draft: Draft) -> Problem | None:
    """The problem with its cases, or None where they would not tell programs apart."""
    name = key(draft.prompt + draft.body)
    cases = make_cases(draft, random.Random(name))
    return None if cases is None else Problem(f"code-{name}", draft.prompt, draft.body, cases, draft.composition)
