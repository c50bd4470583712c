"""How a problem is put to a model: as text to be continued, or as a user's turn in our words."""

from collections.abc import Sequence
from typing import Literal, get_args

from lit_pref.types import Text

Style = Literal["completion", "chat"]
"""How a problem is put: the benchmark's own prompt, to be continued as text; or a user's turn with it, in our words."""

CodeStyle = Literal["completion", "chat", "evalplus"]
"""Or as EvalPlus (arXiv 2305.01210) asks chat models, as many figures are published: a user's turn in its words, and
the beginning of the answer, up to the code, for the model to go on from."""

COMPLETE_FUNCTION = (
    "Complete this Python function. Answer with a single code block that holds the whole function, together with "
    "every import and helper that it needs."
)

_FENCE, _FENCE_END = "```python\n", "\n```"
_EVALPLUS_REQUEST = (
    "Please provide a self-contained Python script that solves the following problem in a markdown code block:\n```\n"
)
_EVALPLUS_REQUEST_END = "\n```\n"
_EVALPLUS_ANSWER = (
    "Below is a Python script with a self-contained function that solves the problem and passes corresponding tests:\n"
    + _FENCE
)
EVALPLUS_STOPS = ("\nif __name__", "\ndef main(", "\nprint(")  # of whatever it asks for
EVALPLUS_CHAT_STOPS = (*EVALPLUS_STOPS, "\n```\n")


def check_style(style: str, styles: Sequence[str] = get_args(Style)) -> None:
    """Raise ValueError for a style that is none."""
    if style not in styles:
        known = " or ".join(f'"{name}"' for name in styles)
        raise ValueError(f"style must be {known}, got {style!r}")


def asked(style: CodeStyle, text: str, request: str) -> Text:
    """A prompt: the text itself, or a user's turn that makes the request and shows it."""
    return text if style == "completion" else user_turn(f"{request}\n\n{text}")


def user_turn(request: str, source: str = "") -> Text:
    """A conversation of one turn: a request, and the source that it is about in a fence."""
    shown = f"\n\n{fenced(source)}" if source else ""
    return ({"role": "user", "content": request + shown},)


def shown_source(prompt: Text) -> str:
    """The source that a prompt shows: all of a text, of a conversation what `user_turn` has fenced."""
    if isinstance(prompt, str):
        return prompt
    if begun(prompt):
        return prompt[-2]["content"].removeprefix(_EVALPLUS_REQUEST).removesuffix(_EVALPLUS_REQUEST_END)
    _, _, shown = prompt[-1]["content"].partition(_FENCE)
    return shown.removesuffix(_FENCE_END)


def evalplus_turns(source: str) -> Text:
    """A request for what the source begins or tells, and the beginning of the answer."""
    request = f"{_EVALPLUS_REQUEST}{source.strip()}{_EVALPLUS_REQUEST_END}"
    return {"role": "user", "content": request}, {"role": "assistant", "content": _EVALPLUS_ANSWER}


def begun(prompt: Text) -> str:
    """What of the answer stands in the prompt."""
    ends_so = not isinstance(prompt, str) and prompt[-1] == {"role": "assistant", "content": _EVALPLUS_ANSWER}
    return _EVALPLUS_ANSWER if ends_so else ""


def answer(style: CodeStyle, source: str) -> str:
    """A whole program as the answer of a chat model."""
    return fenced(source).removeprefix(_FENCE) if style == "evalplus" else fenced(source)


def fenced(source: str) -> str:
    """Source as a chat model answers with it."""
    return f"{_FENCE}{source.strip()}{_FENCE_END}"
