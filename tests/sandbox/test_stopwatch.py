"""A request's own time: what it waits for a processor on a busy machine does not count, what it sleeps does."""

import contextlib
import shutil
import subprocess
import sys

import pytest

from lit_pref.machine.processors import usable_processors
from lit_pref.sandbox import IsolatedSandbox, stopwatch
from lit_pref.sandbox.wire import STARVED, STARVED_TIMES, TIMEOUT, out_of_time
from lit_pref.types import Case, Check, IOCase, Outcome, Program

LEVELS = ["namespaces", "bubblewrap", "seccomp", "none"]


class Faked(stopwatch.Stopwatch):
    """On a machine of our making: at each look its clocks, and whether a thread was ready."""

    def __init__(self, monkeypatch, looks):
        self._looks = iter([(0.0, 0.0, False), *looks])
        monkeypatch.setattr(stopwatch.time, "monotonic", self._tick)
        monkeypatch.setattr(stopwatch.time, "clock_gettime", lambda clock: self._at[1])
        super().__init__(None, None)
        self._me = "1"
        self._children = [2]

    def _tick(self):
        self._at = next(self._looks)
        return self._at[0]

    def _ready(self):
        return self._at[2]


# Looks: (wall seconds, processor seconds, whether a thread was ready), each since the start.
COMPUTES = [(0.5, 0.5, True), (1.0, 1.0, True)]
STARVES = [(1.0, 0.25, True), (2.0, 0.5, True)]  # a quarter of a processor
SLEEPS = [(1.0, 0.01, False), (2.0, 0.01, False)]
STARVES_THEN_SLEEPS = [(1.0, 0.25, True), (1.5, 0.25, False)]
TWO_THREADS = [(1.0, 2.0, True)]  # on two processors


@pytest.mark.parametrize(
    ("looks", "own"),
    [(COMPUTES, 1.0), (STARVES, 0.5), (SLEEPS, 2.0), (STARVES_THEN_SLEEPS, 0.25 + 0.5), (TWO_THREADS, 1.0)],
)
def test_own_time_is_wall_time_without_waiting_for_a_processor(monkeypatch, looks, own):
    watch = Faked(monkeypatch, looks)
    for _ in looks:
        watch.look()
    assert (watch.wall, watch.own) == (looks[-1][0], pytest.approx(own))


@pytest.mark.parametrize(
    ("own", "wall", "reason"),
    [
        (1.9, 1.9, None),
        (2.0, 2.0, TIMEOUT),
        (1.9, 50.0, None),  # a busy machine: nobody's fault, and there is time
        (2.0, 50.0, TIMEOUT),
        (1.9, 2.0 * STARVED_TIMES, STARVED),
        (2.0, 2.0 * STARVED_TIMES, TIMEOUT),
    ],
)
def test_only_its_own_time_is_a_programs_fault(own, wall, reason):
    assert out_of_time(own, wall, 2.0) == reason


@contextlib.contextmanager
def busy_machine(processes):
    busy = [subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


BURN = """
import time
def burn(seconds):
    while time.process_time() < seconds:
        pass
"""


def burning(seconds):
    """Right programs that take so many processor seconds each, of every kind."""
    late = f"{BURN}\ndef f(x):\n    burn({seconds})\n    return x\n"
    threaded = f"{BURN}\nimport threading\nthread = threading.Thread(target=burn, args=({seconds},))\n"
    yield Program(late, (Case("f(1)", "1"),))
    yield Program(late, check=Check("one = 1\nassert f(one) == 1", "", ("f",)))
    yield Program(f"{BURN}\nburn({seconds})\nprint(input())", (IOCase("1\n", "1"),))
    yield Program(f"{threaded}thread.start()\nthread.join()")


WAITING = {
    "sleeps": "import time\ntime.sleep(99)",
    "sleeps by and by": "import time\nwhile True: time.sleep(0.003)",
    "locks itself out": "import threading\nlock = threading.Lock()\nlock.acquire()\nlock.acquire()",
    "reads what nobody writes": "import os\nos.read(os.pipe()[0], 1)",
    "selects nothing": "import select\nselect.select([], [], [])",
    "joins a thread that sleeps": "import threading, time\n"
    "thread = threading.Thread(target=time.sleep, args=(99,))\nthread.start()\nthread.join()",
    "waits in a call": "import time\ndef f(x): time.sleep(99)",
}


def test_a_busy_machine_makes_no_right_program_wrong_and_no_sleeper_ours():
    """A program has a fourth of a processor: 0.3 processor seconds take 1.2, twice the limit."""
    right = list(burning(0.3))
    wrong = [Program(WAITING[name]) for name in ("sleeps", "locks itself out")]
    with (
        IsolatedSandbox("namespaces", workers=2, timeout=0.6, cpu_seconds=2) as short,
        busy_machine(3 * usable_processors()),
    ):
        verdicts = short.run([*right, *wrong])
    assert [verdict.outcome for verdict in verdicts] == [Outcome.PASSED] * len(right) + [Outcome.TIMEOUT] * len(wrong)


@pytest.mark.slow
@pytest.mark.parametrize("level", LEVELS)
def test_limits_as_they_come_do_for_forty_programs_of_a_busy_machine(level):
    right = [program for _ in range(10) for program in burning(0.8)]
    wrong = [Program(source, (Case("f(1)", "1"),)) for source in WAITING.values()]
    if level == "bubblewrap" and shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed (apt-get install bubblewrap)")
    with IsolatedSandbox(level) as default, busy_machine(3 * usable_processors()):
        verdicts = default.run([*right, *wrong])
    assert [verdict.outcome for verdict in verdicts] == [Outcome.PASSED] * len(right) + [Outcome.TIMEOUT] * len(wrong)
