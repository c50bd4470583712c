"""Where the prompt ends and the responses begin, for rows that state the prompt apart, repeated, or only within.

Text is cut by rules (Anthropic HH's marker, else a word's beginning), conversations by their turns. What a row says
before its prompt, a system's text and earlier turns, makes a conversation of it. Not covered: prompts that the two
responses quote differently.
"""

import re
import unicodedata
from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple

from lit_pref.data.reading.rows import Row, RowError, has, string_at, turns_at, value_at
from lit_pref.types import Message, Text

_HH_MARKER = "\n\nAssistant:"
_SYSTEM_KEYS = ("system", "system_prompt")
_HISTORY_KEY = "history"


class PromptAndResponses(NamedTuple):
    prompt: Text
    responses: tuple[Text, ...]


def separate_prompt(row: Row, prompt: Text | None, responses: tuple[Text, ...]) -> PromptAndResponses:
    """Prompt and responses, all text or all conversations; what the responses repeat of the prompt is cut off."""
    texts = [response for response in responses if isinstance(response, str)]
    if len(texts) == len(responses) and not isinstance(prompt, tuple):
        return PromptAndResponses(prompt, responses) if prompt is not None else _separate_texts(row, texts)
    turns = [as_turns(response, "assistant") for response in responses]
    if isinstance(prompt, tuple):
        # Some repeat the prompt's turns before each response.
        known = [side[len(prompt) :] if side[: len(prompt)] == prompt else side for side in turns]
        return _checked(row, prompt, known)
    if prompt and all(side[0]["role"] == "assistant" for side in turns):
        return _checked(row, as_turns(prompt, "user"), turns)
    # The responses are whole conversations, a text prompt repeats a part of them.
    shared = _shared_length(turns[0], turns[1]) if len(turns) > 1 else len(turns[0]) - 1
    while shared > 0 and not all(_begins_answer(side, shared) for side in turns):
        shared -= 1
    said = [turn["content"] for turn in turns[0][:shared]]
    if prompt and said and not any(prompt.strip() in text for text in said) and _beyond(prompt, said):
        place = f"{row.location}: the prompt {prompt[:40]!r} and the turns that the responses begin with"
        raise RowError("two prompts", f"{place} say different things: expected one prompt")
    return _checked(row, turns[0][:shared], [side[shared:] for side in turns])


def with_context(row: Row, found: PromptAndResponses, stated: bool = True) -> PromptAndResponses:
    """Put the row's system text and its earlier turns before the prompt, which makes a conversation of plain text.

    stated: the row has a prompt of its own; only then can plain text become a turn.

    Raises RowError where they cannot be read, or where the prompt has another system text of its own.
    """
    system_key = next((key for key in _SYSTEM_KEYS if has(row, key)), None)
    earlier = _history(row, _HISTORY_KEY) if has(row, _HISTORY_KEY) else ()
    if system_key is None and not earlier:
        return found
    if not stated and isinstance(found.prompt, str):
        raise _no_shared_prompt(row)
    prompt = as_turns(found.prompt, "user")
    system: tuple[Message, ...] = ()
    if system_key is not None:
        system = ({"role": "system", "content": string_at(row, system_key)},)
    if prompt[0]["role"] == "system":
        if system and system[0]["content"].strip() != prompt[0]["content"].strip():
            place = f'{row.location}: "{system_key}" and the first turn'
            raise RowError("two system texts", f"{place} are different system texts: expected one")
        system, prompt = prompt[:1], prompt[1:]
    responses = tuple(as_turns(response, "assistant") for response in found.responses)
    return PromptAndResponses((*system, *earlier, *prompt), responses)


def _beyond(prompt: str, said: Sequence[str]) -> str:
    """What a prompt says beyond what was said: a rendering of the turns ("Human: …") says nothing more."""
    for text in said:
        prompt = prompt.replace(text, " ", 1)
    return re.sub(r"\w+:", " ", prompt).strip()


def _history(row: Row, key: str) -> tuple[Message, ...]:
    """LLaMA-Factory's list of [what the user said, what the assistant answered]; a list of messages is taken too."""
    rounds = value_at(row, key)
    if isinstance(rounds, list) and isinstance(rounds[0], dict):
        return turns_at(row, key)
    if not isinstance(rounds, list) or not all(
        isinstance(each, list) and len(each) == 2 and all(isinstance(text, str) for text in each) for each in rounds
    ):
        expected = 'a list of ["what the user said", "what the assistant answered"] or of messages'
        raise RowError("not a history", f'{row.location}: expected {expected} under "{key}", got {str(rounds)[:40]!r}')
    texts = [Row(row.location, {key: text}) for each in rounds for text in each]
    roles = ("user", "assistant") * len(rounds)
    return tuple({"role": role, "content": string_at(text, key)} for role, text in zip(roles, texts, strict=True))


def _begins_answer(turns: Sequence[Message], place: int) -> bool:
    """Whether the assistant begins to speak there."""
    roles = [turn["role"] for turn in turns[max(0, place - 1) : place + 1]]
    return roles[-1:] == ["assistant"] and len(turns) > place and roles[0] != "assistant"


def _shared_length(first: Sequence[object], second: Sequence[object]) -> int:
    pairs = enumerate(zip(first, second, strict=False))
    return next((index for index, (a, b) in pairs if a != b), min(len(first), len(second)))


def prompt_identity(prompt: Text) -> int:
    """63 bits that are equal for prompts that say the same: whatever the case, the spacing and the roles."""
    said = prompt if isinstance(prompt, str) else "\n".join(turn["content"] for turn in prompt)
    normal = " ".join(unicodedata.normalize("NFKC", said).casefold().split())
    return int.from_bytes(blake2b(normal.encode(), digest_size=8).digest()) >> 1


def response(prompt: Text, text: str) -> Text:
    """A completion as a prompt's response: text to text, an assistant's turn to a conversation."""
    return text if isinstance(prompt, str) else as_turns(text, "assistant")


def as_turns(text: Text, role: str) -> tuple[Message, ...]:
    return ({"role": role, "content": text},) if isinstance(text, str) else text


def _checked(row: Row, prompt: tuple[Message, ...], responses: Sequence[tuple[Message, ...]]) -> PromptAndResponses:
    if not prompt:
        raise _no_shared_prompt(row)
    for turns in responses:
        roles = [turn["role"] for turn in turns]
        if not roles or roles[0] != "assistant" or roles[-1] != "assistant":
            expected = "after the prompt expected turns that begin and end with the assistant"
            raise RowError("no response", f"{row.location}: {expected}, got {', '.join(roles) or 'none'}")
    return PromptAndResponses(prompt, tuple(responses))


def _separate_texts(row: Row, texts: Sequence[str]) -> PromptAndResponses:
    """Cut the longest common beginning after its last "\\n\\nAssistant:" (Anthropic HH), else between two words."""
    common = texts[0][: _shared_length(texts[0], texts[1])]
    marker = common.rfind(_HH_MARKER)
    if marker >= 0:
        cut = marker + len(_HH_MARKER)
    else:
        # Spaces go with the word after them, as tokenizers have it; a line's end stays with the line.
        whole_words = common[: next((end for end in range(len(common), 0, -1) if common[end - 1].isspace()), 0)]
        last_space = len(whole_words.rstrip())
        cut = last_space + whole_words[last_space:].rfind("\n") + 1
    if not common[:cut].strip():
        raise _no_shared_prompt(row)
    return PromptAndResponses(common[:cut], tuple(text[cut:] for text in texts))


def _no_shared_prompt(row: Row) -> RowError:
    return RowError(
        "no shared prompt",
        f"{row.location}: without a prompt of its own, both responses must begin with the same prompt and they do not; "
        f"there stand: {', '.join(row.values)}; name the prompt's key with prompt_key",
    )
