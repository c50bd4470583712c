"""Problems from published data whose solutions come to an answer and are graded by it.

A reader says what its rows mean. Not covered: whether the steps are right.
"""

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from lit_pref.syntax.thoughts import without_thoughts
from lit_pref.tasks.data_sets import _Problems, check_one_each
from lit_pref.tasks.wording import Style
from lit_pref.types import Problem, Split, Verdict

_NEXT = "\nQuestion:"


class _SolvedProblems(_Problems):
    """Problems whose references hold the answer."""

    splits: ClassVar[tuple[Split, ...]] = ("train", "test")
    references_pass = True  # the answer is read from the reference

    def __init__(self, source: str | None, style: Style, thoughts: Sequence[str]) -> None:
        super().__init__(source, style, thoughts)
        self.stop = (_NEXT,) if style == "completion" else ()

    @abstractmethod
    def _verdicts(self, answers: Sequence[str], completions: Sequence[str]) -> list[Verdict]:
        """One verdict for each expected answer and its completion."""

    def grade(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[Verdict]:
        """NO_ANSWER for a completion that comes to none; a next `Question:` that it goes on with is cut off."""
        check_one_each(problems, completions)
        answers = [without_thoughts(text, self.thoughts) for text in completions]
        ended = [text.partition(_NEXT)[0] for text in answers]
        return self._verdicts([problem.answer for problem in problems], ended)

    def _all(self, split: Split) -> list[Problem]:
        """Each may also be called by the place of its row, from 0, as files of samples that know no other name do."""
        problems, places = super()._all(split), defaultdict[str, list[str]](list)
        for place, row in enumerate(self._rows(split)):
            places[self._item(row).id].append(str(place))
        return [replace(problem, aliases=tuple(places[problem.id])) for problem in problems]


def continued(question: str) -> str:
    """A question as text whose continuation is a solution."""
    return f"Question: {question.strip()}\nAnswer:\n"
