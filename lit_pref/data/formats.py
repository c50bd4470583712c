"""Rows as people publish them, turned into preference pairs and demonstrations; the format is told by the keys.

Pairs: `prompt, chosen, rejected` as text or messages (TRL, reward-bench, distilabel, UltraFeedback), `chosen, rejected`
that begin with the same prompt, `instruction, input, chosen, rejected` and `conversations, chosen, rejected`
(LLaMA-Factory), `query, better, worse` (CodePMP), or the key names that the user gives (OpenRLHF). Where a row holds
messages all of it becomes a conversation; LLaMA-Factory's rows always do, since only a chat template separates
instruction and answer. Not covered: images and tool calls in messages, unpaired ratings, more than two responses.
"""

import difflib
import math
import os.path
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from lit_pref.data.sources import OnBadRow, Row, RowError, SkippedRows, Source, read_rows, refuse
from lit_pref.errors import UserError
from lit_pref.types import Demonstration, Message, PreferencePair, Text

_PROMPT_KEYS = ("prompt", "query", "question", "input")
_COMPLETION_KEYS = ("completion", "response", "output")
_RATING_KEYS = (
    ("chosen_rating", "rejected_rating"),
    ("chosen-rating", "rejected-rating"),
    ("score_chosen", "score_rejected"),
    ("chosen_score", "rejected_score"),
)
_ROLES = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant", "model": "assistant"}
_HH_MARKER = "\n\nAssistant:"


@dataclass(frozen=True, slots=True)
class PairKeys:
    """Key names of the user's own; without `prompt_key` the prompt is what both responses begin with."""

    prompt_key: str | None = "prompt"
    chosen_key: str = "chosen"
    rejected_key: str = "rejected"
    margin_key: str | None = None


@dataclass(frozen=True, slots=True)
class DemonstrationKeys:
    """Key names of the user's own; without `prompt_key` there is no prompt."""

    prompt_key: str | None = "prompt"
    completion_key: str = "completion"


class PairsRead(NamedTuple):
    pairs: list[PreferencePair]
    skipped: SkippedRows


class DemonstrationsRead(NamedTuple):
    demonstrations: list[Demonstration]
    skipped: SkippedRows


def read_pairs(
    source: Source, split: str = "train", keys: PairKeys | None = None, on_bad_row: OnBadRow = "error"
) -> PairsRead:
    """All preference pairs of a source; Raises UserError for the first bad row, or when skipping leaves no pair."""
    pairs: list[PreferencePair] = []
    skipped = SkippedRows()
    for row in read_rows(source, split, on_bad_row, skipped):
        try:
            pairs.append(to_pair(row, keys))
        except RowError as error:
            refuse(error, on_bad_row, skipped)
    _refuse_nothing(source, len(pairs), skipped)
    return PairsRead(pairs, skipped)


def read_demonstrations(
    source: Source, split: str = "train", keys: DemonstrationKeys | None = None, on_bad_row: OnBadRow = "error"
) -> DemonstrationsRead:
    """All demonstrations of a source; Raises UserError for the first bad row, or when skipping leaves none."""
    demonstrations: list[Demonstration] = []
    skipped = SkippedRows()
    for row in read_rows(source, split, on_bad_row, skipped):
        try:
            demonstrations.append(to_demonstration(row, keys))
        except RowError as error:
            refuse(error, on_bad_row, skipped)
    _refuse_nothing(source, len(demonstrations), skipped)
    return DemonstrationsRead(demonstrations, skipped)


def _refuse_nothing(source: Source, kept: int, skipped: SkippedRows) -> None:
    if kept == 0:
        reasons = ", ".join(f"{count} {reason}" for reason, count in skipped.counts.most_common())
        raise UserError(f"{source}: no usable row is left ({reasons}); the first: {skipped.messages[0]}")


def to_pair(row: Row, keys: PairKeys | None = None) -> PreferencePair:
    """The preference pair of a row; Raises RowError that names the place, the key and what stood there."""
    chosen_key, rejected_key = _side_keys(row, keys)
    chosen, rejected = _text(row, chosen_key), _text(row, rejected_key)
    if chosen == rejected:
        raise RowError(
            "equal sides", f'{row.location}: "{chosen_key}" and "{rejected_key}" are equal, nothing to prefer'
        )
    parts = _separate(row, _pair_prompt(row, keys), (chosen, rejected))
    chosen_ids, rejected_ids = _ids(row, "chosen_ids"), _ids(row, "rejected_ids")
    # A model that ends at once samples no text, only its EOS; text without tokens must say something.
    _refuse_empty(row, chosen_key, parts.responses[0], chosen_ids)
    _refuse_empty(row, rejected_key, parts.responses[1], rejected_ids)
    return PreferencePair(parts.prompt, *parts.responses, _margin(row, keys), chosen_ids, rejected_ids)


def to_demonstration(row: Row, keys: DemonstrationKeys | None = None) -> Demonstration:
    """The demonstration of a row; of several assistant turns the last is the completion, the others are prompt.

    `text` alone becomes a completion without a prompt.

    Raises RowError that names the place, the key and what stood there.
    """
    values = row.values
    prompt: Text | None
    if keys is not None:
        completion_key = keys.completion_key
        prompt = _text(row, keys.prompt_key) if keys.prompt_key else ""
    elif turns_key := next((key for key in ("messages", "conversations") if key in values), None):
        turns = _with_system(row, _turns(row, turns_key))
        if len(turns) < 2 or turns[-1]["role"] != "assistant":
            raise RowError("no response", f'{row.location}: "{turns_key}" must end with an assistant turn after others')
        _refuse_empty(row, turns_key, turns[-1:], None)
        return Demonstration(turns[:-1], turns[-1:], _ids(row, "completion_ids"))
    elif "text" in values and not any(key in values for key in _COMPLETION_KEYS):
        completion_key, prompt = "text", ""
    else:
        completion_key = next((key for key in _COMPLETION_KEYS if key in values), "completion")
        prompt = _instruction(row) if "instruction" in values else _text(row, _first(row, _PROMPT_KEYS))
    completion = _text(row, completion_key)
    ids = _ids(row, "completion_ids")
    _refuse_empty(row, completion_key, completion, ids)
    parts = _separate(row, prompt, (completion,))
    return Demonstration(parts.prompt, parts.responses[0], ids)


# --- which key is what ------------------------------------------------------------------------------------------------


def _side_keys(row: Row, keys: PairKeys | None) -> tuple[str, str]:
    if keys is not None:
        return keys.chosen_key, keys.rejected_key
    if "chosen" not in row.values and "rejected" not in row.values and {"better", "worse"} & row.values.keys():
        return "better", "worse"
    return "chosen", "rejected"


def _pair_prompt(row: Row, keys: PairKeys | None) -> Text | None:
    if keys is not None:
        return _text(row, keys.prompt_key) if keys.prompt_key else None
    if "conversations" in row.values:
        return _with_system(row, _turns(row, "conversations"))
    if "prompt" not in row.values and "instruction" in row.values:
        return _instruction(row)
    prompt_key = next((key for key in _PROMPT_KEYS if key in row.values), None)
    return _text(row, prompt_key) if prompt_key else None


def _first(row: Row, names: Sequence[str]) -> str:
    return next((name for name in names if name in row.values), names[0])


def _instruction(row: Row) -> tuple[Message, ...]:
    """LLaMA-Factory joins instruction and input by a newline into one user turn."""
    parts = [_text(row, key) for key in ("instruction", "input") if key == "instruction" or row.values.get(key)]
    user: list[Message] = [{"role": "user", "content": "\n".join(part for part in parts if isinstance(part, str))}]
    return _with_system(row, tuple(user))


def _with_system(row: Row, turns: tuple[Message, ...]) -> tuple[Message, ...]:
    system = _text(row, "system") if row.values.get("system") else ""
    if isinstance(system, str) and system and turns[0]["role"] != "system":
        return ({"role": "system", "content": system}, *turns)
    return turns


def _margin(row: Row, keys: PairKeys | None) -> float | None:
    key = keys.margin_key if keys is not None and keys.margin_key else "margin"
    if row.values.get(key) is not None:
        return _number(row, key)
    for better, worse in _RATING_KEYS:
        if row.values.get(better) is not None and row.values.get(worse) is not None:
            return _number(row, better) - _number(row, worse)
    return None


# --- what stands under a key ------------------------------------------------------------------------------------------


def _value(row: Row, key: str) -> object:
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


def _text(row: Row, key: str) -> Text:
    value = _value(row, key)
    if isinstance(value, str):
        return _encodable(row, key, value)
    if isinstance(value, dict | list):
        return _turns(row, key)
    raise RowError("not a string", f"{row.location}: expected text or messages under {_found(key, value)}")


def _turns(row: Row, key: str) -> tuple[Message, ...]:
    """Messages as `{role, content}` or `{from, value}`, one or a list of them."""
    value = _value(row, key)
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


def _number(row: Row, key: str) -> float:
    value = row.values[key]
    try:
        number = math.nan if isinstance(value, bool) or not isinstance(value, int | float | str) else float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise RowError("not a number", f"{row.location}: expected a finite number under {_found(key, value)}")
    return number


def _ids(row: Row, key: str) -> tuple[int, ...] | None:
    value = row.values.get(key)
    if value is None:
        return None
    if not isinstance(value, list) or not value or not all(type(token) is int and token >= 0 for token in value):
        raise RowError("not token ids", f"{row.location}: expected token ids, all >= 0, under {_found(key, value)}")
    return tuple(value)


def _found(key: str, value: object) -> str:
    return f'"{key}", got {type(value).__name__} {str(value)[:40]!r}'


# --- prompt and responses ---------------------------------------------------------------------------------------------


class _Parts(NamedTuple):
    prompt: Text
    responses: tuple[Text, ...]


def _separate(row: Row, prompt: Text | None, responses: tuple[Text, ...]) -> _Parts:
    """Prompt and responses, all text or all conversations; what the responses repeat of the prompt is cut off."""
    texts = [response for response in responses if isinstance(response, str)]
    if len(texts) == len(responses) and not isinstance(prompt, tuple):
        return _Parts(prompt, responses) if prompt is not None else _separate_texts(row, texts)
    turns = [_as_turns(response, "assistant") for response in responses]
    if isinstance(prompt, tuple):
        # Some repeat the prompt's turns before each response.
        known = [side[len(prompt) :] if side[: len(prompt)] == prompt else side for side in turns]
        return _checked(row, prompt, known)
    if prompt and all(side[0]["role"] == "assistant" for side in turns):
        return _checked(row, _as_turns(prompt, "user"), turns)
    # The responses are whole conversations, a text prompt repeats a part of them.
    shared = len(os.path.commonprefix(turns)) if len(turns) > 1 else len(turns[0]) - 1
    while shared > 0 and not all(len(side) > shared and side[shared]["role"] == "assistant" for side in turns):
        shared -= 1
    return _checked(row, turns[0][:shared], [side[shared:] for side in turns])


def _as_turns(text: Text, role: str) -> tuple[Message, ...]:
    return ({"role": role, "content": text},) if isinstance(text, str) else text


def _checked(row: Row, prompt: tuple[Message, ...], responses: Sequence[tuple[Message, ...]]) -> _Parts:
    if not prompt:
        raise _no_shared_prompt(row)
    for turns in responses:
        roles = [turn["role"] for turn in turns]
        if not roles or roles[0] != "assistant" or roles[-1] != "assistant":
            expected = "a response must begin and end with an assistant turn"
            raise RowError(
                "no response", f"{row.location}: {expected}, after the prompt there stand: {roles or 'none'}"
            )
    return _Parts(prompt, tuple(responses))


def _separate_texts(row: Row, texts: Sequence[str]) -> _Parts:
    """Cut the longest common beginning after its last "\\n\\nAssistant:" (Anthropic HH), else between two words."""
    common = os.path.commonprefix(texts)
    marker = common.rfind(_HH_MARKER)
    if marker >= 0:
        cut = marker + len(_HH_MARKER)
    else:
        # Spaces go with the word after them, as tokenizers have it; a line's end stays with the line.
        last = next(iter(re.finditer(r"\s+(?=\S*\Z)", common)), None)
        cut = 0 if last is None else last.start() + last.group().rfind("\n") + 1
    if cut == 0:
        raise _no_shared_prompt(row)
    return _Parts(common[:cut], tuple(text[cut:] for text in texts))


def _no_shared_prompt(row: Row) -> RowError:
    return RowError(
        "no shared prompt",
        f"{row.location}: without a prompt of its own, both responses must begin with the same prompt and they do not; "
        f"there stand: {', '.join(row.values)}; name the prompt's key with prompt_key",
    )


def _refuse_empty(row: Row, key: str, response: Text, ids: tuple[int, ...] | None) -> None:
    content = response if isinstance(response, str) else response[-1]["content"]
    if ids is None and not content.strip():
        raise RowError("empty response", f'{row.location}: "{key}" has an empty response, expected text')
