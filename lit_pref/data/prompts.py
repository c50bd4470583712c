"""Where the prompt ends and the responses begin, for rows that state the prompt apart, repeated, or only within.

Text is cut by rules (Anthropic HH's marker, else a word's beginning), conversations by their turns; not covered:
prompts that the two responses quote differently.
"""

from collections.abc import Sequence
from typing import NamedTuple

from lit_pref.data.rows import Row, RowError
from lit_pref.types import Message, Text

_HH_MARKER = "\n\nAssistant:"


class PromptAndResponses(NamedTuple):
    prompt: Text
    responses: tuple[Text, ...]


def separate_prompt(row: Row, prompt: Text | None, responses: tuple[Text, ...]) -> PromptAndResponses:
    """Prompt and responses, all text or all conversations; what the responses repeat of the prompt is cut off."""
    texts = [response for response in responses if isinstance(response, str)]
    if len(texts) == len(responses) and not isinstance(prompt, tuple):
        return PromptAndResponses(prompt, responses) if prompt is not None else _separate_texts(row, texts)
    turns = [_as_turns(response, "assistant") for response in responses]
    if isinstance(prompt, tuple):
        # Some repeat the prompt's turns before each response.
        known = [side[len(prompt) :] if side[: len(prompt)] == prompt else side for side in turns]
        return _checked(row, prompt, known)
    if prompt and all(side[0]["role"] == "assistant" for side in turns):
        return _checked(row, _as_turns(prompt, "user"), turns)
    # The responses are whole conversations, a text prompt repeats a part of them.
    shared = _shared_length(turns[0], turns[1]) if len(turns) > 1 else len(turns[0]) - 1
    while shared > 0 and not all(len(side) > shared and side[shared]["role"] == "assistant" for side in turns):
        shared -= 1
    return _checked(row, turns[0][:shared], [side[shared:] for side in turns])


def _shared_length(first: Sequence[object], second: Sequence[object]) -> int:
    pairs = enumerate(zip(first, second, strict=False))
    return next((index for index, (a, b) in pairs if a != b), min(len(first), len(second)))


def _as_turns(text: Text, role: str) -> tuple[Message, ...]:
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
