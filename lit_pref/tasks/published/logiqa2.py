"""LogiQA 2.0 (Liu et al., 2023, doi 10.1109/TASLP.2023.3293046): logical reasoning, four options, from civil servants'
examinations.

The keys are those of its authors' repository (csitfun/LogiQA2.0: dev.txt, utils_mrc.py) and of the hub's baber/logiqa2:
id, answer, text, question, options, type. Those files, train.txt, dev.txt and test.txt, are JSON Lines, and are read as
such. How text and question are put is ours. Not covered: the Chinese and the inference (NLI) versions, the kinds of
reasoning.
"""

from collections.abc import Iterable

from lit_pref.data.reading.rows import Row
from lit_pref.tasks.data_sets import _ChoiceData, choice_at, content_id, options_at, released_rows
from lit_pref.tasks.rows import identifier_in, text_in
from lit_pref.tasks.wording import asked
from lit_pref.types import MultipleChoice, Split

_REQUEST = "Read the text and answer the question about it."


class LogiQA2(_ChoiceData):
    """Questions of LogiQA 2.0 with their options, and pairs of the right option over wrong ones.

    Rows hold id, answer, text, question and options; a JSON Lines file may be called .txt.
    """

    name = "logiqa2"
    published = "baber/logiqa2:logiqa2"

    def _rows(self, split: Split) -> Iterable[Row]:
        return released_rows(self.source, split)

    def _item(self, row: Row) -> MultipleChoice:
        options = options_at(row, "options")
        told = f"{text_in(row, 'text').strip()}\n\n{text_in(row, 'question').strip()}\n"
        prompt, answer = asked(self.style, told, _REQUEST), choice_at(row, "answer", options)
        # Whether its numbers are unique is not stated anywhere.
        name = f"{identifier_in(row, 'id')}-{content_id(told, *options)}"
        return MultipleChoice(name, prompt, options, answer)
