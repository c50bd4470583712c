"""The embedded reasoning task: word problems, solved in steps, graded by their answer; and pairs of solutions.

Seeded and endless; the test split shares no sequence of operations with the others. A wrong solution of a pair has one
mistake, leads to a wrong answer, and is as long as the right one, character by character, so that length says nothing.
Not covered: steps in words; wrong solutions that a model wrote (`TaskPairsDataModule`).
"""

import random
import re
from collections.abc import Sequence
from typing import NamedTuple

from lit_pref.tasks.data_sets import check_one_each
from lit_pref.tasks.embedded.reasoning.grammar import (
    MISTAKES,
    Mistake,
    Story,
    draw_story,
    solve,
    solve_wrongly,
    written,
)
from lit_pref.tasks.embedded.splits import Splits, key
from lit_pref.tasks.grading.answers import compared
from lit_pref.types import PairTask, PreferencePair, Problem, Split, Task, Verdict

_DEFAULT_PAIRS = 2000
_TRIES = 50  # at a mistake of the same length
_ANSWER = re.compile(r"The answer is (-?\d+)\.")


class MistakenPair(NamedTuple):
    """A right over a wrong solution, and what is wrong with that."""

    pair: PreferencePair
    mistake: Mistake


class ReasoningTask(Task, PairTask):
    """Word problems whose completions are lines of steps and `The answer is N.`.

    Args:
        mistakes: kinds of mistakes that wrong solutions of pairs are drawn from, one each; those of
            `lit_pref.tasks.embedded.reasoning.grammar.Mistake`.
    """

    name = "reasoning"
    references_pass = True

    def __init__(self, mistakes: Sequence[Mistake] = MISTAKES) -> None:
        unknown = sorted(set(mistakes) - set(MISTAKES))
        if unknown or not mistakes:
            raise ValueError(f"mistakes must be some of {', '.join(MISTAKES)}, got {', '.join(unknown) or 'none'}")
        self.mistakes = tuple(mistakes)

    def problems(self, split: Split, count: int, seed: int) -> list[Problem]:
        """`count` problems with distinct prompts; with a larger count the same ones come first."""
        return _SPLITS.items(split, count, seed, _problem)

    def grade(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[Verdict]:
        """By the first answer that a completion gives; what comes before it is not looked at."""
        check_one_each(problems, completions)
        return [_verdict(problem, text) for problem, text in zip(problems, completions, strict=True)]

    def pairs(self, split: Split, count: int | None, seed: int) -> list[PreferencePair]:
        """The right solution over one with a mistake; None is 2,000. Problems as in `problems`."""
        return [made.pair for made in self.mistaken(split, count, seed)]

    def mistaken(self, split: Split, count: int | None, seed: int) -> list[MistakenPair]:
        """The same pairs with the mistake that each wrong solution has."""
        return _SPLITS.items(split, _DEFAULT_PAIRS if count is None else count, seed, self._mistaken)

    def _mistaken(self, story: Story) -> MistakenPair | None:
        """None where all mistakes of the kinds asked for lead to the right answer, or to another length."""
        rng = random.Random(f"mistake:{story.prompt}")
        right = solve(story.start, story.steps)
        assert right is not None
        text = written(right)
        for mistake in rng.sample(self.mistakes, len(self.mistakes)):
            for _ in range(_TRIES):
                lines = solve_wrongly(story, mistake, rng)
                if lines and lines[-1].result != right[-1].result and len(written(lines)) == len(text):
                    return MistakenPair(PreferencePair(story.prompt, text, written(lines)), mistake)
        return None


_SPLITS = Splits[Story](
    "reasoning",
    draw_story,
    composition=lambda story: f"composition:{story.composition}",
    item=lambda story: f"problem:{story.prompt}",
)


def _problem(story: Story) -> Problem:
    lines = solve(story.start, story.steps)
    assert lines is not None
    name, answer = f"reasoning-{key(story.prompt)}", str(lines[-1].result)
    return Problem(name, story.prompt, written(lines), composition=story.composition, answer=answer)


def _verdict(problem: Problem, text: str) -> Verdict:
    answer = _ANSWER.search(text)
    return compared(int(problem.answer), int(answer[1]) if answer else None)
