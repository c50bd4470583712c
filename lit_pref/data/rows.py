"""A record from outside: where it stood, what stands under its keys, and what happens when it cannot be used.

Knows text, messages, numbers and token ids; not which keys make a preference pair (`formats.py`), nor any file
(`row_files.py`).
"""

import difflib
import math
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from lit_pref.data.shards import JsonValue
from lit_pref.errors import UserError
from lit_pref.types import Message, Text

OnBadRow = Literal["error", "skip"]

_ROLES = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant", "model": "assistant"}


class Row(NamedTuple):
    """One record and where it stood: `pairs.jsonl:7` or `pairs.parquet row 12`."""

    location: str
    values: dict[str, object]


class RowError(UserError):
    """A single row that cannot be used; `reason` is the short name under which it is counted when skipped."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass
class SkippedRows:
    """Rows left out: how many for each reason, and the messages of the first `keep` of them."""

    keep: int = 1000
    counts: Counter[str] = field(default_factory=Counter)
    messages: list[str] = field(default_factory=list)

    def add(self, error: RowError) -> None:
        self.counts[error.reason] += 1
        if len(self.messages) < self.keep:
            self.messages.append(str(error))

    def to_json(self) -> dict[str, JsonValue]:
        """What is written beside an output with `shards.write_json`."""
        return {"total": self.counts.total(), "counts": dict(self.counts), "first_messages": list(self.messages)}


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
        f"Rename it, or name the row's keys yourself (prompt_key, chosen_key, rejected_key or completion_key)",
    )


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
    turns: list[Message] = []
    for turn in value if isinstance(value, list) else [value]:
        role_key, content_key = ("from", "value") if isinstance(turn, dict) and "from" in turn else ("role", "content")
        role, content = (turn.get(role_key), turn.get(content_key)) if isinstance(turn, dict) else (None, None)
        if not isinstance(role, str) or not isinstance(content, str):
            expected = 'messages such as {"role": "user", "content": "…"} (or from and value)'
            raise RowError("not a message", f"{row.location}: expected {expected}, one is {_found(key, turn)}")
        turns.append({"role": _ROLES.get(role, role), "content": _encodable(row, key, content)})
    if not turns:
        raise RowError("empty response", f'{row.location}: "{key}" is an empty list')
    return tuple(turns)


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
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise RowError("not a number", f"{row.location}: expected a finite number under {_found(key, value)}")
    return number


def token_ids_at(row: Row, key: str) -> tuple[int, ...] | None:
    value = row.values.get(key)
    if value is None:
        return None
    if not isinstance(value, list) or not value or not all(type(token) is int and token >= 0 for token in value):
        raise RowError("not token ids", f"{row.location}: expected token ids, all >= 0, under {_found(key, value)}")
    return tuple(value)


def _found(key: str, value: object) -> str:
    return f'"{key}", got {type(value).__name__} {str(value)[:40]!r}'
