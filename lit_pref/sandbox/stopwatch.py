"""How long a request has taken: wall time, and of it the time that is its own.

Its own is all but what its processes spent ready to run while the machine ran others. A program that computes has the
same on a busy machine as on a free one; one that sleeps, waits for input or deadlocks is ready for nothing, so all of
its time is its own. A look from time to time tells which of both a program is doing: /proc has the state of each of its
threads, a clock of its own the processor time of each process, threads included.

Where there is no /proc (macOS) or another user's processes are hidden, all time is a program's own.
"""

import contextlib
import os
import time
from collections.abc import Sequence

from lit_pref.sandbox.unforked import Unforked

_PROCESS_CLOCK = 2  # the kernel's number of a clock is that of a process, inverted, and which of its clocks
_READY = b"RD"  # running or ready to run; waiting for a disk, which is no more a program's fault


def waited(wall: float, cpu: float, ready: bool) -> float:
    """Seconds that a request waited for a processor, of so many since the last look."""
    return max(wall - cpu, 0.0) if ready else 0.0


class Stopwatch:
    """Times one request after another.

    processes: a descriptor of /proc as it is outside of all namespaces; None where there is none.
    text: room for one of its files: a thread's state stands beside its name, which is the program's to choose.
    """

    def __init__(self, processes: int | None, text: "Unforked") -> None:
        self._processes, self._text = processes, text
        self._me = ""
        if processes is not None:
            with contextlib.suppress(OSError):
                self._me = os.readlink("self", dir_fd=processes)
        self.start([])

    def start(self, children: Sequence[int]) -> None:
        """For a request whose processes these are; more may be appended."""
        self._children = children
        self._started = self._looked = time.monotonic()
        self._cpu = self._waited = 0.0

    def look(self) -> None:
        """Bring both times up to now."""
        now = time.monotonic()
        if self._me:
            cpu = sum(time.clock_gettime((~child << 3) | _PROCESS_CLOCK) for child in self._children)
            self._waited += waited(now - self._looked, cpu - self._cpu, self._ready())
            self._cpu = cpu
        self._looked = now

    @property
    def wall(self) -> float:
        """Seconds from the start to the last look."""
        return self._looked - self._started

    @property
    def own(self) -> float:
        """Those of them that the request did not wait for a processor."""
        return self.wall - self._waited

    def _ready(self) -> bool:
        """Whether a thread of the request's processes runs or could."""
        size = self._read(f"{self._me}/task/{self._me}/children", self._processes)
        return any(map(self._process_ready, bytes(self._text.view[:size]).decode().split()))

    def _process_ready(self, number: str) -> bool:
        try:
            threads = os.open(f"{number}/task", os.O_RDONLY, dir_fd=self._processes)
        except OSError:  # hidden
            return False
        try:
            return any(self._thread_ready(thread, threads) for thread in os.listdir(threads))
        finally:
            os.close(threads)

    def _thread_ready(self, number: str, threads: int) -> bool:
        size = self._read(f"{number}/stat", threads)
        return size > 0 and self._text.view[self._text.last(b")", size) + 2] in _READY  # after its name

    def _read(self, name: str, folder: int | None) -> int:
        """The length of a file that is now in the buffer; 0 where it is hidden or gone."""
        try:
            file = os.open(name, os.O_RDONLY, dir_fd=folder)
        except OSError:
            return 0
        try:
            return self._text.read(file)
        except ProcessLookupError:
            return 0
        finally:
            os.close(file)
