"""What happens to token trees that are too long, or that have nothing to learn from; every case is counted.

A prompt is cut on the left (its start tokens, such as BOS, stay), a completion on the right, where it loses its EOS:
it did not end there. A prompt that leaves no room for a completion is always dropped, as cutting would make both
sides equal. Not covered: choosing limits from the data.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from lit_pref.errors import UserError
from lit_pref.types import TokenTree


@dataclass(frozen=True)
class LengthLimits:
    """In tokens; None is unlimited.

    Args:
        max_prompt_length: of the prompt, BOS included.
        max_length: of the prompt with its longest completion, EOS included.
        overlong: leave the record out, cut it, or stop with a UserError.
    """

    max_prompt_length: int | None = None
    max_length: int | None = None
    overlong: Literal["drop", "truncate", "error"] = "drop"

    def __post_init__(self) -> None:
        if self.max_prompt_length is not None and self.max_prompt_length < 1:
            raise ValueError(f"max_prompt_length must be >= 1, got {self.max_prompt_length}")
        if self.max_length is not None and self.max_length < 2:
            raise ValueError(f"max_length must be >= 2 (a prompt and a completion token), got {self.max_length}")
        if self.overlong not in ("drop", "truncate", "error"):
            raise ValueError(f'overlong must be "drop", "truncate" or "error", got {self.overlong!r}')


class Fit(NamedTuple):
    """A tree within the limits, or None where it was dropped, and the names under which that is counted."""

    tree: TokenTree | None
    counted: tuple[str, ...]


def fit(tree: TokenTree, limits: LengthLimits, start_length: int = 0) -> Fit:
    """Apply the limits to one tree.

    start_length: how many of the prompt's first tokens are kept when it is cut.

    Raises UserError for an overlong record where the limits say so.
    """
    prompt, completions = tree
    counted: list[str] = []
    if not prompt:
        return Fit(None, ("dropped_empty_prompt",))
    if limits.max_prompt_length is not None and len(prompt) > limits.max_prompt_length:
        if limits.overlong != "truncate":
            return _drop("dropped_long_prompt", f"{len(prompt)} prompt", "max_prompt_length", limits)
        start = prompt[: min(start_length, limits.max_prompt_length - 1)]
        prompt = start + prompt[len(prompt) - limits.max_prompt_length + len(start) :]
        counted.append("truncated_prompt")
    longest = max(map(len, completions))
    if limits.max_length is not None and len(prompt) + longest > limits.max_length:
        if len(prompt) >= limits.max_length:
            return _drop("dropped_prompt_fills_limit", f"{len(prompt)} prompt", "max_length", limits)
        if limits.overlong != "truncate":
            return _drop("dropped_long_completion", f"{len(prompt) + longest}", "max_length", limits)
        completions = tuple(ids[: limits.max_length - len(prompt)] for ids in completions)
        counted.append("truncated_completion")
    if not all(completions):
        return Fit(None, ("dropped_empty_completion",))
    if len(set(completions)) < len(completions):
        return Fit(None, ("dropped_equal_sides",))
    return Fit(TokenTree(prompt, completions), ("kept", *counted))


def _drop(reason: str, found: str, limit: str, limits: LengthLimits) -> Fit:
    if limits.overlong == "error":
        allowed = getattr(limits, limit)
        raise UserError(f'{found} tokens, {limit} is {allowed}: raise it, or set overlong to "drop" or "truncate"')
    return Fit(None, (reason,))
