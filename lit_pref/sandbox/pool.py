"""The parent's end of the worker processes: keeps them busy, takes replies in order, replaces what dies.

The parent holds a model and threads and must not be forked, so workers are new, small interpreters.
Knows nothing of verdicts. What a busy machine or a lack of processes kept from its end is tried again, once. A request
that loses two workers gets no reply: None.
"""

import json
import os
import selectors
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from lit_pref.errors import SandboxUnavailableError
from lit_pref.sandbox.bubblewrap import bubblewrapped
from lit_pref.sandbox.wire import FAILED, READY, REPLY_HEADER, STARVED, STARVED_TIMES

SCRIPT = Path(__file__).with_name("worker.py")
START_SECONDS = 60.0
GRACE_SECONDS = 10.0  # beyond the wall limit that the worker itself holds programs to
PROCESSES = Path("/proc")
AHEAD = 2  # requests a worker holds: one running, one waiting, so that it never waits for the parent
MAX_TRIES = 2
START_PAUSES = (0.1, 1.0, 5.0)  # seconds after each try to start the first worker


class Reply(NamedTuple):
    """How a program's process ended; `status` as from waitpid, `payload` lines, `output` what was printed.

    Where a checker asked the program, the lines are the checker's. Of one that FAILED the output tells why.
    """

    why: int
    status: int
    proved: bool
    payload: bytes
    output: bytes = b""


class _Worker:
    """One worker process, what it still has to read, and the requests that it owes replies to, oldest first."""

    def __init__(self, settings: dict[str, object]) -> None:
        options = ["-s", "-S", "-B", "-W", "ignore"]
        if settings["level"] == "bubblewrap":
            command = bubblewrapped(SCRIPT, options)
        else:
            command = [sys.executable, *options, str(SCRIPT)]
        # A fixed hash seed: the order of a set of strings must not change a verdict.
        environment = {"PYTHONHASHSEED": str(settings["seed"]), "PYTHONUTF8": "1"}
        environment["MALLOC_ARENA_MAX"] = "1"  # else one thread's arena takes 64 MB of a program's address space
        environment |= {name: os.environ[name] for name in ("LD_LIBRARY_PATH", "PYTHONHOME") if name in os.environ}
        with ExitStack() as opened:
            processes = os.open(PROCESSES, os.O_PATH | os.O_DIRECTORY) if PROCESSES.is_dir() else None
            if processes is not None:
                opened.callback(os.close, processes)
            self.process = subprocess.Popen(
                [*command, json.dumps(settings | {"processes": processes})],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
                cwd="/",
                start_new_session=True,  # Ctrl-C reaches only the parent, which then stops its workers
                pass_fds=() if processes is None else (processes,),
            )
        assert self.process.stdin is not None and self.process.stdout is not None
        self.requests, self.replies = self.process.stdin.fileno(), self.process.stdout.fileno()
        os.set_blocking(self.requests, False)
        self.outbox, self.inbox = bytearray(), bytearray()
        self.owed: deque[int] = deque()
        self.deadline = 0.0

    def give(self, index: int, request: bytes, patience: float) -> None:
        if not self.owed:
            self.deadline = time.monotonic() + patience
        self.owed.append(index)
        self.outbox += request
        self.flush()

    def flush(self) -> None:
        try:
            while self.outbox:
                del self.outbox[: os.write(self.requests, self.outbox)]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self.outbox.clear()  # it died: reading from it will tell

    def read(self) -> list[Reply] | None:
        """Replies that are whole by now; None when the worker is gone. Blocks until there is something to read."""
        piece = os.read(self.replies, 1 << 16)
        if not piece:
            return None
        self.inbox += piece
        whole = []
        while len(self.inbox) >= REPLY_HEADER.size:
            size, printed, why, status, proved = REPLY_HEADER.unpack_from(self.inbox)
            middle, end = REPLY_HEADER.size + size, REPLY_HEADER.size + size + printed
            if len(self.inbox) < end:
                break
            payload, output = bytes(self.inbox[REPLY_HEADER.size : middle]), bytes(self.inbox[middle:end])
            whole.append(Reply(why, status, bool(proved), payload, output))
            del self.inbox[:end]
        return whole


def _stop(workers: list[_Worker], owner: int) -> None:
    """End the workers: idle ones end by themselves when their input closes, busy ones are killed with their program."""
    if os.getpid() != owner:  # a forked copy of the parent owns none of them
        return
    for worker in workers:
        if worker.owed:
            worker.process.kill()
        assert worker.process.stdin is not None
        worker.process.stdin.close()
    for worker in workers:
        try:
            worker.process.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()
        assert worker.process.stdout is not None
        worker.process.stdout.close()
    workers.clear()


def _await_signs(workers: Sequence[_Worker]) -> None:
    """Until each of these new workers is ready. Raises `SandboxUnavailableError` with the reason of one that is not."""
    with selectors.DefaultSelector() as selector:
        for worker in workers:
            selector.register(worker.replies, selectors.EVENT_READ, worker)
        while selector.get_map():
            events = selector.select(START_SECONDS)
            if not events:
                raise SandboxUnavailableError(f"a worker gave no sign of life within {START_SECONDS:.0f} s")
            for key, _ in events:
                hello = key.data.read()
                if hello is None:
                    raise SandboxUnavailableError(f"a worker ended at its start: {sys.executable} {SCRIPT}")
                if hello and hello[0].why != READY:
                    raise SandboxUnavailableError(hello[0].payload.decode(errors="replace"))
                if hello:
                    selector.unregister(key.fileobj)


class WorkerPool:
    """`count` workers with the same settings; started at once, and again after an interrupt.

    timeout: wall seconds that the settings allow a program.
    scratch: folder in which each worker gets a scratch folder; None where it makes one inside its isolation.
    Raises `SandboxUnavailableError` with the worker's own reason where one cannot start.
    """

    def __init__(self, settings: dict[str, object], count: int, timeout: float, scratch: str | None = None) -> None:
        self._settings, self._count = settings, count
        self._patience = timeout * STARVED_TIMES + GRACE_SECONDS
        self._scratch = scratch
        self._workers: list[_Worker] = []
        self._turn = threading.Lock()
        self._finalizer = weakref.finalize(self, _stop, self._workers, os.getpid())
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers that run now."""
        return [worker.process.pid for worker in self._workers]

    def close(self) -> None:
        self._finalizer()

    def _start(self) -> None:
        """Bring the pool to its full count; new workers start side by side."""
        if not self._finalizer.alive:
            raise RuntimeError("the sandbox is closed")
        new: list[_Worker] = []
        try:
            while len(self._workers) + len(new) < self._count:
                own = {} if self._scratch is None else {"scratch": tempfile.mkdtemp(dir=self._scratch)}
                new.append(_Worker(self._settings | own))
            _await_signs(new)
        except BaseException:
            _stop(new, os.getpid())
            raise
        self._workers += new

    def run(self, requests: Sequence[bytes]) -> list[Reply | None]:
        """One reply a request, in order."""
        with self._turn:
            try:
                return self._run(requests)
            except BaseException:
                # Interrupted: workers owe replies that nobody waits for. The next run starts new ones.
                _stop(self._workers, os.getpid())
                raise

    def _run(self, requests: Sequence[bytes]) -> list[Reply | None]:
        replies: list[Reply | None] = [None] * len(requests)
        waiting = deque(range(len(requests)))
        tries: Counter[int] = Counter()
        open_requests = len(requests)
        while open_requests:
            lacking = self._replace()
            if lacking is not None:  # not one worker: the verdicts that there are must not be lost with it
                for index in waiting:
                    replies[index] = Reply(FAILED, 0, False, b"", lacking.encode())
                break
            for worker in self._workers:
                while waiting and len(worker.owed) < AHEAD:
                    index = waiting.popleft()
                    worker.give(index, requests[index], self._patience)
            for worker, answers in self._wait():
                if answers is None:
                    lost, *untouched = worker.owed or [-1]
                    waiting.extendleft(reversed(untouched))
                    tries[lost] += 1
                    if lost >= 0 and tries[lost] < MAX_TRIES:
                        waiting.appendleft(lost)
                    else:
                        open_requests -= lost >= 0
                    self._workers.remove(worker)
                    _stop([worker], os.getpid())
                    continue
                for answer in answers:
                    index = worker.owed.popleft()
                    worker.deadline = time.monotonic() + self._patience
                    tries[index] += 1
                    if answer.why in (STARVED, FAILED) and tries[index] < MAX_TRIES:
                        waiting.append(index)  # last: what it lacked may be there by then
                    else:
                        replies[index] = answer
                        open_requests -= 1
        return replies

    def _replace(self) -> str | None:
        """Start what workers are missing; why there is not a single one, after some tries."""
        for pause in START_PAUSES:
            try:
                self._start()
            except (OSError, SandboxUnavailableError) as error:  # the machine lacks processes or memory
                reason = str(error)
                if not self._workers:
                    time.sleep(pause)
                    continue
            return None
        return f"no worker could be started: {reason}"

    def _wait(self) -> list[tuple[_Worker, list[Reply] | None]]:
        """Until something happens: workers with their new replies, or with None where one died or hangs."""
        busy = [worker for worker in self._workers if worker.owed]
        left = min(worker.deadline for worker in busy) - time.monotonic()
        with selectors.DefaultSelector() as selector:
            for worker in busy:
                selector.register(worker.replies, selectors.EVENT_READ, worker)
                if worker.outbox:
                    selector.register(worker.requests, selectors.EVENT_WRITE, worker)
            ready = [key for key, _ in selector.select(max(left, 0))]
        for key in ready:
            if key.fileobj == key.data.requests:
                key.data.flush()
        news = [(key.data, key.data.read()) for key in ready if key.fileobj == key.data.replies]
        heard = [worker for worker, _ in news]
        now = time.monotonic()
        return news + [(worker, None) for worker in busy if worker not in heard and worker.deadline < now]
