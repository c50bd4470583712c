"""LogiQA 2.0 (Liu et al., 2023, doi 10.1109/TASLP.2023.3293046): logical reasoning, four options, from civil servants'
examinations.

The keys are those of its authors' repository (csitfun/LogiQA2.0: dev.txt, utils_mrc.py) and of the hub's baber/logiqa2:
id, answer, text, question, options, type. Those files, train.txt, dev.txt and test.txt, are JSON Lines, and are read as
such. How text and question are put is ours. Not covered: the Chinese and the inference (NLI) versions, the kinds of
reasoning.
"""

from collections.abc import Iterable

from lit_pref.data.reading.rows import Row
from lit_pref.tasks.grading.code import Style, identifier_in, text_in
from lit_pref.tasks.published.data_sets import (
    WrongOptions,
    _ChoiceData,
    asked,
    choice_at,
    content_id,
    options_at,
    released_rows,
)
from lit_pref.types import MultipleChoice, Split

_REQUEST = "Read the text and answer the question about it."


class LogiQA2(_ChoiceData):
    """Questions of LogiQA 2.0 with their options, and pairs of the right option over wrong ones.

    Args:
        source: a file (JSON Lines, also as .txt, JSON, Parquet), a folder, or a hub id, of rows with id, answer, text,
            question and options; a file is read whole, whatever the split.
        style: completion gives text and question as text to be continued, chat as a user's turn.
        rejected: pairs with each wrong option, or with one that the seed draws.
    """

    name = "logiqa2"

    def __init__(
        self,
        source: str = "baber/logiqa2:logiqa2",
        style: Style = "completion",
        rejected: WrongOptions = "each",
    ) -> None:
        super().__init__(source, style, rejected)

    def _rows(self, split: Split) -> Iterable[Row]:
        return released_rows(self.source, split)

    def _question(self, row: Row) -> MultipleChoice:
        options = options_at(row, "options")
        told = f"{text_in(row, 'text').strip()}\n\n{text_in(row, 'question').strip()}\n"
        prompt, answer = asked(self.style, told, _REQUEST), choice_at(row, "answer", options)
        # Whether its numbers are unique is not stated anywhere.
        name = f"{identifier_in(row, 'id')}-{content_id(told, *options)}"
        return MultipleChoice(name, prompt, options, answer)
