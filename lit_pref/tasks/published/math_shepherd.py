"""Math-Shepherd (arXiv 2312.08935): solutions of GSM8K and MATH problems with labelled steps, as pairs of solutions.

The keys are those of the hub's peiyi9979/Math-Shepherd and its data card: `input`, a question and a solution in steps
(`Step 1: …`), each ended by the tag ки; `label`, the same text with + or - for the tag; `task`, GSM8K or MATH. In all
of its rows a label stands where its tag does, and in a few a tag stands in the question (TRL's math_shepherd.py). A
solution counts as right where its last step is labelled +. Not covered: the labels of other steps; solutions whose
labels contradict their answers; more of them than fit into memory.
"""

import re
from collections.abc import Iterator
from typing import ClassVar, Literal

from lit_pref.data.reading.rows import Row, RowError
from lit_pref.data.reading.sources import read_rows
from lit_pref.tasks.embedded.splits import percentile
from lit_pref.tasks.published.gsm8k import without_calculations
from lit_pref.tasks.published.solution_pairs import Solution, _SolutionPairs
from lit_pref.tasks.rows import text_in
from lit_pref.tasks.wording import Style
from lit_pref.types import Split

_TAG = "ки"
_TAGS = re.compile(rf" ?{_TAG}")
_FIRST_STEP = re.compile(r"\bstep 1\s*:", re.IGNORECASE)


class MathShepherd(_SolutionPairs):
    """Pairs of a right and a wrong solution of one question; a question without both gives none.

    Args:
        source: a file (JSON Lines, JSON, CSV, Parquet), a folder, or a hub id, of rows with input, label and task.
        problems: all, or only those of GSM8K or MATH.
        pairs_per_question: at most; no solution is in two of them.
        validation_percent: of the questions, by a hash of their text: the data has only a training split.
        style: completion gives the question as text to be continued, chat as a user's turn.
        calculations: keep the `<<48/2=24>>` of the solutions.
    """

    name = "math_shepherd"
    splits: ClassVar[tuple[Split, ...]] = ("train", "validation")

    def __init__(
        self,
        source: str = "peiyi9979/Math-Shepherd",
        problems: Literal["all", "GSM8K", "MATH"] = "all",
        pairs_per_question: int = 1,
        validation_percent: int = 5,
        style: Style = "completion",
        calculations: bool = False,
    ) -> None:
        super().__init__(source, pairs_per_question, style)
        if problems not in ("all", "GSM8K", "MATH"):
            raise ValueError(f'problems must be "all", "GSM8K" or "MATH", got {problems!r}')
        if not 0 <= validation_percent < 100:
            raise ValueError(f"validation_percent must be in [0, 100), got {validation_percent}")
        self.problems, self.validation_percent, self.calculations = problems, validation_percent, calculations

    def solutions(self, split: Split) -> Iterator[Solution]:
        for row in read_rows(self.source, "train"):
            if self.problems != "all" and text_in(row, "task") != self.problems:
                continue
            found = read_solution(row)
            if (percentile(found.question) < self.validation_percent) == (split == "validation"):
                yield found if self.calculations else found._replace(text=without_calculations(found.text))


def read_solution(row: Row) -> Solution:
    """A row's question and solution without tags, right where its last step is labelled so.

    Raises RowError where tags and labels do not fit, or nothing tells them apart.
    """
    tagged, labelled = text_in(row, "input"), text_in(row, "label")
    # With a tag as long as its label both texts have the same places.
    places = [match.start() for match in re.finditer("\0", tagged.replace(_TAG, "\0"))]
    labels = [labelled[place : place + 1] for place in places]
    if not places or not set(labels) <= {"+", "-"}:
        wrong = next((label for label in labels if label not in ("+", "-")), "no tag")
        expected = f'expected + or - in "label" wherever "input" has the tag {_TAG}'
        raise RowError("no labels", f"{row.location}: {expected}, got {wrong!r}")
    start = _start_of_solution(tagged)
    question, text = (_TAGS.sub("", part).strip() for part in (tagged[:start], tagged[start:]))
    if not question or not text:
        raise RowError("no solution", f'{row.location}: "input" does not go from a question to "Step 1:" and a tag')
    return Solution(question, text, labels[-1] == "+")


def _start_of_solution(tagged: str) -> int:
    """At its first step, or, where none is numbered, after the first question mark."""
    found = _FIRST_STEP.search(tagged)
    return found.start() if found else tagged.find("?") + 1
