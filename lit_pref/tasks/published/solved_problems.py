"""Problems from published data whose solutions come to an answer and are graded by it.

A reader says what its rows mean. Not covered: whether the steps are right.
"""

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import count
from typing import ClassVar

from lit_pref.data.reading.rows import Row
from lit_pref.syntax.thoughts import without_thoughts
from lit_pref.tasks.grading.code import Style
from lit_pref.tasks.published.data_sets import _Named, check_style, items, part, response
from lit_pref.types import Demonstration, Problem, Split, Task, Verdict


class _SolvedProblems(Task):
    """Problems from a file or the hub, the same ones for every seed; a smaller number is drawn from all."""

    splits: ClassVar[tuple[Split, ...]] = ("train", "test")
    references_pass = True  # the answer is read from the reference

    def __init__(self, source: str, style: Style, thoughts: Sequence[str]) -> None:
        check_style(style)
        without_thoughts("", thoughts)  # raises for a tag that has no end
        self.source, self.style, self.thoughts = source, style, tuple(thoughts)

    @abstractmethod
    def _rows(self, split: Split) -> Iterable[Row]:
        """The split's rows as they were published."""

    @abstractmethod
    def _problem(self, row: Row) -> Problem:
        """Raises RowError, which names the row, where it lacks what a problem needs."""

    @abstractmethod
    def _verdicts(self, answers: Sequence[str], completions: Sequence[str]) -> list[Verdict]:
        """One verdict for each expected answer and its completion."""

    def size(self, split: Split) -> int:
        """How many problems a split has."""
        return len(self._all(split))

    def problems(self, split: Split, count: int, seed: int) -> list[Problem]:
        """`count` problems of a split in the order of the file; the seed decides which, where not all are asked for."""
        return part(self._data, split, self._all(split), count, seed)

    def demonstrations(self, split: Split, count: int, seed: int) -> list[Demonstration]:
        """The problems of the same arguments with their references, as an assistant's turn where they are a user's."""
        return [
            Demonstration(problem.prompt, response(problem.prompt, problem.reference))
            for problem in self.problems(split, count, seed)
        ]

    def grade(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[Verdict]:
        """NO_ANSWER for a completion that comes to none; a next `Question:` that it goes on with is cut off."""
        if len(problems) != len(completions):
            raise ValueError(f"one completion a problem: got {len(problems)} problems, {len(completions)} completions")
        answers = [without_thoughts(text, self.thoughts) for text in completions]
        ended = [text.partition("\nQuestion:")[0] for text in answers]
        return self._verdicts([problem.answer for problem in problems], ended)

    def _all(self, split: Split) -> list[Problem]:
        """Each may also be called by the place of its row, from 0, as files of samples that know no other name do."""
        places = defaultdict[str, list[str]](list)
        counted = count()

        def make(row: Row) -> Problem:
            problem = self._problem(row)
            places[problem.id].append(str(next(counted)))
            return problem

        found = items(self._data, split, lambda: self._rows(split), make)
        return [replace(problem, aliases=tuple(places[problem.id])) for problem in found]

    @property
    def _data(self) -> _Named:
        return _Named(self.name, self.splits)


def continued(question: str) -> str:
    """A question as text whose continuation is a solution."""
    return f"Question: {question.strip()}\nAnswer:\n"
