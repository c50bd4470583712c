"""The judge alone, on replies that a hostile program could have forged."""

import signal

import pytest

from lit_pref.sandbox.pool import Reply
from lit_pref.sandbox.verdict import encode_requests, flaw, judge
from lit_pref.sandbox.wire import (
    CASES,
    CHECK,
    ENDED,
    EQUALITIES,
    FAILED,
    OVERFLOW,
    REQUEST_HEADER,
    STARVED,
    TIMEOUT,
    unpack,
)
from lit_pref.types import Case, Check, IOCase, Outcome, Program, Verdict

TWO = Program("", (Case("f(1)", "1"), Case("f(2)", "4")))
NONE = Program("")
ASKED = Program("", check=Check("assert f(1)", entry_points=("f",)))
EQUAL = Program("", check=Check("assert True\nassert f(1) == 1.0", entry_points=("f",)))
PRINTS = Program("", (IOCase("", "a\nb\n"),))


def reply(payload: bytes, why: int = ENDED, status: int = 0, proved: bool = False) -> Reply:
    return Reply(why, status, proved, payload)


def test_a_request_holds_no_expected_value():
    secret = "'the answer'"
    (request,) = encode_requests(Program("x = 1", (Case("x", secret),)))
    kind, size, check_size = REQUEST_HEADER.unpack_from(request)
    assert (kind, size, check_size) == (CASES, len(request) - REQUEST_HEADER.size, 0)
    assert unpack(request[REQUEST_HEADER.size :]) == ["x = 1", "x"]


def test_a_request_of_equalities_holds_no_expected_value():
    (request,) = encode_requests(Program("x", check=Check("assert f(1) == 'the answer'", entry_points=("f",))))
    kind, _, check_size = REQUEST_HEADER.unpack_from(request)
    assert (kind, check_size) == (EQUALITIES, 0)
    assert unpack(request[REQUEST_HEADER.size :]) == ["x", "f(1)"]


def test_each_input_is_a_request_that_holds_no_output():
    requests = encode_requests(Program("x", (IOCase("in 1", "out"), IOCase("in 2", "out"))))
    assert [unpack(each[REQUEST_HEADER.size :]) for each in requests] == [["x", "in 1"], ["x", "in 2"]]


def test_the_program_s_part_of_a_request_holds_no_test():
    code = "assert f(1) < 'the answer'"
    (request,) = encode_requests(Program("x", check=Check(code, "import math", ("f",))))
    kind, size, check_size = REQUEST_HEADER.unpack_from(request)
    part = request[REQUEST_HEADER.size :]
    assert kind == CHECK and len(part) == size + check_size
    assert unpack(part[:size]) == ["x"]
    assert unpack(part[size:]) == [code, "import math", "[]", "", "f"]


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
        (ASKED, reply(b"", proved=True), Outcome.PASSED, None),
        (ASKED, reply(b'P ["place"]\n', proved=True), Outcome.PASSED, None),
        (ASKED, reply(b"A 0 f(1)\n", proved=True), Outcome.FAILED, 0),
        (ASKED, reply(b""), Outcome.HARNESS_ERROR, None),
        (ASKED, reply(b"", status=signal.SIGKILL), Outcome.KILLED, None),  # the checker's process
        (ASKED, reply(b"", TIMEOUT), Outcome.TIMEOUT, None),
        (ASKED, reply(b"D 1 \n", status=signal.SIGXCPU), Outcome.TIMEOUT, 1),
        (ASKED, reply(b"D -1 \n", status=0), Outcome.ERROR, None),
        (EQUAL, reply(b"B\nR\nV 1\n"), Outcome.PASSED, None),
        (EQUAL, reply(b"B\nR\nV 1.0\n"), Outcome.FAILED, 1),  # forged: our own text of it is 1
        (EQUAL, reply(b"B\nR\n"), Outcome.ERROR, 1),
        (PRINTS, Reply(ENDED, 0, False, b"B\n", b"a \r\nb\n\n"), Outcome.PASSED, None),
        (PRINTS, Reply(ENDED, 0, False, b"B\n", b"a\n\nb"), Outcome.FAILED, 0),
        (PRINTS, Reply(ENDED, 0, False, b"B\nE x\n", b"a\nb"), Outcome.ERROR, 0),
        (PRINTS, Reply(ENDED, signal.SIGSEGV, False, b"B\n", b"a\nb"), Outcome.KILLED, 0),
        (PRINTS, Reply(TIMEOUT, 0, False, b"B\n", b"a\nb"), Outcome.TIMEOUT, 0),
        (PRINTS, Reply(ENDED, 0, False, b"", b"a\nb"), Outcome.HARNESS_ERROR, None),
        (PRINTS, None, Outcome.KILLED, None),
        # what a busy machine or a lack of processes ended is nobody's failure, but for what was wrong before
        (TWO, reply(b"B\nR\nV 1\n", STARVED, signal.SIGKILL), Outcome.HARNESS_ERROR, 1),
        (TWO, reply(b"B\nR\nV 2\n", STARVED, signal.SIGKILL), Outcome.FAILED, 0),
        (NONE, reply(b"", STARVED, signal.SIGKILL), Outcome.HARNESS_ERROR, None),
        (ASKED, reply(b"", STARVED, signal.SIGKILL), Outcome.HARNESS_ERROR, None),
        (EQUAL, Reply(FAILED, 0, False, b"", b"out of memory"), Outcome.HARNESS_ERROR, None),
        (ASKED, Reply(FAILED, 0, False, b"", b"out of memory"), Outcome.HARNESS_ERROR, None),
        (PRINTS, Reply(FAILED, 0, False, b"", b"out of memory"), Outcome.HARNESS_ERROR, None),
    ],
)
def test_reply_to_verdict(program, given, outcome, case):
    verdict = judge(program, [given])
    assert (verdict.outcome, verdict.case) == (outcome, case)


def test_details_name_the_case_and_stay_one_printable_line():
    assert judge(TWO, [reply(b"B\nR\nV 1\nV 5\n")]).detail == "case 1: expected 4, got 5"
    hostile = judge(TWO, [reply(b"B\nR\nE \x1b[2J" + b"x" * 10_000 + b"\n")]).detail
    assert hostile.isprintable() and len(hostile) < 300
    assert judge(TWO, [reply(b"B\nR\nV \x1b[2J" + b"x" * 500 + b"\n")]).detail.isprintable()


def test_faulty_cases_are_the_harness_error_of_their_author():
    assert flaw(TWO) is None
    bad = flaw(Program("", (Case("1", "1"), Case("f()", "f("))))
    assert bad is not None and (bad.outcome, bad.case) == (Outcome.HARNESS_ERROR, 1)
    call = judge(Program("", (Case("x = 1", "1"),)), [reply(b"B\nR\nC\n")])
    assert call.outcome is Outcome.HARNESS_ERROR


def test_what_a_reference_needed_comes_with_its_verdict():
    verdict = judge(ASKED, [reply(b'P ["1:0 eq"]\n', proved=True)])
    assert verdict == Verdict(Outcome.PASSED, licence=("1:0 eq",))
