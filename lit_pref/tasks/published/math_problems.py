r"""MATH (arXiv 2103.03874) and MATH-500: competition problems in LaTeX, graded by the final answer.

The keys are problem and solution, whose last `\boxed{…}` is the answer (hendrycks/competition_math and its copies, with
level and type), and in MATH-500 answer and unique_id too (HuggingFaceH4/MATH-500, with subject and level). Answers are
compared by math-verify, another library than the authors' own string rules. The prompts are ours. Not covered: figures
beyond their source, levels and subjects.
"""

from collections.abc import Sequence

from lit_pref.data.reading.rows import Row, RowError
from lit_pref.syntax.thoughts import THOUGHTS
from lit_pref.tasks.data_sets import content_id
from lit_pref.tasks.grading.answers import final_latex
from lit_pref.tasks.grading.latex_equality import compare_latex
from lit_pref.tasks.published.solved_problems import _SolvedProblems, continued
from lit_pref.tasks.rows import identifier_in, text_in, told_in
from lit_pref.tasks.wording import Style, asked
from lit_pref.types import Outcome, Problem, Verdict

_REQUEST = r"Solve this problem step by step, and put the final answer into \boxed{}."


class MATH(_SolvedProblems):
    r"""Problems of MATH or MATH-500, graded by whether the answer means what the reference's does.

    Args:
        source: a file (JSON Lines, JSON, CSV, Parquet), a folder, or a hub id, of rows with problem and solution, and
            where they have them answer and unique_id; a file is read whole, whatever the split. Null is MATH-500.
        style: completion gives the problem as text to be continued, chat a user's turn that asks for steps and a
            `\boxed{}` answer.
        thoughts: tags that mark what the model thinks before it answers, which is no answer: an opening one as in
            "<think>", or an opening and a closing one with a space between.
    """

    name = "math"
    published = "HuggingFaceH4/MATH-500"

    def __init__(
        self, source: str | None = None, style: Style = "completion", thoughts: Sequence[str] = THOUGHTS
    ) -> None:
        super().__init__(source, style, thoughts)

    def _item(self, row: Row) -> Problem:
        told, solution = told_in(row, "problem"), text_in(row, "solution")
        answer = text_in(row, "answer").strip() if row.values.get("answer") else final_latex(solution)
        if not answer:
            raise RowError("no answer", f'{row.location}: expected a \\boxed answer in "solution", or an "answer"')
        known = row.values.get("unique_id") is not None
        name = identifier_in(row, "unique_id") if known else content_id(told, solution)
        prompt = told if self.style == "chat" else continued(told)
        return Problem(name, asked(self.style, prompt, _REQUEST), solution, answer=answer)

    def _verdicts(self, answers: Sequence[str], completions: Sequence[str]) -> list[Verdict]:
        found = [final_latex(text) for text in completions]
        pairs = [(expected, each) for expected, each in zip(answers, found, strict=True) if each is not None]
        compared = iter(compare_latex(pairs))
        return [
            Verdict(Outcome.NO_ANSWER) if each is None else _verdict(expected, each, next(compared))
            for expected, each in zip(answers, found, strict=True)
        ]


def _verdict(expected: str, answer: str, outcome: Outcome) -> Verdict:
    return Verdict(outcome, detail="" if outcome is Outcome.PASSED else f"expected {expected}, got {answer}"[:200])
