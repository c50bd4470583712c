"""ReClor (arXiv 2002.04326): logical reasoning about a short text, four options, from admission tests.

The keys are those of the hub's data card and of the `datasets` library's loader (reclor.py): context, question,
answers, label, id_string, in train.json, val.json and test.json, each one JSON list; the test split has no labels. How
text and question are put is ours. Not covered: the split of the test questions into easy and hard ones.
"""

from collections.abc import Iterable

from lit_pref.data.reading.rows import Row
from lit_pref.data.reading.sources import read_rows
from lit_pref.tasks.grading.code import Style, identifier_in, text_in
from lit_pref.tasks.published.data_sets import WrongOptions, _ChoiceData, asked, choice_at, options_at
from lit_pref.types import MultipleChoice, Split

_REQUEST = "Read the text and answer the question about it."


class ReClor(_ChoiceData):
    """Questions of ReClor with their options, and pairs of the right option over wrong ones.

    Args:
        source: a file (JSON, JSON Lines, Parquet), a folder, or a hub id, of rows with context, question, answers,
            label and id_string. Its authors give the files on request (whyu.me/reclor); a file is read whole, whatever
            the split.
        style: completion gives context and question as text to be continued, chat as a user's turn.
        rejected: pairs with each wrong option, or with one that the seed draws.
    """

    name = "reclor"

    def __init__(self, source: str, style: Style = "completion", rejected: WrongOptions = "each") -> None:
        super().__init__(source, style, rejected)

    def _rows(self, split: Split) -> Iterable[Row]:
        return read_rows(self.source, split)

    def _question(self, row: Row) -> MultipleChoice:
        options = options_at(row, "answers")
        told = f"{text_in(row, 'context').strip()}\n\n{text_in(row, 'question').strip()}\n"
        prompt, answer = asked(self.style, told, _REQUEST), choice_at(row, "label", options)
        return MultipleChoice(identifier_in(row, "id_string"), prompt, options, answer)
