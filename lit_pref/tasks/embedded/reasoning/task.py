"""The embedded reasoning task: word problems, solved in steps, graded by their answer; and pairs of solutions.

Seeded and endless; the test split shares no sequence of operations with the others. A wrong solution of a pair has one
mistake, leads to a wrong answer, and is as long as the right one, character by character, so that length says nothing.
Not covered: steps in words; wrong solutions that a model wrote (`TaskPairsDataModule`).
"""

import hashlib
import random
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from lit_pref.tasks.embedded.reasoning.grammar import (
    MISTAKES,
    Mistake,
    Story,
    draw_story,
    solve,
    solve_wrongly,
    written,
)
from lit_pref.types import Outcome, PairTask, PreferencePair, Problem, Split, Task, Verdict

_TEST_PERCENT = 15  # of compositions
_VALIDATION_PERCENT = 10  # of the problems of the other compositions
_MAX_MISSES = 200_000  # draws in a row without a new problem: the split is used up
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
        _check(count)
        return [_problem(story) for story in islice(_distinct(split, seed, count), count)]

    def grade(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[Verdict]:
        """By the first answer that a completion gives; what comes before it is not looked at."""
        if len(problems) != len(completions):
            raise ValueError(f"one completion a problem: got {len(problems)} problems, {len(completions)} completions")
        return [_verdict(problem, text) for problem, text in zip(problems, completions, strict=True)]

    def pairs(self, split: Split, count: int | None, seed: int) -> list[PreferencePair]:
        """The right solution over one with a mistake; None is 2,000. Problems as in `problems`."""
        return [made.pair for made in self.mistaken(split, count, seed)]

    def mistaken(self, split: Split, count: int | None, seed: int) -> list[MistakenPair]:
        """The same pairs with the mistake that each wrong solution has."""
        count = _DEFAULT_PAIRS if count is None else count
        _check(count)
        # Of some stories all mistakes of the kinds asked for lead to the right answer, or to another length.
        made = (self._mistaken(story) for story in _distinct(split, seed, count))
        return list(islice((each for each in made if each is not None), count))

    def _mistaken(self, story: Story) -> MistakenPair | None:
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


def _check(count: int) -> None:
    if count < 0:
        raise ValueError(f"count must be >= 0, got {count}")


def _distinct(split: Split, seed: int, wanted: int) -> Iterator[Story]:
    """The stories of a split with distinct prompts, endless until it is used up."""
    found: set[str] = set()
    misses = 0
    for story in _stories(split, seed):
        misses = misses + 1 if story.prompt in found else 0
        if misses > _MAX_MISSES:
            raise ValueError(f"split {split!r} of reasoning has about {len(found)} problems, {wanted} asked for")
        if not misses:
            found.add(story.prompt)
            yield story


def _stories(split: Split, seed: int) -> Iterator[Story]:
    rng = random.Random(f"reasoning:{split}:{seed}")
    while True:
        story = draw_story(rng)
        if story is not None and _split_of(story) == split:
            yield story


def _split_of(story: Story) -> Split:
    if _percentile("composition:" + story.composition) < _TEST_PERCENT:
        return "test"
    return "validation" if _percentile("problem:" + story.prompt) < _VALIDATION_PERCENT else "train"


def _percentile(text: str) -> int:
    """A number in 0..99 that depends on the text alone, equal on every machine and Python."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") % 100


def _problem(story: Story) -> Problem:
    key = hashlib.blake2b(story.prompt.encode(), digest_size=8).hexdigest()
    lines = solve(story.start, story.steps)
    assert lines is not None
    name, answer = f"reasoning-{key}", str(lines[-1].result)
    return Problem(name, story.prompt, written(lines), composition=story.composition, answer=answer)


def _verdict(problem: Problem, text: str) -> Verdict:
    answer = _ANSWER.search(text)
    if answer is None:
        return Verdict(Outcome.NO_ANSWER)
    if int(answer[1]) == int(problem.answer):
        return Verdict(Outcome.PASSED)
    return Verdict(Outcome.FAILED, detail=f"expected {problem.answer}, got {answer[1]}")
