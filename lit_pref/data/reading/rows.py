"""A record from outside: where it stood, what stands under its keys, and what happens when it cannot be used.

Knows text, messages, numbers and token ids; not which keys make a preference pair (`formats/`), nor any file
(`files.py`).
"""

import difflib
import math
import re
import reprlib
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from lit_pref.errors import UserError
from lit_pref.storage.files import JsonValue
from lit_pref.types import Message, Text

OnBadRow = Literal["error", "skip"]

_ALIASES = {
    "system": ("developer",),
    "user": ("human", "prompter"),
    "assistant": ("gpt", "chatgpt", "bot", "model", "ai"),
    "tool": ("function", "observation"),
}
_ROLES = {name: role for role, others in _ALIASES.items() for name in (role, *others)}

# Labels, ratings and origins: that these are not used surprises nobody. Content has other names.
_LABELS = re.compile(
    r"(.*[_-])?(id|ids|idx|index|uuid|hash|source|dataset|subset|split|category|language|lang|license|url|models?"
    r"|ratings?|scores?|score_diff|rank|annotator|timestamp|date|num_turns|num_tokens)"
    r"|(score|rating|model|rank|num|is|has)[_-].*",
    re.IGNORECASE,
)
_FLOAT32_MAX = 3.4e38


class Row(NamedTuple):
    """One record and where it stood: `pairs.jsonl:7` or `pairs.parquet row 12`."""

    location: str
    values: dict[str, object]


class RowError(UserError):
    """A single row that cannot be used; `reason` is the short name under which it is counted when skipped."""

    def __init__(self, reason: str, message: str) -> None:
        # What stood in the row may hold what no terminal and no file takes: half characters, control characters.
        super().__init__("".join(each if each.isprintable() else repr(each)[1:-1] for each in message))
        self.reason = reason


class ReadValues(dict[str, object]):
    """A row's values, which of them were looked at, and what of a message was not (`chosen.thinking`)."""

    def __init__(self, values: dict[str, object]) -> None:
        super().__init__(values)
        self.read: set[str] = set()
        self.left: set[str] = set()

    def __getitem__(self, key: str) -> object:
        self.read.add(key)
        return super().__getitem__(key)


@dataclass
class SkippedRows:
    """What of a source was left out.

    counts: rows, by reason.
    messages: of the first `keep` of them.
    columns: those that hold content and were not used, and where that was first seen.
    """

    keep: int = 1000
    counts: Counter[str] = field(default_factory=Counter)
    messages: list[str] = field(default_factory=list)
    columns: dict[str, str] = field(default_factory=dict)

    def add(self, error: RowError) -> None:
        self.counts[error.reason] += 1
        if len(self.messages) < self.keep:
            self.messages.append(str(error))

    def note_columns(self, location: str, values: ReadValues) -> None:
        """Note the columns of a row that hold content which was not looked at.

        Labels do not count, nor does what only repeats something that was.
        """
        left = [
            column
            for column, value in values.items()
            if column not in values.read and column not in self.columns and not _LABELS.fullmatch(column)
            if _content(value) and not any(_repeats(value, values.get(key)) for key in values.read)
        ]
        for column in (*left, *sorted(values.left)):
            self.columns.setdefault(column, location)

    def to_json(self) -> dict[str, JsonValue]:
        """What is written beside an output with `write_json`."""
        return {
            "total": self.counts.total(),
            "counts": dict(self.counts),
            "first_messages": list(self.messages),
            "unused_columns": dict(self.columns),
        }


def _content(value: object) -> str:
    """A value in one line; empty where there is nothing to read in it."""
    if value is None or value == [] or value == {} or (isinstance(value, str) and not value.strip()):
        return ""
    try:
        return repr(value)
    except RecursionError:
        return reprlib.repr(value)


def _repeats(value: object, used: object) -> bool:
    """Whether a value says no more than another: it is the same, or one of its parts."""
    whole, part = _content(used), _content(value)
    return part in whole if isinstance(value, str | list | dict) else part == whole


def tell_unused(columns: dict[str, str]) -> None:
    """Name the columns that were not used in one line on stderr, with the first row that has content there."""
    if columns:
        names = ", ".join(f'"{column}"' for column in columns)
        what = f"column {names} is" if len(columns) == 1 else f"columns {names} are"
        line = f"{next(iter(columns.values()))}: {what} not used"
        print(line.encode("utf-8", "backslashreplace").decode(), file=sys.stderr, flush=True)


def refuse(error: RowError, on_bad_row: OnBadRow, skipped: SkippedRows | None) -> None:
    """Raise the error or count it."""
    if on_bad_row == "error":
        raise error
    if skipped is None:
        raise ValueError('on_bad_row="skip" needs a SkippedRows to count in')
    skipped.add(error)


# --- what stands under a key ------------------------------------------------------------------------------------------


def value_at(row: Row, key: str) -> object:
    if key in row.values:
        return row.values[key]
    there = [str(name) for name in row.values]
    near = difflib.get_close_matches(key, there, n=1)
    mend = f'did you mean "{near[0]}"? ' if near else ""
    raise RowError(
        "missing key",
        f'{row.location}: expected the key "{key}", there stand: {", ".join(there) or "none"}; {mend}'
        "rename it, or name the row's keys yourself (prompt_key, chosen_key, rejected_key, completion_key, label_key)",
    )


def has(row: Row, key: str) -> bool:
    """Whether there is content under a key that may be missing: null and an empty cell mean that there is none."""
    return row.values.get(key) not in (None, "", [])


def first_key(row: Row, names: Iterable[str]) -> str | None:
    """The first of some keys that has content, else the first that is there at all."""
    there = [name for name in names if name in row.values]
    return next((name for name in there if has(row, name)), there[0] if there else None)


def text_at(row: Row, key: str) -> Text:
    """Plain text, or messages where a list or a single message stands there."""
    return turns_at(row, key) if isinstance(value_at(row, key), dict | list) else string_at(row, key)


def string_at(row: Row, key: str) -> str:
    value = value_at(row, key)
    if isinstance(value, str):
        return _encodable(row, key, value)
    raise RowError("not a string", f"{row.location}: expected text under {_found(key, value)}")


def turns_at(row: Row, key: str) -> tuple[Message, ...]:
    """Messages as `{role, content}` or `{from, value}`, one or a list of them."""
    value = value_at(row, key)
    turns = tuple(_turn(row, key, turn) for turn in (value if isinstance(value, list) else [value]))
    if not turns:
        raise RowError("empty response", f'{row.location}: "{key}" is an empty list')
    return turns


def _turn(row: Row, key: str, turn: object) -> Message:
    values = turn if isinstance(turn, dict) else {}
    role_key, content_key = ("from", "value") if "from" in values else ("role", "content")
    role, content = values.get(role_key), values.get(content_key)
    if values.get("tool_calls") or values.get("function_call"):
        raise RowError("tool call", f'{row.location}: a message under "{key}" calls a tool, which is not covered')
    if isinstance(content, list):
        content = _joined_parts(row, key, content)
    if not isinstance(role, str) or not isinstance(content, str):
        expected = 'messages such as {"role": "user", "content": "…"} (or from and value)'
        raise RowError("not a message", f"{row.location}: expected {expected}, one is {_found(key, turn)}")
    if (known := _ROLES.get(role.strip().lower())) is None:
        place = f'{row.location}: a message under "{key}" has the unknown role {role[:40]!r}'
        raise RowError("unknown role", f"{place}: expected one of {', '.join(_ROLES)}")
    if isinstance(row.values, ReadValues):
        others = (name for name in values if name not in (role_key, content_key) and _content(values[name]))
        row.values.left.update(f"{key}.{name}" for name in others if not _LABELS.fullmatch(name))
    return {"role": known, "content": _encodable(row, key, content)}


def _joined_parts(row: Row, key: str, parts: list[object]) -> str | None:
    """The text of a multimodal message that holds only text; None for what is no list of parts."""
    texts: list[str] = []
    for part in parts:
        kind, text = (part.get("type", "text"), part.get("text")) if isinstance(part, dict) else ("text", part)
        if isinstance(kind, str) and kind != "text":
            raise RowError("not text", f'{row.location}: a message under "{key}" holds {kind!r}: expected text alone')
        if not isinstance(text, str):
            return None
        texts.append(text)
    return "".join(texts) if texts else None


def _encodable(row: Row, key: str, text: str) -> str:
    # JSON can spell half of a surrogate pair; no tokenizer takes it.
    if not text.isascii() and (half := re.search("[\ud800-\udfff]", text)):
        place = f'{row.location}: "{key}" holds half a character (\\u{ord(half.group()):04x}) at {half.start()}'
        raise RowError("broken text", f"{place}; was it cut in the middle of an emoji?")
    return text


def number_at(row: Row, key: str) -> float:
    value = value_at(row, key)
    try:
        number = math.nan if isinstance(value, bool) or not isinstance(value, int | float | str) else float(value)
    except (ValueError, OverflowError):
        number = math.nan
    if not abs(number) <= _FLOAT32_MAX:  # margins are kept in fp32
        raise RowError("not a number", f"{row.location}: expected a finite number under {_found(key, value)}")
    return number


def token_ids_at(row: Row, key: str) -> tuple[int, ...] | None:
    if row.values.get(key) in (None, ""):
        return None
    value = value_at(row, key)
    if not isinstance(value, list) or not value or not all(type(token) is int and token >= 0 for token in value):
        raise RowError("not token ids", f"{row.location}: expected token ids, all >= 0, under {_found(key, value)}")
    return tuple(value)


def _found(key: str, value: object) -> str:
    shown = value if isinstance(value, str) else reprlib.repr(value)  # which str() of deep nesting cannot be
    return f'"{key}", got {type(value).__name__} {shown[:40]!r}'
