"""How a problem is put to a model: as text to be continued, or as a user's turn in our words."""

from typing import Literal

from lit_pref.types import Text

Style = Literal["completion", "chat"]
"""How a problem is put: the benchmark's own prompt, to be continued as text; or a user's turn with it, in our words."""

COMPLETE_FUNCTION = (
    "Complete this Python function. Answer with a single code block that holds the whole function, together with "
    "every import and helper that it needs."
)

_FENCE, _FENCE_END = "```python\n", "\n```"


def check_style(style: Style) -> None:
    """Raise ValueError for a style that is none."""
    if style not in ("completion", "chat"):
        raise ValueError(f'style must be "completion" or "chat", got {style!r}')


def asked(style: Style, text: str, request: str) -> Text:
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
    _, _, shown = prompt[-1]["content"].partition(_FENCE)
    return shown.removesuffix(_FENCE_END)


def fenced(source: str) -> str:
    """Source as a chat model answers with it."""
    return f"{_FENCE}{source.strip()}{_FENCE_END}"
