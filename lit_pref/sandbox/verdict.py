"""From what a program's process wrote, and how it ended, to a verdict; the expected values live only here.

Pure functions. Lines that a program forged are compared as text, shown at most, and never interpreted.
"""

import json
import os
import re
import signal
import sys
from collections.abc import Sequence
from typing import NamedTuple

from lit_pref.sandbox.equalities import equalities
from lit_pref.sandbox.literal import canonical_literal
from lit_pref.sandbox.pool import Reply
from lit_pref.sandbox.wire import (
    CASES,
    CHECK,
    EQUALITIES,
    FAILED,
    OUTPUT,
    OVERFLOW,
    REQUEST_HEADER,
    STARVED,
    TIMEOUT,
    VALUE_LIBRARIES,
    pack,
)
from lit_pref.types import Case, Check, IOCase, Outcome, Program, Verdict

MAX_DETAIL = 200
MAX_VALUE = 80


def encode_requests(program: Program) -> list[bytes]:
    """What a worker is sent, without what should come of it: one request, or one for each input that is piped in."""
    source = program.source
    if program.check is not None:
        check, simple = program.check, equalities(program.check)
        if simple is not None:
            return [_request(EQUALITIES, [source, *(each.call for each in simple)])]
        licence = json.dumps(check.licence)
        libraries = "\n".join(f"import {name}" for name in _libraries(check, source))
        return [_request(CHECK, [source], [check.code, check.context, licence, libraries, *check.entry_points])]
    inputs = [case.stdin for case in program.cases if isinstance(case, IOCase)]
    if inputs:
        return [_request(OUTPUT, [source, text]) for text in inputs]
    return [_request(CASES, [source, *(case.call for case in _calls(program))])]


def _libraries(check: Check, source: str) -> set[str]:
    """Modules of the standard library that the checker may have to have of its own: where it may open no file."""
    names = {*VALUE_LIBRARIES, *re.findall(r"\w+", check.code if check.licence is not None else source)}
    found = {name for name in names & sys.stdlib_module_names if name in source}
    return found | {
        each.split(" ")[2].partition(":")[0] for each in check.licence or () if each.startswith("name ")
    } - {"-"}


def _request(kind: int, texts: Sequence[str], check: Sequence[str] = ()) -> bytes:
    parts = pack(texts), pack(check) if check else b""
    return REQUEST_HEADER.pack(kind, *map(len, parts)) + b"".join(parts)


def _calls(program: Program) -> list[Case]:
    return [case for case in program.cases if isinstance(case, Case)]


def flaw(program: Program) -> Verdict | None:
    """HARNESS_ERROR for tests that cannot be graded, whatever the program; the fault is their author's."""
    if program.check is not None and program.cases:
        return Verdict(Outcome.HARNESS_ERROR, None, "a program has cases or a check, not both")
    if len({type(case) for case in program.cases}) > 1:
        return Verdict(Outcome.HARNESS_ERROR, None, "a program's cases are of one kind")
    for index, case in enumerate(_calls(program)):
        try:
            canonical_literal(case.expected)
        except ValueError as error:
            return Verdict(Outcome.HARNESS_ERROR, index, f"expected value is {error}")
    return None


class _Asked(NamedTuple):
    """A call that a program's process evaluates, the text that its result must have, and what it is called."""

    call: str
    expected: str
    number: int
    name: str


def _asked(program: Program) -> list[_Asked]:
    """What is asked of a program in its own process; nothing of one that a checker asks, or whose output counts."""
    if program.check is not None:
        return [_Asked(*each, f"test {each.number}") for each in equalities(program.check) or ()]
    cases = enumerate(_calls(program))
    return [_Asked(case.call, canonical_literal(case.expected), i, f"case {i}") for i, case in cases]


def judge(program: Program, replies: Sequence[Reply | None]) -> Verdict:
    """The verdict on one program from the replies to its requests; None where its workers died under it."""
    asked = _asked(program)
    if program.check is not None and not asked:
        return _of_check(replies[0])
    inputs = [case for case in program.cases if isinstance(case, IOCase)]
    if not inputs:
        return _of_calls(asked, replies[0])
    for index, (case, reply) in enumerate(zip(inputs, replies, strict=True)):
        verdict = _of_output(case, reply, index)
        if not verdict.passed:
            return verdict
    return Verdict(Outcome.PASSED)


_DEAD = Verdict(Outcome.KILLED, None, "it took its worker down twice")


def _of_output(case: IOCase, reply: Reply | None, index: int) -> Verdict:
    if reply is None:
        return _DEAD
    began, _, _, last = _read(reply.payload)
    if reply.why or reply.status or last[0] in ("E", "S", "M") or not began:
        outcome, detail = _stopped(reply, None, began, last)
        reached = index if began else None
        return Verdict(outcome, reached, detail if reached is None else f"case {index}: {detail}")
    expected, printed = _lines(case.expected), _lines(reply.output.decode("utf-8", "replace"))
    if printed == expected:
        return Verdict(Outcome.PASSED)
    wanted, got = (_short(repr("\n".join(lines))) for lines in (expected, printed))
    return Verdict(Outcome.FAILED, index, f"case {index}: expected {wanted}, got {got}")


def _lines(text: str) -> list[str]:
    """Without space at line ends and empty lines at the end."""
    lines = [line.rstrip() for line in text.replace("\r\n", "\n").split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    return lines


_OF_KIND = {"A": Outcome.FAILED, "X": Outcome.FAILED, "E": Outcome.ERROR, "S": Outcome.SYNTAX_ERROR}
_OF_KIND |= {"M": Outcome.MEMORY, "L": Outcome.OUTPUT_LIMIT, "H": Outcome.HARNESS_ERROR}
_SAID = {"M": "out of memory", "L": "a result longer than the limit"}


def _of_check(reply: Reply | None) -> Verdict:
    """From the one line that a checker writes; it is ours, but for what it tells of the program's words."""
    if reply is None:
        return _DEAD
    if reply.proved and not reply.payload:
        return Verdict(Outcome.PASSED)
    if reply.proved and reply.payload.startswith(b"P "):
        return Verdict(Outcome.PASSED, licence=tuple(json.loads(reply.payload[2:])))
    kind, _, text = reply.payload.decode("ascii", "replace").removesuffix("\n").partition(" ")
    index = None
    if kind in ("A", "X", "E", "M", "L", "D"):
        number, _, text = text.partition(" ")
        index = int(number) if number.isdigit() else None
    outcome, detail = _OF_KIND.get(kind), _printable(text)
    if outcome is None:
        outcome, detail = _ended(reply) or (Outcome.ERROR, "the program exited before its end")
        if not reply.payload and not reply.status and not reply.why:
            outcome, detail = Outcome.HARNESS_ERROR, "the checker's process could not be set up"
    detail = detail or _SAID.get(kind, detail)
    return Verdict(outcome, index, detail if index is None else f"test {index}: {detail}")


def _of_calls(asked: Sequence[_Asked], reply: Reply | None) -> Verdict:
    if reply is None:
        return _DEAD
    began, returned, values, last = _read(reply.payload)
    for each, value in zip(asked, values, strict=False):
        if value != each.expected:
            detail = f"{each.name}: expected {_short(each.expected)}, got {_short(value)}"
            return Verdict(Outcome.FAILED, each.number, detail)
    if len(values) >= len(asked) and (asked or (reply.proved and reply.status == 0)):
        return Verdict(Outcome.PASSED)
    reached = asked[len(values)] if returned and asked else None
    outcome, detail = _stopped(reply, reached, began, last)
    return Verdict(outcome, *(None, detail) if reached is None else (reached.number, f"{reached.name}: {detail}"))


def given(reply: Reply | None) -> tuple[str, ...]:
    """The results of a program's calls that are literals, up to the first that is none."""
    values = [] if reply is None else _read(reply.payload)[2]
    sound = []
    for value in values:
        try:
            sound.append(canonical_literal(value))
        except ValueError:
            break
    return tuple(sound)


def _read(payload: bytes) -> tuple[bool, bool, list[str], tuple[str, str]]:
    """(whether the source began, whether it returned, results, the last line's kind and text)."""
    lines = payload.decode("ascii", "replace").split("\n")[:-1]
    values = [line[2:] for line in lines if line.startswith("V ")]
    kind, _, text = (lines[-1] if lines else "").partition(" ")
    return lines[:1] == ["B"], "R" in lines, values, (kind, _printable(text))


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text[:MAX_DETAIL])


def _stopped(reply: Reply, asked: _Asked | None, began: bool, last: tuple[str, str]) -> tuple[Outcome, str]:
    """Why there is no further result: (outcome, detail)."""
    kind, text = last
    ended = _ended(reply)
    if ended is not None:
        return ended
    if kind in ("E", "S", "M", "L"):
        return _OF_KIND[kind], _SAID.get(kind, text)
    if kind == "X" and asked is not None:
        return Outcome.FAILED, f"expected {_short(asked.expected)}, got {text}"
    if kind == "C" and asked is not None and not _is_expression(asked.call):
        return Outcome.HARNESS_ERROR, f"the call is no expression: {asked.call[:MAX_VALUE]!r}"
    if not began and not reply.payload:
        return Outcome.HARNESS_ERROR, "the program's process could not be set up"
    return Outcome.ERROR, "the program exited before its end"


def _ended(reply: Reply) -> tuple[Outcome, str] | None:
    """A limit or a signal that ended the processes, or what is no program's fault."""
    number = os.WTERMSIG(reply.status) if os.WIFSIGNALED(reply.status) else 0
    if reply.why == STARVED:
        return Outcome.HARNESS_ERROR, "the machine is too busy: no end although it was tried twice"
    if reply.why == FAILED:
        return Outcome.HARNESS_ERROR, f"it could not be run: {_printable(reply.output.decode(errors='replace'))}"
    if reply.why == TIMEOUT:
        return Outcome.TIMEOUT, "no end within the time limit"
    if number == signal.SIGXCPU:
        return Outcome.TIMEOUT, "no end within the CPU limit"
    if reply.why == OVERFLOW or number == signal.SIGXFSZ:
        return Outcome.OUTPUT_LIMIT, "more output than the limit"
    if number:
        return Outcome.KILLED, f"killed by {signal.Signals(number).name}"
    return None


def _is_expression(call: str) -> bool:
    try:
        compile(call, "<case>", "eval", dont_inherit=True)
    except (SyntaxError, ValueError):
        return False
    return True


def _short(text: str) -> str:
    """A canonical value for people: it is ASCII where we wrote it, and made printable where a program did."""
    shown = "".join(char if char.isprintable() else "?" for char in text[: MAX_VALUE + 1])
    return shown if len(text) <= MAX_VALUE else shown[: MAX_VALUE - 3] + "..."
