"""ReClor (arXiv 2002.04326): logical reasoning about a short text, four options, from admission tests.

The keys are those of the hub's data card and of the `datasets` library's loader (reclor.py): context, question,
answers, label, id_string, in train.json, val.json and test.json, each one JSON list; the test split has no labels. How
text and question are put is ours. Not covered: the split of the test questions into easy and hard ones.
"""

from lit_pref.data.reading.rows import Row
from lit_pref.tasks.data_sets import _ChoiceData, choice_at, options_at
from lit_pref.tasks.rows import identifier_in, text_in
from lit_pref.tasks.wording import asked
from lit_pref.types import MultipleChoice

_REQUEST = "Read the text and answer the question about it."


class ReClor(_ChoiceData):
    """Questions of ReClor with their options, and pairs of the right option over wrong ones.

    Rows hold context, question, answers, label and id_string. The authors give the files on request (whyu.me/reclor),
    so a source must be named.
    """

    name = "reclor"

    def _item(self, row: Row) -> MultipleChoice:
        options = options_at(row, "answers")
        told = f"{text_in(row, 'context').strip()}\n\n{text_in(row, 'question').strip()}\n"
        prompt, answer = asked(self.style, told, _REQUEST), choice_at(row, "label", options)
        return MultipleChoice(identifier_in(row, "id_string"), prompt, options, answer)
