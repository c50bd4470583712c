"""Math-Shepherd (arXiv 2312.08935): solutions of GSM8K and MATH problems with labelled steps, as pairs of solutions.

The keys are those of the hub's peiyi9979/Math-Shepherd and its data card: `input`, a question and a solution in steps
(`Step 1: …`), each ended by the tag ки; `label`, the same text with + or - for the tag; `task`, GSM8K or MATH. In all
of its rows a label stands where its tag does, and in a few a tag stands in the question (TRL's math_shepherd.py). A
solution counts as right where its last step is labelled +. Not covered: the labels of other steps; solutions whose
labels contradict their answers; more of them than fit into memory.
"""

import random
import re
from collections.abc import Iterator
from itertools import zip_longest
from typing import ClassVar, Literal, NamedTuple

from lit_pref.data.formats.prompts import response
from lit_pref.data.reading.rows import Row, RowError
from lit_pref.data.reading.sources import read_rows
from lit_pref.errors import UserError
from lit_pref.tasks.data_sets import check_split, first
from lit_pref.tasks.embedded.splits import percentile
from lit_pref.tasks.published.gsm8k import without_calculations
from lit_pref.tasks.published.solved_problems import continued
from lit_pref.tasks.rows import text_in
from lit_pref.tasks.wording import Style, asked, check_style
from lit_pref.types import PairTask, PreferencePair, Split

_TAG = "ки"
_TAGS = re.compile(rf" ?{_TAG}")
_FIRST_STEP = re.compile(r"\bstep 1\s*:", re.IGNORECASE)
_REQUEST = "Solve this problem step by step."


class Solution(NamedTuple):
    """A question, a solution of it without tags, and whether its last step is labelled right."""

    question: str
    text: str
    right: bool


class MathShepherd(PairTask):
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
        check_style(style)
        if problems not in ("all", "GSM8K", "MATH"):
            raise ValueError(f'problems must be "all", "GSM8K" or "MATH", got {problems!r}')
        if pairs_per_question < 1:
            raise ValueError(f"pairs_per_question must be >= 1, got {pairs_per_question}")
        if not 0 <= validation_percent < 100:
            raise ValueError(f"validation_percent must be in [0, 100), got {validation_percent}")
        self.source, self.problems, self.pairs_per_question = source, problems, pairs_per_question
        self.validation_percent, self.style, self.calculations = validation_percent, style, calculations

    def pairs(self, split: Split, count: int | None, seed: int) -> list[PreferencePair]:
        """One pair of each question in an order of the seed, then a second of each that has one, and so on."""
        check_split(self.name, self.splits, split)
        draw = random.Random(f"pairs:{self.name}:{split}:{seed}")
        of_questions = [list(self._pairs(question, texts, draw)) for question, texts in self._solved(split).items()]
        draw.shuffle(of_questions)
        rounds = zip_longest(*of_questions)
        found = [pair for one_of_each in rounds for pair in one_of_each if pair is not None]
        if not found:
            raise UserError(f"{self.source}: no question of split {split!r} has a right and a wrong solution")
        return first(self.name, split, found, count)

    def _solved(self, split: Split) -> dict[str, dict[str, bool]]:
        """The distinct solutions of each question of the split, and whether they are right."""
        found: dict[str, dict[str, bool]] = {}
        for row in read_rows(self.source, "train"):
            if self.problems != "all" and text_in(row, "task") != self.problems:
                continue
            question, text, right = read_solution(row)
            if (percentile(question) < self.validation_percent) == (split == "validation"):
                found.setdefault(question, {})[text if self.calculations else without_calculations(text)] = right
        return found

    def _pairs(self, question: str, texts: dict[str, bool], draw: random.Random) -> Iterator[PreferencePair]:
        prompt = asked(self.style, question if self.style == "chat" else continued(question), _REQUEST)
        right = [text for text, is_right in texts.items() if is_right]
        wrong = [text for text, is_right in texts.items() if not is_right]
        draw.shuffle(right)
        draw.shuffle(wrong)
        for chosen, rejected, _ in zip(right, wrong, range(self.pairs_per_question), strict=False):
            yield PreferencePair(prompt, response(prompt, chosen), response(prompt, rejected))


def read_solution(row: Row) -> Solution:
    """A row's question and solution; Raises RowError where tags and labels do not fit, or nothing tells them apart."""
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
