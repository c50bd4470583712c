"""Pairs of a right and a wrong solution of one question, of data that hold several marked ones for each.

A reader says what its rows mean. Not covered: more of them than fit into memory.
"""

import random
from abc import abstractmethod
from collections.abc import Iterator
from itertools import zip_longest
from typing import NamedTuple

from lit_pref.data.formats.prompts import response
from lit_pref.errors import UserError
from lit_pref.tasks.data_sets import check_split, first
from lit_pref.tasks.published.solved_problems import continued
from lit_pref.tasks.wording import Style, asked, check_style
from lit_pref.types import PairTask, PreferencePair, Split, Text

_REQUEST = "Solve this problem step by step."


class Solution(NamedTuple):
    """A question, a solution of it, and whether it is marked right."""

    question: str
    text: str
    right: bool


class _SolutionPairs(PairTask):
    """Pairs of solutions of the questions that have a right and a wrong one.

    pairs_per_question: at most; no solution is in two of them.
    """

    def __init__(self, source: str, pairs_per_question: int, style: Style) -> None:
        check_style(style)
        if pairs_per_question < 1:
            raise ValueError(f"pairs_per_question must be >= 1, got {pairs_per_question}")
        self.source, self.pairs_per_question, self.style = source, pairs_per_question, style

    @abstractmethod
    def solutions(self, split: Split) -> Iterator[Solution]:
        """All that there are of the split's questions, in their order."""

    def solved(self, split: Split) -> dict[str, dict[str, bool]]:
        """The distinct solutions of each question of the split, and whether they are right."""
        check_split(self.name, self.splits, split)
        found: dict[str, dict[str, bool]] = {}
        for question, text, right in self.solutions(split):
            found.setdefault(question, {})[text] = right
        return found

    def prompt(self, question: str) -> Text:
        return asked(self.style, question if self.style == "chat" else continued(question), _REQUEST)

    def pairs(self, split: Split, count: int | None, seed: int) -> list[PreferencePair]:
        """One pair of each question in an order of the seed, then a second of each that has one, and so on."""
        solved = self.solved(split)
        draw = random.Random(f"pairs:{self.name}:{split}:{seed}")
        of_questions = [list(self._pairs(question, texts, draw)) for question, texts in solved.items()]
        draw.shuffle(of_questions)
        rounds = zip_longest(*of_questions)
        found = [pair for one_of_each in rounds for pair in one_of_each if pair is not None]
        if not found:
            raise UserError(f"{self.source}: no question of split {split!r} has a right and a wrong solution")
        return first(self.name, split, found, count)

    def _pairs(self, question: str, texts: dict[str, bool], draw: random.Random) -> Iterator[PreferencePair]:
        prompt = self.prompt(question)
        right = [text for text, is_right in texts.items() if is_right]
        wrong = [text for text, is_right in texts.items() if not is_right]
        draw.shuffle(right)
        draw.shuffle(wrong)
        for chosen, rejected, _ in zip(right, wrong, range(self.pairs_per_question), strict=False):
            yield PreferencePair(prompt, response(prompt, chosen), response(prompt, rejected))
