"""What readers of published reasoning data share: a split's items, a seeded part of them, prompts as text or as turns.

Items are told apart by their content, so that a row that stands twice is one item. Not covered: what the keys of a row
mean; items that do not fit into memory.
"""

import random
import re
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple, TypeVar

from lit_pref.data.reading.files import file_rows
from lit_pref.data.reading.rows import Row, RowError
from lit_pref.data.reading.sources import read_rows
from lit_pref.errors import UserError
from lit_pref.tasks.grading.code import Style, texts_in, user_turn
from lit_pref.types import ChoiceTask, MultipleChoice, PairTask, PreferencePair, Problem, Split, Text

WrongOptions = Literal["each", "one"]
"""Which wrong options of a question become rejected responses: each of them, or one that the seed draws."""

_Item = TypeVar("_Item", Problem, MultipleChoice)


class _Named(NamedTuple):
    """A data set's name and its splits."""

    name: str
    splits: tuple[Split, ...]


def items(data: _Named, split: Split, rows: Callable[[], Iterable[Row]], make: Callable[[Row], _Item]) -> list[_Item]:
    """The distinct items of a split, in the order of its rows.

    Raises UserError for a split that the data has not, RowError where two items share an id.
    """
    if split not in data.splits:
        raise UserError(f"{data.name} has no split {split!r}: expected one of {', '.join(data.splits)}")
    found: dict[str, _Item] = {}
    for row in rows():
        item = make(row)
        if found.setdefault(item.id, item) != item:
            raise RowError("duplicate", f"{row.location}: the id {item.id[:60]!r} stands in an earlier, other row too")
    return list(found.values())


def part(data: _Named, split: Split, every: Sequence[_Item], count: int | None, seed: int) -> list[_Item]:
    """`count` of the items in their order, which ones the seed decides; None is all. Raises UserError for too many."""
    count = len(every) if count is None else count
    if not 0 <= count <= len(every):
        raise UserError(f"split {split!r} of {data.name} has {len(every)} items, {count} asked for")
    chosen = random.Random(f"{data.name}:{split}:{seed}").sample(range(len(every)), count)
    return [every[index] for index in sorted(chosen)]


def first(data: _Named, split: Split, pairs: Sequence[PreferencePair], count: int | None) -> list[PreferencePair]:
    """The first `count` pairs; None is all. Raises UserError for too many."""
    if count is not None and not 0 <= count <= len(pairs):
        raise UserError(f"split {split!r} of {data.name} gives {len(pairs)} pairs, {count} asked for")
    return list(pairs[:count])


class _ChoiceData(ChoiceTask, PairTask):
    """Questions from a file or the hub, the same ones for every seed; a smaller number is drawn from all."""

    splits: ClassVar[tuple[Split, ...]] = ("train", "validation", "test")

    def __init__(self, source: str, style: Style, rejected: WrongOptions) -> None:
        check_style(style)
        if rejected not in ("each", "one"):
            raise ValueError(f'rejected must be "each" or "one", got {rejected!r}')
        self.source, self.style, self.rejected = source, style, rejected

    @abstractmethod
    def _rows(self, split: Split) -> Iterable[Row]:
        """The split's rows as they were published."""

    @abstractmethod
    def _question(self, row: Row) -> MultipleChoice:
        """Raises RowError, which names the row, where it lacks what a question needs."""

    def size(self, split: Split) -> int:
        """How many questions a split has."""
        return len(self._all(split))

    def questions(self, split: Split, count: int | None, seed: int) -> list[MultipleChoice]:
        """`count` questions in the order of the file, which ones the seed decides; None is all."""
        return part(self._data, split, self._all(split), count, seed)

    def pairs(self, split: Split, count: int | None, seed: int) -> list[PreferencePair]:
        """The right option over wrong ones, question by question in an order of the seed; None is all."""
        draw = random.Random(f"pairs:{self.name}:{split}:{seed}")
        every = self._all(split)
        draw.shuffle(every)
        return first(self._data, split, [pair for each in every for pair in self._pairs(each, draw)], count)

    def _pairs(self, question: MultipleChoice, draw: random.Random) -> list[PreferencePair]:
        right = question.options[question.answer]
        wrong = [option for option in question.options if option != right]
        if self.rejected == "one":
            wrong = [draw.choice(wrong)] if wrong else []
        prompt = question.prompt
        return [PreferencePair(prompt, response(prompt, right), response(prompt, option)) for option in wrong]

    def _all(self, split: Split) -> list[MultipleChoice]:
        return items(self._data, split, lambda: self._rows(split), self._question)

    @property
    def _data(self) -> _Named:
        return _Named(self.name, self.splits)


def check_style(style: Style) -> None:
    """Raise ValueError for a style that is none."""
    if style not in ("completion", "chat"):
        raise ValueError(f'style must be "completion" or "chat", got {style!r}')


def asked(style: Style, text: str, request: str) -> Text:
    """A prompt: the text itself, or a user's turn that makes the request and shows it."""
    return text if style == "completion" else user_turn(f"{request}\n\n{text}")


def response(prompt: Text, text: str) -> Text:
    """A completion as a prompt's response: text to text, an assistant's turn to a conversation."""
    return text if isinstance(prompt, str) else ({"role": "assistant", "content": text},)


def released_rows(source: str, split: Split) -> Iterator[Row]:
    """Rows of a source whose authors call their JSON Lines .txt: train.txt, dev.txt and test.txt of a folder."""
    path = Path(source).expanduser()
    names = ("dev", "validation") if split == "validation" else (split,)
    files = [path] if path.is_file() else [path / f"{name}.txt" for name in names]
    texts = [file for file in files if file.suffix == ".txt" and file.is_file()]
    if not texts:
        yield from read_rows(source, split)
        return
    for row in chain.from_iterable(file_rows(file, ".jsonl") for file in texts):
        if isinstance(row, RowError):
            raise row
        yield row


def content_id(*texts: str) -> str:
    """16 hex digits that tell apart items which have no id of their own."""
    return blake2b("\0".join(texts).encode(), digest_size=8).hexdigest()


def options_at(row: Row, key: str) -> tuple[str, ...]:
    """The options of a question; Raises RowError where there are fewer than two."""
    options = texts_in(row, key)
    if len(options) < 2:
        raise RowError("no options", f'{row.location}: expected at least 2 options under "{key}", got {len(options)}')
    return tuple(options)


def choice_at(row: Row, key: str, options: Sequence[str]) -> int:
    """Which option is right, from 0, as a number or its digits; Raises RowError where there is none."""
    value = row.values.get(key)
    if value is None or value == "":
        raise RowError(
            "no label",
            f'{row.location}: "{key}" holds no right option; test splits may be published without them: take the '
            "validation split",
        )
    is_number = not isinstance(value, bool) and isinstance(value, int | str) and re.fullmatch(r"[0-9]{1,3}", str(value))
    if is_number and int(str(value)) < len(options):
        return int(str(value))
    raise RowError(
        "no option", f'{row.location}: expected one of 0..{len(options) - 1} under "{key}", got {repr(value)[:60]}'
    )
