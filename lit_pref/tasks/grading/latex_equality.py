"""Whether two answers in LaTeX say the same, by math-verify (sympy), in a process of its own.

math-verify's own time limit is an alarm signal: it works only in the main thread, while samples are graded in another
one, and it cannot interrupt a power that is computed in C. So it is switched off, and a process that does not answer in
time is killed and started anew, from whatever thread. Not covered: several such processes side by side.
"""

import atexit
import json
import os
import select
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from threading import Lock

from lit_pref.tasks.grading.answers import written_alike
from lit_pref.types import Outcome

_WORKER = Path(__file__).with_name("latex_worker.py")
_START_SECONDS = 120.0  # it imports sympy: half a second, on a cold disk far more


def compare_latex(pairs: Sequence[tuple[str, str]]) -> list[Outcome]:
    """Whether each answer (the second) says what is expected (the first); equal pairs are compared once.

    PASSED or FAILED; TIMEOUT or KILLED where it was not found out.
    """
    found: dict[tuple[str, str], Outcome] = {}
    for pair in pairs:
        if pair not in found:
            found[pair] = Outcome.PASSED if written_alike(*pair) else _shared_judge().compare(*pair)
    return [found[pair] for pair in pairs]


class LatexJudge:
    """Owns the process, which is started at the first comparison; may be used from several threads.

    seconds: that a comparison has.
    """

    def __init__(self, seconds: float = 5.0) -> None:
        if seconds <= 0:
            raise ValueError(f"seconds must be > 0, got {seconds}")
        self.seconds = seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = Lock()

    def compare(self, expected: str, answer: str) -> Outcome:
        """Raises RuntimeError where the process cannot be started."""
        with self._lock:
            process = self._process = self._process or _started()
            assert process.stdin is not None
            try:
                process.stdin.write(json.dumps([expected, answer]).encode() + b"\n")
                reply = _reply(process, self.seconds)
            except BrokenPipeError:
                reply = b""
            if reply in (b"0\n", b"1\n"):
                return Outcome.PASSED if reply == b"1\n" else Outcome.FAILED
            self._end()
            return Outcome.TIMEOUT if reply is None else Outcome.KILLED

    def close(self) -> None:
        """End the process; a later comparison starts another one."""
        with self._lock:
            self._end()

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            with process:  # waits, and closes the pipes
                pass


@cache
def _shared_judge() -> LatexJudge:
    judge = LatexJudge()
    atexit.register(judge.close)
    return judge


def _started() -> "subprocess.Popen[bytes]":
    # -P: the folder of this file holds modules by names of the standard library's.
    command = [sys.executable, "-P", str(_WORKER)]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, bufsize=0, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL)
    if _reply(process, _START_SECONDS) != b"+\n":
        process.kill()
        with process:
            pass
        raise RuntimeError(f"math-verify does not start; what it says: {' '.join(command)}")
    return process


def _reply(process: "subprocess.Popen[bytes]", seconds: float) -> bytes | None:
    """The next two bytes; None where they do not come in time, fewer where the process has ended."""
    assert process.stdout is not None
    poll = select.poll()
    poll.register(process.stdout, select.POLLIN)
    return os.read(process.stdout.fileno(), 2) if poll.poll(1000 * seconds) else None
