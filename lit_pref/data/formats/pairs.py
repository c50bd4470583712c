"""Rows as people publish them, turned into preference pairs and demonstrations; the format is told by the keys.

Pairs: `prompt, chosen, rejected` as text or messages (TRL, reward-bench, distilabel, UltraFeedback), `chosen, rejected`
that begin with the same prompt, `instruction, input, chosen, rejected` and `conversations, chosen, rejected`
(LLaMA-Factory), `query, better, worse` (CodePMP), or the key names that the user gives (OpenRLHF). With all of them
`system` (or `system_prompt`) and `history` may stand. Where a row holds messages, a system text or a history, all of it
becomes a conversation; LLaMA-Factory's rows always do, since only a chat template separates instruction and answer.
null and empty cells under keys that may be missing count as missing; a CSV cell such as `null` or `N/A` is text.
Not covered: images and tool calls in messages, unpaired ratings, more than two responses.
"""

from dataclasses import dataclass

from lit_pref.data.formats.prompts import PromptAndResponses, separate_prompt, with_context
from lit_pref.data.formats.records import RecordsRead, read_records
from lit_pref.data.reading.rows import (
    OnBadRow,
    Row,
    RowError,
    first_key,
    has,
    number_at,
    string_at,
    text_at,
    token_ids_at,
    turns_at,
)
from lit_pref.data.reading.sources import Source
from lit_pref.types import Demonstration, Message, PreferencePair, Text

_PROMPT_KEYS = ("prompt", "instruction", "query", "question", "input")
_COMPLETION_KEYS = ("completion", "response", "output")
_RATING_KEYS = (
    ("chosen_rating", "rejected_rating"),
    ("chosen-rating", "rejected-rating"),
    ("score_chosen", "score_rejected"),
    ("chosen_score", "rejected_score"),
)


@dataclass(frozen=True)
class PairKeys:
    """Key names of the user's own.

    Args:
        prompt_key: the prompt's; null where the prompt is what both responses begin with.
        chosen_key: the better response's.
        rejected_key: the worse response's.
        margin_key: that of a number by which chosen is better, negative where ratings disagree with the choice; null
            takes `margin` where a row has it, else the difference of its ratings.
    """

    prompt_key: str | None = "prompt"
    chosen_key: str = "chosen"
    rejected_key: str = "rejected"
    margin_key: str | None = None


@dataclass(frozen=True)
class DemonstrationKeys:
    """Key names of the user's own; without `prompt_key` there is no prompt."""

    prompt_key: str | None = "prompt"
    completion_key: str = "completion"


def read_pairs(
    source: Source, split: str = "train", keys: PairKeys | None = None, on_bad_row: OnBadRow = "error"
) -> RecordsRead[PreferencePair]:
    """All preference pairs of a source, as `read_records`."""
    return read_records(to_pair, source, split, keys, on_bad_row)


def read_demonstrations(
    source: Source, split: str = "train", keys: DemonstrationKeys | None = None, on_bad_row: OnBadRow = "error"
) -> RecordsRead[Demonstration]:
    """All demonstrations of a source, as `read_records`."""
    return read_records(to_demonstration, source, split, keys, on_bad_row)


def to_pair(row: Row, keys: PairKeys | None = None) -> PreferencePair:
    """The preference pair of a row; Raises RowError that names the place, the key and what stood there."""
    chosen_key, rejected_key = _side_keys(row, keys)
    chosen, rejected = text_at(row, chosen_key), text_at(row, rejected_key)
    if chosen == rejected:
        raise _equal(row, chosen_key, rejected_key)
    prompt = _pair_prompt(row, keys)
    parts = with_context(row, separate_prompt(row, prompt, (chosen, rejected)), prompt is not None)
    chosen_ids, rejected_ids = token_ids_at(row, "chosen_ids"), token_ids_at(row, "rejected_ids")
    # A model that ends at once samples no text, only its EOS; text without tokens must say something.
    _refuse_empty(row, chosen_key, parts.responses[0], chosen_ids)
    _refuse_empty(row, rejected_key, parts.responses[1], rejected_ids)
    chosen, rejected = parts.responses
    if chosen == rejected:  # "a" and [{"role": "assistant", "content": "a"}]
        raise _equal(row, chosen_key, rejected_key)
    return PreferencePair(parts.prompt, chosen, rejected, _margin(row, keys), chosen_ids, rejected_ids)


def _equal(row: Row, chosen_key: str, rejected_key: str) -> RowError:
    place = f'{row.location}: "{chosen_key}" and "{rejected_key}"'
    return RowError("equal sides", f"{place} are equal: expected two different responses")


def to_demonstration(row: Row, keys: DemonstrationKeys | None = None) -> Demonstration:
    """The demonstration of a row; of several assistant turns the last is the completion, the others are prompt.

    A row with only `text` becomes a completion without a prompt.

    Raises RowError that names the place, the key and what stood there.
    """
    prompt: Text
    turns_key = first_key(row, ("messages", "conversations"))
    if keys is not None:
        completion_key = keys.completion_key
        prompt = text_at(row, keys.prompt_key) if keys.prompt_key else ""
    elif turns_key is not None and (has(row, turns_key) or first_key(row, _COMPLETION_KEYS) is None):
        turns = turns_at(row, turns_key)
        if len(turns) < 2 or turns[-1]["role"] != "assistant":
            raise RowError("no response", f'{row.location}: "{turns_key}" must end with an assistant turn after others')
        _refuse_empty(row, turns_key, turns[-1:], None)
        parts = with_context(row, PromptAndResponses(turns[:-1], (turns[-1:],)))
        return Demonstration(parts.prompt, parts.responses[0], token_ids_at(row, "completion_ids"))
    elif has(row, "text") and first_key(row, _COMPLETION_KEYS) is None:
        completion_key, prompt = "text", ""
    else:
        completion_key = first_key(row, _COMPLETION_KEYS) or "completion"
        prompt = _prompt_at(row, first_key(row, _PROMPT_KEYS) or "prompt")
    completion = text_at(row, completion_key)
    ids = token_ids_at(row, "completion_ids")
    _refuse_empty(row, completion_key, completion, ids)
    parts = with_context(row, separate_prompt(row, prompt, (completion,)))
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
        return text_at(row, keys.prompt_key) if keys.prompt_key else None
    key = first_key(row, ("conversations", *_PROMPT_KEYS))
    return None if key is None else _prompt_at(row, key)


def _prompt_at(row: Row, key: str) -> Text:
    return _instruction(row) if key == "instruction" else text_at(row, key)


def _instruction(row: Row) -> tuple[Message, ...]:
    """LLaMA-Factory joins instruction and input by a newline into one user turn."""
    query = f"\n{string_at(row, 'input')}" if has(row, "input") else ""
    return ({"role": "user", "content": string_at(row, "instruction") + query},)


def _margin(row: Row, keys: PairKeys | None) -> float | None:
    if keys is not None and keys.margin_key is not None:
        return number_at(row, keys.margin_key)
    if has(row, "margin"):
        return number_at(row, "margin")
    for better, worse in _RATING_KEYS:
        if has(row, better) and has(row, worse):
            return number_at(row, better) - number_at(row, worse)
    return None


def _refuse_empty(row: Row, key: str, response: Text, ids: tuple[int, ...] | None) -> None:
    content = response if isinstance(response, str) else response[-1]["content"]
    if ids is None and not content.strip():
        raise RowError("empty response", f'{row.location}: "{key}" has an empty response, expected text')
