"""The judge alone, on replies that a hostile program could have forged."""

import json
import signal

import pytest

from lit_pref.sandbox.pool import Reply
from lit_pref.sandbox.verdict import encode_request, flaw, judge
from lit_pref.sandbox.wire import ENDED, OVERFLOW, TIMEOUT
from lit_pref.types import Case, Outcome, Program

TWO = Program("", (Case("f(1)", "1"), Case("f(2)", "4")))
NONE = Program("")


def reply(payload: bytes, why: int = ENDED, status: int = 0, proved: bool = False) -> Reply:
    return Reply(why, status, proved, payload)


def test_a_request_holds_no_expected_value():
    secret = "'the answer'"
    request = encode_request(Program("x = 1", (Case("x", secret),)))
    assert json.loads(request) == ["x = 1", ["x"]]


@pytest.mark.parametrize(
    ("program", "given", "outcome", "case"),
    [
        (TWO, reply(b"B\nR\nV 1\nV 4\n"), Outcome.PASSED, None),
        (TWO, reply(b"B\nR\nV 1\nV 5\n"), Outcome.FAILED, 1),
        # the first wrong case decides, whatever came after it
        (TWO, reply(b"B\nR\nV True\n", TIMEOUT, signal.SIGKILL), Outcome.FAILED, 0),
        (TWO, reply(b"B\nR\nV 1\n", TIMEOUT, signal.SIGKILL), Outcome.TIMEOUT, 1),
        (TWO, reply(b"B\n", TIMEOUT, signal.SIGKILL), Outcome.TIMEOUT, None),
        (TWO, reply(b"B\nR\nX an object of type Liar\n"), Outcome.FAILED, 0),
        (TWO, reply(b"B\nR\nV 1\nL\n"), Outcome.OUTPUT_LIMIT, 1),
        (TWO, reply(b"B\nR\nM\n"), Outcome.MEMORY, 0),
        (TWO, reply(b"B\nR\n", status=signal.SIGSEGV), Outcome.KILLED, 0),
        (TWO, reply(b"B\n", status=signal.SIGXCPU), Outcome.TIMEOUT, None),
        (TWO, reply(b"B\n", status=signal.SIGXFSZ), Outcome.OUTPUT_LIMIT, None),
        (TWO, reply(b"", why=OVERFLOW, status=signal.SIGKILL), Outcome.OUTPUT_LIMIT, None),
        (TWO, reply(b""), Outcome.HARNESS_ERROR, None),
        (TWO, reply(b"B\nR\nC\n"), Outcome.ERROR, 0),  # forged: f(1) is an expression
        (TWO, reply(b"B\n", proved=True), Outcome.ERROR, None),  # a proof is worth nothing where there are cases
        (TWO, reply(b"\x1b[2J\xff\nV 1\nV"), Outcome.ERROR, None),
        (NONE, reply(b"B\n", proved=True), Outcome.PASSED, None),
        (NONE, reply(b"B\n"), Outcome.ERROR, None),
        (NONE, reply(b"B\nV 1\nN 00\n"), Outcome.ERROR, None),
        (NONE, reply(b"B\n", status=signal.SIGKILL, proved=True), Outcome.KILLED, None),
        (NONE, None, Outcome.KILLED, None),
    ],
)
def test_reply_to_verdict(program, given, outcome, case):
    verdict = judge(program, given)
    assert (verdict.outcome, verdict.case) == (outcome, case)


def test_details_name_the_case_and_stay_one_printable_line():
    assert judge(TWO, reply(b"B\nR\nV 1\nV 5\n")).detail == "case 1: expected 4, got 5"
    hostile = judge(TWO, reply(b"B\nR\nE \x1b[2J" + b"x" * 10_000 + b"\n")).detail
    assert hostile.isprintable() and len(hostile) < 300
    assert judge(TWO, reply(b"B\nR\nV \x1b[2J" + b"x" * 500 + b"\n")).detail.isprintable()


def test_faulty_cases_are_the_harness_error_of_their_author():
    assert flaw(TWO) is None
    bad = flaw(Program("", (Case("1", "1"), Case("f()", "f("))))
    assert bad is not None and (bad.outcome, bad.case) == (Outcome.HARNESS_ERROR, 1)
    call = judge(Program("", (Case("x = 1", "1"),)), reply(b"B\nR\nC\n"))
    assert call.outcome is Outcome.HARNESS_ERROR
