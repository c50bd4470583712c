"""Ctrl-C, SIGTERM and SIGHUP: a run stops where nothing is torn, after it was saved, and says how to go on.

In the middle of an optimizer step, and where several processes have to agree, a signal waits for the next place at
which the run can stop (`LastCheckpoint`); else it stops at once. A second Ctrl-C does not wait. Not covered: SIGKILL,
which no program sees; SLURM's requeue signal, which is Lightning's; processes that `ddp_spawn` starts.
"""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

_STOPPING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if name in dir(signal))


class Stopped(SystemExit):
    """A run that a signal has ended; the exit status is a shell's: 128 and the signal's number, 143 for SIGTERM."""

    def __init__(self, signum: int) -> None:
        super().__init__(128 + signum)
        self.name = signal.Signals(signum).name
        self._said = False

    def say(self, way_on: str) -> None:
        """Print once what has ended the run and how to go on."""
        if not self._said:
            print(f"\nlit-pref: stopped by {self.name}; {way_on}", file=sys.stderr, flush=True)
        self._said = True


class StopSignals:
    """What has been asked of this process.

    waits: whether a signal has to wait for `stop_here`.
    """

    def __init__(self) -> None:
        self.waits = False
        self.received = 0
        self._before: dict[int, Any] = {}

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Within it signals are met here; in a thread they are left as they are, since only the main one gets them."""
        self.waits, self.received = False, 0
        if threading.current_thread() is threading.main_thread():
            # What nohup or a shell's background ignores stays ignored.
            heard = [signum for signum in _STOPPING if signal.getsignal(signum) is not signal.SIG_IGN]
            self._before = {signum: signal.signal(signum, self._meet) for signum in heard}
        try:
            yield
        finally:
            self.waits = False
            for signum, handler in self._before.items():
                signal.signal(signum, handler)
            self._before = {}

    def take_back(self) -> None:
        """Meet SIGTERM here again: Lightning puts its own handler before this one, which talks to other processes."""
        if signal.SIGTERM in self._before:
            signal.signal(signal.SIGTERM, self._meet)

    def stop_here(self) -> None:
        """Stop if that has been asked for."""
        if self.received:
            self._stop(self.received)

    def _meet(self, signum: int, frame: FrameType | None) -> None:
        again, self.received = bool(self.received), self.received or signum
        if signum == signal.SIGINT and again:
            self._stop(signum)
        if not again and not self.waits:
            self._stop(signum)

    def _stop(self, signum: int) -> NoReturn:
        self.received = signum
        if signum == signal.SIGINT:
            raise KeyboardInterrupt
        raise Stopped(signum)


STOP = StopSignals()
