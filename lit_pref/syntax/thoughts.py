"""What a model answers, without what it thinks before: thoughts are no answers, whatever they hold.

A thought lies between two tags, or between one and the text's end, where it never came to its answer; what stands
before a closing tag without an opening one is one too, since chat templates may open it in the prompt. Tags in quotes,
and in a fenced block after the beginning of a line, are text. Not covered: thoughts that nothing marks.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

THOUGHTS: tuple[str, ...] = (
    *(f"<{name}>" for name in ("think", "thinking", "thought", "thoughts", "reasoning", "reason", "reflection")),
    *(f"<{name}>" for name in ("scratchpad", "analysis", "inner_monologue", "antThinking", "seed:think")),
    "<|begin_of_thought|>",
    "<|think|>",
    "<|thinking|>",
    "<|START_THINKING|>",
    "<|channel|>analysis<|message|> <|end|>",
    "[THINK]",
    "◁think▷",
)
"""Tags that models mark thoughts with: an opening one, or an opening and a closing one with a space between."""

_QUOTED = re.compile(r"""(?<![\w"'`])[rRbBfFuU]{0,2}(["'`])(?:\\.|(?!\1)[^\\\n])+\1""")
_FENCE = re.compile(r"[ \t]*(`{3,}|~{3,})")


class _Tags(NamedTuple):
    """any: an opening tag, one group a kind, or a closing one; closing: of each kind; any_closing: of all."""

    any: re.Pattern[str]
    closing: tuple[re.Pattern[str], ...]
    any_closing: re.Pattern[str]


def without_thoughts(text: str, tags: Sequence[str] = THOUGHTS) -> str:
    """The text without its thoughts; empty where it holds nothing else.

    tags: as `THOUGHTS`; without any the text stays as it is. Raises ValueError for one whose closing tag is not known.
    """
    if not tags:
        return text
    known = _tags(tuple(tags))
    kept, start = list[str](), 0
    while tag := _next_tag(known.any, text, start):
        if tag.lastindex is None:  # it closes what was opened before the text began
            kept, start = [], tag.end()
            continue
        kept.append(text[start : tag.start()])
        closings = (known.closing[tag.lastindex - 1], known.any_closing)
        ends = (end for pattern in closings for end in pattern.finditer(text, tag.end()) if not _quoted(text, end))
        end = next(ends, None)
        if end is None:
            return "".join(kept)
        start = end.end()
    return "".join([*kept, text[start:]])


def closing_tag(opening: str) -> str:
    """`</think>` of `<think>`, `<|end_of_thought|>` of `<|begin_of_thought|>`; Raises ValueError for no such tag."""
    for begin, end in (("begin_of", "end_of"), ("START", "END"), ("start_of", "end_of")):
        if begin in opening:
            return opening.replace(begin, end, 1)
    marks = re.match(r"[<\[◁]\|?", opening)
    if marks is None or opening[-1:] not in ">]▷":
        raise ValueError(
            f'thoughts: expected tags such as "<think>", or an opening and a closing one with a space between, as in '
            f'"PLAN: ANSWER:", got {opening!r}'
        )
    return f"{marks[0]}/{opening[marks.end() :]}"


@lru_cache(maxsize=8)
def _tags(tags: tuple[str, ...]) -> _Tags:
    both = [(opening, closing or closing_tag(opening)) for opening, _, closing in (tag.partition(" ") for tag in tags)]
    openings, closings = ([re.escape(tag) for tag in kind] for kind in zip(*both, strict=True))
    every = "|".join(closings)
    return _Tags(
        re.compile("|".join([*(f"({opening})" for opening in openings), every]), re.IGNORECASE),
        tuple(re.compile(closing, re.IGNORECASE) for closing in closings),
        re.compile(every, re.IGNORECASE),
    )


def _next_tag(pattern: re.Pattern[str], text: str, start: int) -> re.Match[str] | None:
    """The first tag from the start on that is no text; one that begins a line always counts."""
    fence, begin = "", start
    for line in text[start:].splitlines(keepends=True):
        mark = _FENCE.match(line)
        if mark and (not fence or (mark[1].startswith(fence) and not line[mark.end() :].strip())):
            fence = "" if fence else mark[1]
        for tag in pattern.finditer(text, begin, begin + len(line)):
            if not text[begin : tag.start()].strip() or not (fence or _quoted(text, tag)):
                return tag
        begin += len(line)
    return None


def _quoted(text: str, tag: re.Match[str]) -> bool:
    begin, end = text.rfind("\n", 0, tag.start()) + 1, text.find("\n", tag.end())
    line = text[begin : end if end >= 0 else None]
    return any(quote.start() < tag.start() - begin < quote.end() for quote in _QUOTED.finditer(line))
