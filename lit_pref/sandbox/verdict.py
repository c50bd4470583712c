"""From what a program's process wrote, and how it ended, to a verdict; the expected values live only here.

Pure functions. Lines that a program forged are compared as text, shown at most, and never interpreted.
"""

import json
import os
import signal

from lit_pref.sandbox.literal import canonical_literal
from lit_pref.sandbox.pool import Reply
from lit_pref.sandbox.wire import OVERFLOW, TIMEOUT
from lit_pref.types import Outcome, Program, Verdict

MAX_DETAIL = 200
MAX_VALUE = 80


def encode_request(program: Program) -> bytes:
    """What a worker is sent: the source and the calls, without what they should give."""
    return json.dumps([program.source, [case.call for case in program.cases]]).encode()


def flaw(program: Program) -> Verdict | None:
    """HARNESS_ERROR for a case that cannot be graded, whatever the program; the fault is its author's."""
    for index, case in enumerate(program.cases):
        try:
            canonical_literal(case.expected)
        except ValueError as error:
            return Verdict(Outcome.HARNESS_ERROR, index, f"expected value is {error}")
    return None


def judge(program: Program, reply: Reply | None) -> Verdict:
    """The verdict on one program; None where its workers died under it."""
    if reply is None:
        return Verdict(Outcome.KILLED, None, "it took its worker down twice")
    began, returned, values, last = _read(reply.payload)
    for index, (case, value) in enumerate(zip(program.cases, values, strict=False)):
        expected = canonical_literal(case.expected)
        if value != expected:
            return Verdict(Outcome.FAILED, index, f"case {index}: expected {_short(expected)}, got {_short(value)}")
    if program.cases and len(values) >= len(program.cases):
        return Verdict(Outcome.PASSED)
    if not program.cases and reply.proved and reply.status == 0:
        return Verdict(Outcome.PASSED)
    reached = len(values) if returned and program.cases else None
    outcome, detail = _stopped(program, reply, reached, began, last)
    return Verdict(outcome, reached, detail if reached is None else f"case {reached}: {detail}")


def _read(payload: bytes) -> tuple[bool, bool, list[str], tuple[str, str]]:
    """(whether the source began, whether it returned, results, the last line's kind and text)."""
    lines = payload.decode("ascii", "replace").split("\n")[:-1]
    values = [line[2:] for line in lines if line.startswith("V ")]
    kind, _, text = (lines[-1] if lines else "").partition(" ")
    printable = "".join(char if char.isprintable() else "?" for char in text[:MAX_DETAIL])
    return lines[:1] == ["B"], "R" in lines, values, (kind, printable)


def _stopped(
    program: Program, reply: Reply, index: int | None, began: bool, last: tuple[str, str]
) -> tuple[Outcome, str]:
    """Why there is no further result: (outcome, detail)."""
    kind, text = last
    number = os.WTERMSIG(reply.status) if os.WIFSIGNALED(reply.status) else 0
    if reply.why == TIMEOUT or number == signal.SIGXCPU:
        return (
            Outcome.TIMEOUT,
            "no end within the wall limit" if reply.why == TIMEOUT else "no end within the CPU limit",
        )
    if reply.why == OVERFLOW or number == signal.SIGXFSZ:
        return Outcome.OUTPUT_LIMIT, "more output than the limit"
    if number:
        return Outcome.KILLED, f"killed by {signal.Signals(number).name}"
    reasons = {"E": (Outcome.ERROR, text), "S": (Outcome.SYNTAX_ERROR, text), "M": (Outcome.MEMORY, "out of memory")}
    reasons["L"] = (Outcome.OUTPUT_LIMIT, "a result longer than the limit")
    if kind in reasons:
        return reasons[kind]
    if kind == "X" and index is not None:
        return Outcome.FAILED, f"expected {_short(canonical_literal(program.cases[index].expected))}, got {text}"
    if kind == "C" and index is not None and not _is_expression(program.cases[index].call):
        return Outcome.HARNESS_ERROR, f"the call is no expression: {program.cases[index].call[:MAX_VALUE]!r}"
    if not began and not reply.payload:
        return Outcome.HARNESS_ERROR, "the program's process could not be set up"
    return Outcome.ERROR, "the program exited before its end"


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
