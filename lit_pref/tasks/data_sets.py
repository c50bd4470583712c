"""What readers of published reasoning data share: a split's items, a seeded part of them, prompts as text or as turns.

Items are told apart by their content, so that a row that stands twice is one item. Not covered: what the keys of a row
mean; items that do not fit into memory.
"""

import random
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from typing import ClassVar, Generic, Literal, TypeVar, get_args

from lit_pref.data.formats.prompts import response
from lit_pref.data.reading.files import file_rows
from lit_pref.data.reading.rows import Row, RowError
from lit_pref.data.reading.sources import read_rows
from lit_pref.errors import UserError
from lit_pref.syntax.thoughts import without_thoughts
from lit_pref.tasks.rows import texts_in
from lit_pref.tasks.wording import CodeStyle, Style, check_style
from lit_pref.types import ChoiceTask, Demonstration, MultipleChoice, PairTask, PreferencePair, Problem, Split, Task

WrongOptions = Literal["each", "one"]
"""Which wrong options of a question become rejected responses: each of them, or one that the seed draws."""

_Item = TypeVar("_Item", Problem, MultipleChoice)


class _DataSet(ABC, Generic[_Item]):
    """Items of the rows of a file or the hub, the same ones for every seed; a smaller number is drawn from all.

    published: what is read where no source is given.
    """

    name: ClassVar[str]
    splits: ClassVar[tuple[Split, ...]] = ("test",)
    published: ClassVar[str] = ""
    stated_splits: ClassVar[str] = ""  # how a row says of which split it is

    styles: ClassVar[tuple[str, ...]] = get_args(Style)

    def __init__(self, source: str | None, style: CodeStyle) -> None:
        check_style(style, self.styles)
        self.source, self.style = source or self.published, style
        if not self.source:
            raise UserError(f"{type(self).__name__} needs a source: a file, a folder or a hub id of its rows")

    def _rows(self, split: Split) -> Iterable[Row]:
        """The split's rows as they were published."""
        return read_rows(self.source, split)

    @abstractmethod
    def _item(self, row: Row) -> _Item:
        """Raises RowError, which names the row, where it lacks what an item needs."""

    def size(self, split: Split) -> int:
        """How many items a split has."""
        return len(self._all(split))

    def _all(self, split: Split) -> list[_Item]:
        """The distinct items of a split, in the order of its rows.

        Raises UserError for a split that the data has not or that is empty, RowError where two items share an id.
        """
        check_split(self.name, self.splits, split)
        found: dict[str, _Item] = {}
        for row in self._rows(split):
            item = self._item(row)
            if found.setdefault(item.id, item) != item:
                raise RowError(
                    "duplicate", f"{row.location}: the id {item.id[:60]!r} stands in an earlier, other row too"
                )
        if not found:
            raise UserError(f"the rows of {self.name} hold nothing of split {split!r}{self.stated_splits}")
        return list(found.values())

    def _some(self, split: Split, count: int | None, seed: int) -> list[_Item]:
        """`count` items in their order, which ones the seed decides; None is all. Raises UserError for too many."""
        every = self._all(split)
        count = len(every) if count is None else count
        if not 0 <= count <= len(every):
            raise UserError(f"split {split!r} of {self.name} has {len(every)} items, {count} asked for")
        chosen = random.Random(f"{self.name}:{split}:{seed}").sample(range(len(every)), count)
        return [every[index] for index in sorted(chosen)]


def check_split(name: str, splits: Sequence[Split], split: Split) -> None:
    if split not in splits:
        raise UserError(f"{name} has no split {split!r}: expected one of {', '.join(splits)}")


def first(name: str, split: Split, pairs: Sequence[PreferencePair], count: int | None) -> list[PreferencePair]:
    """The first `count` pairs; None is all. Raises UserError for too many."""
    if count is not None and not 0 <= count <= len(pairs):
        raise UserError(f"split {split!r} of {name} gives {len(pairs)} pairs, {count} asked for")
    return list(pairs[:count])


class _Problems(_DataSet[Problem], Task):
    """Problems with references. thoughts: tags of what a model thinks before it answers, as in `without_thoughts`."""

    def __init__(self, source: str | None, style: CodeStyle, thoughts: Sequence[str]) -> None:
        super().__init__(source, style)
        without_thoughts("", thoughts)  # raises for a tag that has no end
        self.thoughts = tuple(thoughts)

    def problems(self, split: Split, count: int | None, seed: int) -> list[Problem]:
        """`count` problems of a split in the order of the file; the seed decides which, where not all are asked for."""
        return self._some(split, count, seed)

    def demonstrations(self, split: Split, count: int, seed: int) -> list[Demonstration]:
        """The problems of the same arguments with their references, as an assistant's turn where they are a user's."""
        problems = self.problems(split, count, seed)
        return [Demonstration(each.prompt, response(each.prompt, each.reference)) for each in problems]


def check_one_each(problems: Sequence[Problem], completions: Sequence[str]) -> None:
    if len(problems) != len(completions):
        raise ValueError(f"one completion a problem: got {len(problems)} problems, {len(completions)} completions")


class _ChoiceData(_DataSet[MultipleChoice], ChoiceTask, PairTask):
    """Questions with options, and pairs of the right option over wrong ones.

    Args:
        source: a file (JSON Lines, JSON, Parquet), a folder, or a hub id, of the rows that the class describes; a file
            is read whole, whatever the split. Null is the published data.
        style: completion gives text and question as text to be continued, chat as a user's turn.
        rejected: pairs with each wrong option, or with one that the seed draws.
    """

    splits: ClassVar[tuple[Split, ...]] = get_args(Split)

    def __init__(self, source: str | None = None, style: Style = "completion", rejected: WrongOptions = "each") -> None:
        super().__init__(source, style)
        if rejected not in get_args(WrongOptions):
            raise ValueError(f'rejected must be "each" or "one", got {rejected!r}')
        self.rejected = rejected

    def questions(self, split: Split, count: int | None, seed: int) -> list[MultipleChoice]:
        """`count` questions in the order of the file, which ones the seed decides; None is all."""
        return self._some(split, count, seed)

    def pairs(self, split: Split, count: int | None, seed: int) -> list[PreferencePair]:
        """The right option over wrong ones, question by question in an order of the seed; None is all."""
        draw = random.Random(f"pairs:{self.name}:{split}:{seed}")
        every = self._all(split)
        draw.shuffle(every)
        return first(self.name, split, [pair for each in every for pair in self._pairs(each, draw)], count)

    def _pairs(self, question: MultipleChoice, draw: random.Random) -> list[PreferencePair]:
        right = question.options[question.answer]
        wrong = [option for option in question.options if option != right]
        if self.rejected == "one":
            wrong = [draw.choice(wrong)] if wrong else []
        prompt = question.prompt
        return [PreferencePair(prompt, response(prompt, right), response(prompt, option)) for option in wrong]


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
