"""GSM8K (arXiv 2110.14168): grade-school word problems with solutions in steps, graded by their final number.

The keys, question and answer, and the answer's form, steps with `<<48/2=24>>` after each calculation and `#### 72` at
the end, are those of the hub's openai/gsm8k and its data card. The prompts are ours. Not covered: the socratic
version's subquestions as such (its rows are read alike), few-shot prompts.
"""

import re
from collections.abc import Sequence
from fractions import Fraction

from lit_pref.data.reading.rows import Row, RowError
from lit_pref.syntax.thoughts import THOUGHTS
from lit_pref.tasks.data_sets import content_id
from lit_pref.tasks.grading.answers import compared, final_number, to_number
from lit_pref.tasks.published.solved_problems import _SolvedProblems, continued
from lit_pref.tasks.rows import text_in, told_in
from lit_pref.tasks.wording import Style, asked
from lit_pref.types import Problem, Verdict

_REQUEST = "Solve this problem step by step. End with a line `The answer is N.`, where N is a number."
_CALCULATION = re.compile(r"<<[^<>]*>>")


class GSM8K(_SolvedProblems):
    """The 7,473 training and 1,319 test problems of GSM8K, graded by the number that a solution comes to.

    Args:
        source: a file (JSON Lines, JSON, CSV, Parquet), a folder, or a hub id, of rows with question and answer; a file
            is read whole, whatever the split. Null is openai/gsm8k.
        style: completion gives the question as text to be continued, chat a user's turn that asks for steps and a line
            `The answer is N.`
        last_number: where a completion marks no answer (`#### 42`, `The answer is 42.`, a box), take its last number;
            false counts it as without an answer.
        calculations: keep the `<<48/2=24>>` of the references.
        thoughts: tags that mark what the model thinks before it answers, which is no answer: an opening one as in
            "<think>", or an opening and a closing one with a space between.
    """

    name = "gsm8k"
    published = "openai/gsm8k:main"

    def __init__(
        self,
        source: str | None = None,
        style: Style = "completion",
        last_number: bool = False,
        calculations: bool = False,
        thoughts: Sequence[str] = THOUGHTS,
    ) -> None:
        super().__init__(source, style, thoughts)
        self.last_number, self.calculations = last_number, calculations

    def _item(self, row: Row) -> Problem:
        question, solution = told_in(row, "question"), text_in(row, "answer").strip()
        _, mark, written = solution.rpartition("####")
        answer = to_number(written)
        if not mark or answer is None:
            raise RowError("no answer", f'{row.location}: expected "answer" to end with #### and a number')
        prompt = question if self.style == "chat" else continued(question)
        reference = solution if self.calculations else without_calculations(solution)
        name = content_id(question, solution)
        return Problem(name, asked(self.style, prompt, _REQUEST), reference, answer=str(answer))

    def _verdicts(self, answers: Sequence[str], completions: Sequence[str]) -> list[Verdict]:
        pairs = zip(answers, completions, strict=True)
        return [compared(Fraction(answer), final_number(text, self.last_number)) for answer, text in pairs]


def without_calculations(solution: str) -> str:
    """A solution without the annotations of its calculations."""
    return _CALCULATION.sub("", solution)
