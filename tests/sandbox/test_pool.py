"""The parent's end of the workers: what is tried again, and what one request's failure costs the others."""

from pathlib import Path

import pytest

from lit_pref.errors import SandboxUnavailableError
from lit_pref.sandbox import IsolatedSandbox, pool, wire
from lit_pref.sandbox.pool import Reply, WorkerPool
from lit_pref.types import Case, Check, IOCase, Outcome, Program

# A worker that tells how it ended as the request's first text says: "why when", where `when` is how often.
WORKER = f"""
import os, sys
sys.path.insert(0, {str(Path(wire.__file__).parent)!r})
import wire
tries = {{}}
def say(why, output=b""):
    os.write(1, wire.REPLY_HEADER.pack(0, len(output), why, 0, 0) + output)
say(wire.READY)
while header := os.read(0, wire.REQUEST_HEADER.size):
    _, size, _ = wire.REQUEST_HEADER.unpack(header)
    text, times = wire.unpack(os.read(0, size))[0].split()
    tries[text] = tries.get(text, 0) + 1
    if text.startswith("dies"):
        os._exit(1)
    say(getattr(wire, text.strip("0123456789")) if tries[text] <= int(times) else wire.ENDED, str(tries[text]).encode())
"""


def request(text: str) -> bytes:
    part = wire.pack([text])
    return wire.REQUEST_HEADER.pack(wire.CASES, len(part), 0) + part


@pytest.fixture
def pooled(tmp_path, monkeypatch):
    """A pool of one worker, which is ours to script."""
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    monkeypatch.setattr(pool, "SCRIPT", script)
    monkeypatch.setattr(pool, "START_PAUSES", (0.0, 0.0))
    made = WorkerPool({"level": "none", "seed": 0}, 1, 1.0)
    yield made
    made.close()


def told(*replies: Reply | None) -> list[tuple[int, str] | None]:
    return [None if reply is None else (reply.why, reply.output.decode()) for reply in replies]


def test_what_is_not_the_programs_fault_is_tried_once_more(pooled):
    texts = ["STARVED1 1", "FAILED1 1", "STARVED2 9", "FAILED2 9", "TIMEOUT1 9", "OVERFLOW1 9"]
    expected = [(wire.ENDED, "2")] * 2 + [(wire.STARVED, "2"), (wire.FAILED, "2")]
    expected += [(wire.TIMEOUT, "1"), (wire.OVERFLOW, "1")]
    assert told(*pooled.run([request(text) for text in texts])) == expected


def test_a_request_that_takes_its_workers_down_costs_no_other(pooled):
    texts = ["TIMEOUT1 1", "dies 1", "TIMEOUT2 1", "TIMEOUT3 1"]
    ended = (wire.TIMEOUT, "1")
    assert told(*pooled.run([request(text) for text in texts])) == [ended, None, ended, ended]


def test_replies_outlive_the_last_worker_where_none_can_be_started(pooled, monkeypatch):
    def refuse(*_):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    started = pool._Worker
    (first,) = pooled.run([request("TIMEOUT1 1")])
    monkeypatch.setattr(pool, "_Worker", refuse)
    replies = pooled.run([request("TIMEOUT2 1"), request("dies 1"), request("TIMEOUT3 1")])
    assert told(first, replies[0]) == [(wire.TIMEOUT, "1")] * 2
    for reply in replies[1:]:
        assert reply is not None and reply.why == wire.FAILED and b"temporarily unavailable" in reply.output
    monkeypatch.setattr(pool, "_Worker", started)
    assert told(*pooled.run([request("TIMEOUT4 1")])) == [(wire.TIMEOUT, "1")]


def test_a_pool_that_never_had_a_worker_says_why(monkeypatch, tmp_path):
    script = tmp_path / "worker.py"
    script.write_text("")
    monkeypatch.setattr(pool, "SCRIPT", script)
    with pytest.raises(SandboxUnavailableError, match="ended at its start"):
        WorkerPool({"level": "none", "seed": 0}, 2, 1.0)


def test_a_process_that_cannot_be_set_up_is_ours_and_costs_no_other_verdict():
    huge = "x" * (40 << 20)  # it and its copies are more than a process may hold
    double = "def f(x):\n    return 2 * x\n"
    programs = [
        Program(double, (Case("f(1)", "2"),)),
        Program(f"x = '{huge}'", (Case("x", "1"),)),
        Program(f"x = '{huge}'", check=Check("one = 1\nassert x == one")),
        Program("print(1)", (IOCase(huge, "1"),)),
        Program(double, (Case("f(2)", "4"),)),
    ]
    with IsolatedSandbox("namespaces", workers=1, timeout=20.0, cpu_seconds=20, memory_mb=64) as small:
        pids = small.worker_pids
        verdicts = small.run(programs)
        assert small.worker_pids == pids
    expected = [Outcome.PASSED, *[Outcome.HARNESS_ERROR] * 3, Outcome.PASSED]
    assert [verdict.outcome for verdict in verdicts] == expected, verdicts
    assert all("could not be set up" in verdict.detail for verdict in verdicts[1:4])
