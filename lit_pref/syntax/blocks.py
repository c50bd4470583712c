"""Where code may lie in a completion: Markdown fences, and pieces of lines that parse amid prose.

Fences as CommonMark has them: three or more backticks or tildes, closed by as many of the same, indented no deeper than
three columns more, so that a fence in a docstring does not end its block; without a closing one, to the text's end.
Not covered: code that shares a line with its fence, indented code blocks of Markdown, interpreter sessions (`>>>`).
"""

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

from lit_pref.syntax.python import parses, statements

_FENCE = re.compile(r"^(?P<indent>[ \t]*)(?P<marks>`{3,}|~{3,})[ \t]*(?P<info>[^`]*)$")
_PYTHON_TAGS = frozenset({"", "py", "py3", "python", "python3", "ipython", "ipython3"})
_CONTINUES = re.compile(r"[ \t]|[)\]}]|(else|elif|except|finally)\b")
CODE_START = re.compile(  # what a line of code begins with and a line of prose hardly ever does
    r"@\w|(async\s+)?def\s+\w|class\s+\w+\s*([:(]|$)|from\s+[\w.]+\s+import\b|import\s+[\w.]+\s*(,|as\b|$)"
    r"|for\s+\w+(\s*,\s*\w+)*\s+in\b|(if|while|with|match)\b(\s*\(|.*:\s*$)|try\s*:|(print|assert)\s"
    r"|\w[\w.]*(\s*,\s*\w[\w.]*)*(\[.*\])?(\s*:\s*\w[\w\[\], .]*)?\s*([-+*/%&|^]|//|\*\*|<<|>>)?=(?!=)"
    r"|\w[\w.]*\(([^)\n]*|.*\)[ \t]*)$",
    re.MULTILINE,
)
_MAY_GO_ON = re.compile(r"[\"'(\[{]|[rRbBfF]{1,2}[\"']")  # a literal over several lines, beside what code begins with
_CLOSERS = (")", "]", "}", '"""', "'''")
_STRING_OR_COMMENT = re.compile(
    r"""("{3}|'{3})(?:\\.|[^\\])*?\1|(?<!")"(?!"")(?:\\.|[^"\\\n])*"|(?<!')'(?!'')(?:\\.|[^'\\\n])*'|#[^\n]*""",
    re.DOTALL,
)
_MAX_CHUNKS = 100  # that one open bracket or string may span


PieceKind = Literal["code", "neutral", "broken", "prose"]


class Fence(NamedTuple):
    """A fenced block. python: its tag is Python's or there is none; closed: it ends before the text does."""

    code: str
    python: bool
    closed: bool


class FencedText(NamedTuple):
    """A text's fenced blocks, its lines outside of them, and those before the first fence."""

    fences: list[Fence]
    outside: str
    before: str


class Piece(NamedTuple):
    """Consecutive lines that belong together: a top-level statement and what is indented below it, or some prose.

    kind: "code" parses and does something; "neutral" parses and does nothing (comments, strings, numbers); "broken"
        looks like code and does not parse; "prose" is the rest.
    """

    text: str
    kind: PieceKind


def fenced_text(text: str) -> FencedText:
    fences, outside, before = list[Fence](), list[str](), None
    lines = iter(text.split("\n"))
    for line in lines:
        opening = _FENCE.match(line)
        if opening is None:
            outside.append(line)
            continue
        before = "\n".join(outside) if before is None else before
        fences.append(_block(opening, lines))
        outside.append("")
    joined = "\n".join(outside)
    return FencedText(fences, joined, joined if before is None else before)


def _block(opening: re.Match[str], lines: Iterator[str]) -> Fence:
    """The block that the opening fence begins; takes its lines."""
    indent, marks = opening["indent"], opening["marks"]
    tag = opening["info"].strip().strip("{}").lstrip(".").partition(" ")[0].partition(",")[0].lower()
    code, closed = list[str](), False
    for line in lines:
        closing = _FENCE.match(line)
        if (
            closing
            and not closing["info"].strip()
            and closing["marks"].startswith(marks)
            and len(closing["indent"].expandtabs(4)) <= len(indent.expandtabs(4)) + 3
        ):
            closed = True
            break
        code.append(line.removeprefix(indent))
    return Fence("\n".join(code), tag in _PYTHON_TAGS, closed)


def pieces(text: str) -> list[Piece]:
    """The text cut into pieces; joined by newlines they are the text again."""
    chunks, found, start = _chunks(text), list[Piece](), 0
    while start < len(chunks):
        end = _end_of_piece(chunks, start)
        whole = "\n".join(chunks[start : end or start + 1])
        if end is not None:
            found.append(Piece(whole, _kind(whole)))
        elif CODE_START.match(whole):
            # What opens here and never closes takes the rest with it: that is how a truncated text ends.
            rest = "\n".join(chunks[start:])
            if _opens(whole) and not any(map(CODE_START.match, chunks[start + 1 :])):
                return [*found, Piece(rest, "broken")]
            found.append(Piece(whole, "broken"))
        else:
            found.append(Piece(whole, "prose"))
        start = end or start + 1
    return found


def _chunks(text: str) -> list[str]:
    """Cut before each line that begins at column 0, except closing brackets, `else` and the like."""
    chunks = list[list[str]]()
    for line in text.split("\n"):
        if chunks and (not line.strip() or _CONTINUES.match(line)):
            # A comment at column 0 amid a body belongs to that body.
            if (
                line.strip()
                and len(chunks) > 1
                and all(part.startswith("#") or not part.strip() for part in chunks[-1])
            ):
                amid = chunks.pop()
                chunks[-1] += amid
            chunks[-1].append(line)
        else:
            chunks.append([line])
    return ["\n".join(chunk) for chunk in chunks]


def _end_of_piece(chunks: list[str], start: int) -> int | None:
    """After the fewest chunks from the start that parse together, None where none do."""
    if parses(chunks[start]):
        return start + 1
    goes_on = CODE_START.match(chunks[start]) or _MAY_GO_ON.match(chunks[start])
    if not goes_on or not _opens(chunks[start]):
        return None
    for end in range(start + 2, min(start + _MAX_CHUNKS, len(chunks)) + 1):
        if end - start <= 3 or any(closer in chunks[end - 1] for closer in _CLOSERS):
            together = "\n".join(chunks[start:end])
            if not _opens(together):
                return end if parses(together) else None
    return None


def _opens(text: str) -> bool:
    """Whether more must come: there is an open bracket or string, or a decorator at the end."""
    text = _STRING_OR_COMMENT.sub("", text).rstrip()
    return (
        '"""' in text
        or "'''" in text
        or text.endswith("\\")
        or text.rpartition("\n")[2].startswith("@")
        or sum(map(text.count, "([{")) > sum(map(text.count, ")]}"))
    )


def _kind(text: str) -> PieceKind:
    body = statements(text)
    if any(statement.kind == "return_statement" for statement in body):
        return "broken"  # it has lost its function
    roles = {statement.role for statement in body}
    if "active" in roles:
        return "code"
    return "prose" if "idle" in roles else "neutral"
