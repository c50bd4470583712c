"""The program out of a completion; and of a program what its entry point needs.

A completion is fenced blocks, code as it is, code amid prose, or the body that goes on from an open function of the
prompt. What defines the entry point goes before what does not, fenced before unfenced, the later before the earlier.
The model's code is not repaired: a syntax error stays one, unless the text was cut short after the entry point, whose
incomplete tail is then dropped.
Not covered: entry points that are methods; see also the limits of `blocks.py` and `python.py`.
"""

import re
import textwrap
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from lit_pref.syntax.blocks import CODE_START, Fence, FencedText, Piece, fenced_text, pieces
from lit_pref.syntax.continuation import OpenFunction, broken_continuation, continued, open_function
from lit_pref.syntax.names import DEFINITIONS, IMPORTS
from lit_pref.syntax.needed import needed
from lit_pref.syntax.python import Statement, missing, parses, statements

Found = Literal["fenced", "bare", "prose"]


class NoCodeError(ValueError):
    """There is no program in a completion."""


class Extraction(NamedTuple):
    """The program of a completion; it need not parse.

    found: in a fence, bare (all that there was), or amid prose.
    tail_cut: an incomplete statement at the end was dropped.
    """

    code: str
    found: Found
    tail_cut: bool = False


class _Candidate(NamedTuple):
    """Code that may be the program. body: its statements; None where it does not parse."""

    code: str
    found: Found
    tail_cut: bool
    body: list[Statement] | None


class _Wanted(NamedTuple):
    """What the program is to be: its entry point, and the prompt with its open function."""

    name: str
    prompt: str
    opened: OpenFunction | None


def extract_code(text: str, entry_point: str = "", prompt: str = "") -> Extraction:
    """The program in a completion, whether or not it parses. Raises NoCodeError where there is none.

    entry_point: the function or other name that the program must define, where that is known.
    prompt: what the completion follows, where that is code. An open function is continued; a completion that is
        whole without it gets the imports and helpers of the prompt that it uses and does not define.
    """
    text, prompt = _normalized(text), _normalized(prompt)
    fenced, opened = fenced_text(text), open_function(prompt)
    wanted = _Wanted(entry_point or (opened.name if opened else ""), prompt, opened)
    found = _extracted(fenced, wanted)
    if found is None:
        raise NoCodeError("the completion holds no code" if text.strip() else "the completion is empty")
    return found._replace(code=_lines([found.code.rstrip()]))


def sanitize(code: str, entry_point: str, others: Iterable[str] = ()) -> str:
    """Imports, and the statements that the entry point needs when it runs (`needed.py`); prints, tests and the rest go.

    After EvalPlus (arXiv 2305.01210, `evalplus/sanitize.py` of 0.3.1). Unlike there, all definitions of a name are
    kept, and statements that fill it (`table[0] = 1`, `fill(table)`) or set a limit of Python's own, functions without
    a return, and the order. Code that does not parse or does not define the entry point stays as it is.

    others: names that are needed beside the entry point, as by its tests.
    """
    body = statements(code) if parses(code) else []
    body = [statement for statement in body if not (statement.kind == "if_statement" and "__name__" in statement.uses)]
    if not _binds(body, entry_point):
        return code
    reached = set(needed(body, frozenset({entry_point, *others}), entry_point))
    return _lines([s.text for i, s in enumerate(body) if i in reached or s.kind in IMPORTS])


def _extracted(fenced: FencedText, wanted: _Wanted) -> Extraction | None:
    indented = fenced.before.lstrip("\n")[:1] in (" ", "\t")
    # Its own name within its body is the whole function again.
    again = wanted.opened and re.search(rf"^[ \t]+(async\s+)?def\s+{wanted.opened.name}\b", fenced.before, re.MULTILINE)
    if indented and not again and (made := _continuation(fenced.before, "bare", wanted)):
        return made
    usable = [fence for fence in fenced.fences if fence.python or _defines(fence.code, wanted.name)]
    sources = [
        [candidate for fence in usable if (candidate := _of_fence(fence, wanted.name))],
        _of_pieces(pieces(_dedented(fenced.outside)), wanted.name),
    ]
    for candidates in sources:
        chosen = _defining(candidates, wanted.name) if wanted.name else _longest(candidates)
        if chosen is not None:
            return _joined(chosen, candidates, wanted)
    bodies: list[tuple[str, Found]] = [*((fence.code, "fenced") for fence in usable), (fenced.before, "bare")]
    for body, place in bodies:
        if made := _continuation(body, place, wanted):
            return made
    if wanted.opened and indented and (broken := broken_continuation(wanted.prompt, wanted.opened, fenced.before)):
        return Extraction(broken, "bare")
    for candidates in sources:
        if candidates:
            return _joined(_longest(candidates) or max(candidates, key=_size), candidates, wanted)
    return None


# --- candidates -------------------------------------------------------------------------------------------------------


def _of_fence(fence: Fence, name: str) -> _Candidate | None:
    """None where the block holds no code, as one of a program's output."""
    code = _dedented(fence.code)
    body = statements(code) if parses(code) else None
    whole = _Candidate(code, "fenced", False, body)
    if body is not None:
        return whole if any(statement.role == "active" for statement in body) else None
    if not any(map(CODE_START.match, code.split("\n"))):
        return None
    return whole if fence.closed else _without_tail(pieces(code), name, "fenced") or whole


def _of_pieces(found: Sequence[Piece], name: str) -> list[_Candidate]:
    """All of the text if it is code, else each run of pieces that is; with none for the entry point, the raw region."""
    kinds = [piece.kind for piece in found]
    if set(kinds) <= {"code", "neutral"}:
        return [_candidate(found, "bare")] if "code" in kinds else []
    if set(kinds[:-1]) <= {"code", "neutral"} and kinds[-1] == "broken":
        return [_without_tail(found, name, "bare") or _Candidate(_text(found), "bare", False, None)]
    runs, run = list[_Candidate](), list[Piece]()
    for index, piece in enumerate([*found, Piece("", "prose")]):
        if piece.kind in ("code", "neutral"):
            run.append(piece)
            continue
        if any(part.kind == "code" for part in run):
            runs.append(_candidate(run, "prose", tail_cut=index == len(found) - 1 and piece.kind == "broken"))
        run = []
    defines = any(piece.kind == "broken" and _defines(piece.text, name) for piece in found)
    if "broken" in kinds and (not runs or (defines and not any(_binds(part.body, name) for part in runs))):
        code = [i for i, kind in enumerate(kinds) if kind in ("code", "broken")]
        runs.append(_Candidate(_text(found[code[0] : code[-1] + 1]), "prose", False, None))
    return runs


def _without_tail(found: Sequence[Piece], name: str, place: Found) -> _Candidate | None:
    """What stands before the last piece, if only the last is incomplete and is not the entry point."""
    *whole, tail = found
    sound = all(piece.kind in ("code", "neutral") for piece in whole)
    if not sound or _defines(tail.text, name) or all(piece.kind != "code" for piece in whole):
        return None
    return _candidate(whole, place, tail_cut=True)


def _candidate(found: Sequence[Piece], place: Found, tail_cut: bool = False) -> _Candidate:
    return _Candidate(_text(found), place, tail_cut, statements(_text(found)))


# --- the choice among them --------------------------------------------------------------------------------------------


def _defining(candidates: Sequence[_Candidate], name: str) -> _Candidate | None:
    """The last that defines the name; one that does not parse only where none does."""
    sound = [candidate for candidate in candidates if _binds(candidate.body, name)]
    broken = [candidate for candidate in candidates if candidate.body is None and _defines(candidate.code, name)]
    return next(reversed(sound or broken), None)


def _longest(candidates: Sequence[_Candidate]) -> _Candidate | None:
    return max((candidate for candidate in candidates if candidate.body is not None), key=_size, default=None)


def _size(candidate: _Candidate) -> int:
    return sum(bool(line.strip()) for line in candidate.code.split("\n"))


def _joined(chosen: _Candidate, candidates: Sequence[_Candidate], wanted: _Wanted) -> Extraction:
    """The chosen code after what it uses of the prompt and of the other candidates.

    Without an entry point, code that only defines is followed by the later candidates that use it: a program in steps.
    """
    if chosen.body is None:
        return Extraction(chosen.code, chosen.found, chosen.tail_cut)
    others = [c for c in candidates if c.body is not None and c is not chosen]
    parts, body = [chosen.code], list(chosen.body)
    if not wanted.name:
        for later in candidates[candidates.index(chosen) + 1 :]:
            if later.body is not None and all(map(_only_defines, body)) and missing(later.body) & _bound(body):
                parts, body = [*parts, later.code], [*body, *later.body]
                others.remove(later)
    pool = [s for s in _preamble(wanted) + [s for c in others for s in c.body or ()] if not s.binds & _bound(body)]
    helpers = [pool[i].text for i in needed(pool, missing(body), wanted.name)]
    future = any(statement.kind == "future_import_statement" for statement in body)  # nothing may stand before it
    return Extraction(_lines([*([] if future else helpers), *parts]), chosen.found, chosen.tail_cut)


def _continuation(body: str, place: Found, wanted: _Wanted) -> Extraction | None:
    made = continued(wanted.prompt, wanted.opened, body) if wanted.opened else None
    return Extraction(made.code, place, made.tail_cut) if made else None


def _preamble(wanted: _Wanted) -> list[Statement]:
    """The prompt's statements without its open function, which is a stub."""
    body = statements(wanted.prompt) if parses(wanted.prompt) else []
    return [s for s in body if wanted.opened is None or wanted.opened.name not in s.binds]


def _only_defines(statement: Statement) -> bool:
    return statement.kind in DEFINITIONS | IMPORTS or statement.role == "plain" or bool(statement.binds)


def _bound(body: Sequence[Statement]) -> set[str]:
    return {name for statement in body for name in statement.binds}


def _binds(body: Sequence[Statement] | None, name: str) -> bool:
    return name in _bound(body or ())


def _defines(code: str, name: str) -> bool:
    """Whether the text has a definition of the name, of code that need not parse."""
    pattern = rf"^((async\s+)?def|class)\s+{re.escape(name)}\b|^{re.escape(name)}\s*=(?!=)"
    return bool(name) and re.search(pattern, code, re.MULTILINE) is not None


def _dedented(text: str) -> str:
    """Without the margin of all lines, or of the first if only that has one."""
    text = text.strip("\n")
    return textwrap.dedent(text).lstrip(" \t") if text[:1] in (" ", "\t") else text


def _text(found: Sequence[Piece]) -> str:
    return "\n".join(piece.text for piece in found)


def _lines(parts: Sequence[str]) -> str:
    return "\n".join(part.strip("\n") for part in parts) + "\n"


def _normalized(text: str) -> str:
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
