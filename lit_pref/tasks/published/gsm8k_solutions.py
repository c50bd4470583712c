"""Four models' solutions of GSM8K's test questions, each marked right or wrong, as pairs (arXiv 2110.14168).

The keys are those of example_model_solutions.jsonl in its authors' repository, openai/grade-school-math: `question`,
`ground_truth`, and for each of four models (6B and 175B, finetuned and with a verifier) `solution` and `is_correct`.
Of 1,319 questions 731 have both kinds. Not covered: which model wrote a solution.
"""

from collections.abc import Iterator
from typing import ClassVar, get_args

from lit_pref.data.reading.rows import Row, RowError
from lit_pref.data.reading.sources import read_rows
from lit_pref.tasks.embedded.splits import percentile
from lit_pref.tasks.published.gsm8k import without_calculations
from lit_pref.tasks.published.solution_pairs import Solution, _SolutionPairs
from lit_pref.tasks.rows import told_in
from lit_pref.tasks.wording import Style
from lit_pref.types import Split

MODELS = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")
_TEST_PERCENT, _VALIDATION_PERCENT = 25, 5


class GSM8KSolutions(_SolutionPairs):
    """Pairs of a right and a wrong solution of one question; a question without both gives none.

    A quarter of the questions is test and a twentieth validation, by a hash of their text. A file is never fetched: it
    is no data set of the hub.

    Args:
        source: a file of the rows, as example_model_solutions.jsonl.
        pairs_per_question: at most; no solution is in two of them.
        style: completion gives the question as text to be continued, chat as a user's turn.
        calculations: keep the `<<48/2=24>>` of the solutions.
    """

    name = "gsm8k_solutions"
    splits: ClassVar[tuple[Split, ...]] = get_args(Split)

    def __init__(
        self, source: str, pairs_per_question: int = 1, style: Style = "completion", calculations: bool = False
    ) -> None:
        super().__init__(source, pairs_per_question, style)
        self.calculations = calculations

    def solutions(self, split: Split) -> Iterator[Solution]:
        for row in read_rows(self.source, "train"):
            question = told_in(row, "question")
            if _split_of(question) != split:
                continue
            for model in MODELS:
                found = read_solution(row, question, model)
                yield found if self.calculations else found._replace(text=without_calculations(found.text))


def read_solution(row: Row, question: str, model: str) -> Solution:
    """What one model wrote; Raises RowError, which names the row, where that is not there."""
    written = row.values.get(model)
    if not isinstance(written, dict) or not isinstance(written.get("solution"), str):
        raise RowError("no solution", f'{row.location}: expected "solution" and "is_correct" under "{model}"')
    right = written.get("is_correct")
    if not isinstance(right, bool):
        raise RowError("no verdict", f'{row.location}: expected true or false under "{model}", got {str(right)[:40]!r}')
    return Solution(question, written["solution"].strip(), right)


def _split_of(question: str) -> Split:
    place = percentile(question)
    return "test" if place < _TEST_PERCENT else "validation" if place < _TEST_PERCENT + _VALIDATION_PERCENT else "train"
