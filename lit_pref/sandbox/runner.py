"""Runs requests one at a time, in processes of their own: a fork for the program, another for its checker.

This process never holds what it passes on to them, nor what they write: that goes through files of their own and
through memory that is not forked, so no program inherits what belongs to another. After each request everything that
it started is killed, and the scratch folder is renewed where it was touched.
Not covered: programs that tell each other on purpose, by what the kernel counts for all (its load, inode numbers).
"""

import contextlib
import errno
import os
import resource
import select
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from lit_pref.sandbox import checker, child, isolate, literal, program, seccomp, served, wire
from lit_pref.sandbox.scratch import Scratch
from lit_pref.sandbox.stopwatch import Stopwatch
from lit_pref.sandbox.unforked import Unforked

LOOK_SECONDS = 0.01  # a program that fills the pipe (64 KB) waits for the next look
DEATH_SECONDS = 0.1  # of its own, between a process closing its pipe and its end
CHECKER_MEMORY = 4  # times a program's: test code is trusted, and holds its inputs and outputs as well
_PIECE = 1 << 16
_NOTHING = memoryview(b"")


class Ended(NamedTuple):
    """How a request ended: a reason of `wire`, a wait status, whether the end is proven, what its processes wrote."""

    why: int
    status: int
    proved: bool
    payload: memoryview
    output: memoryview


class Runner:
    """Runs one request at a time.

    level: bubblewrap or namespaces, where this is process 1 of its own; seccomp, an ordinary process whose programs
        may do next to nothing; none, the unsafe option.
    source: the descriptor that requests are read from.
    processes: /proc, as `Stopwatch` takes it.
    """

    def __init__(self, settings: dict[str, Any], source: int, processes: int | None) -> None:
        self.settings, self.source = settings, source
        self.alone = settings["level"] in ("bubblewrap", "namespaces")  # no other process is in sight
        self.scratch = Scratch(settings.get("scratch"), settings["scratch_mb"])
        locks = {"none": None, "seccomp": seccomp.StrictLock}
        lock = locks.get(settings["level"], seccomp.Lock)
        self.set_up = child.SetUp(settings, self.scratch.folder, None if lock is None else lock(), CHECKER_MEMORY)
        self.stopwatch = Stopwatch(processes, Unforked(4096))
        self.payload, self.printed = Unforked(settings["payload_bytes"] + _PIECE), Unforked(settings["output_bytes"])
        self.numbers = isolate.process_numbers(processes) if self.alone else None
        self.unread = 0  # bytes of the request
        self.files: list[int] = []  # of the request
        self.children: list[int] = []
        self._limit()

    def _limit(self) -> None:
        """Limits that programs inherit; the others are set in each."""
        limits = {resource.RLIMIT_CORE: 0, resource.RLIMIT_NOFILE: self.settings["open_files"]}
        if self.alone:  # outside a user namespace it would count all of the user's processes
            limits[resource.RLIMIT_NPROC] = self.settings["threads"]
        for limit, value in limits.items():
            resource.setrlimit(limit, (value, value))

    def run(self, kind: int, size: int, check_size: int) -> Ended:
        """Run one request, whose two parts of so many bytes are yet to be read.

        What fails in this process, for lack of memory or of processes, ends this request and no other.
        """
        self.unread = size + check_size
        try:
            return self._run(kind, size, check_size)
        except (OSError, MemoryError) as error:
            reason = getattr(error, "strerror", None) or "out of memory"
            return self._failed(reason)
        finally:
            if self.children:
                self._end(0.0)
            for file in self.files:
                os.close(file)
            self.files = []
            while self.unread:
                self._read_request(self.unread)
            self.scratch.clean()

    @staticmethod
    def _failed(reason: str) -> Ended:
        return Ended(wire.FAILED, 0, False, _NOTHING, memoryview(reason.encode()))

    def _run(self, kind: int, size: int, check_size: int) -> Ended:
        isolate.renumber(self.numbers)
        output = child.new_file(self.scratch.folder)
        receive, send = os.pipe()
        self.files += output, receive, send
        proof = [b"N " + os.urandom(16).hex().encode() + b"\n"]
        parts = [self._part(size)]
        places: Sequence[int | None]
        if kind == wire.CHECK:
            (questions, ask), (answers, answer) = self._pipe(), self._pipe()
            places = None, output, output, answer, questions  # served.TO_CHECKER, FROM_CHECKER
            self._fork(parts[0], size, places, lambda content: served.serve(content[0]))
            parts.append(self._part(check_size))  # now that there is the process that must not know it
            places = None, None, None, send, ask, answers  # checker.CHANNEL, TO_PROGRAM, FROM_PROGRAM
            self._fork(parts[1], check_size, places, lambda content: checker.run_check(content, proof[0]), True)
        else:
            reads = kind == wire.OUTPUT
            places = None, output, None if reads else output, send  # what it says on the side is not output
            self._fork(parts[0], size, places, lambda content: self._run_alone(kind, content, proof), False, reads)
        for file in self.files:
            if file not in (output, receive, *parts):  # the other ends of which must see that its processes end
                os.close(file)
        self.files = [output, receive, *parts]
        why, count = self._receive(receive)
        payload = self.payload.view[:count]
        dying = bytes(payload[:2]) == b"D "  # the checker saw it die: its status is to come
        silent = parts[:1] if dying else parts if not count else []
        failed = not all(map(child.begun, silent))
        status = self._end(DEATH_SECONDS if dying else 0.0)
        # What it loads before it begins it named itself, and so it is to blame for the time of that.
        if failed and why == wire.ENDED and os.WTERMSIG(status) != signal.SIGXCPU:
            return self._failed("a process could not be set up")
        printed = os.preadv(output, [self.printed.view], 0) if kind == wire.OUTPUT else 0
        proved = payload[-len(proof[0]) :] == proof[0]
        return Ended(why, status, proved, payload[: -len(proof[0])] if proved else payload, self.printed.view[:printed])

    def _run_alone(self, kind: int, content: list[str], proof: list[bytes]) -> None:
        if kind == wire.OUTPUT:
            program.run_for_output(content[0])
        else:
            write = literal.loose if kind == wire.EQUALITIES else literal.canonical
            program.run_program(content[0], content[1:], proof, self.settings["result_bytes"], write)

    def _pipe(self) -> tuple[int, int]:
        ends = os.pipe()
        self.files += ends
        return ends

    def _read_request(self, count: int) -> int:
        """The size of the request's next piece, of at most so many bytes, which is in the buffer."""
        size = self.payload.read(self.source, 0, count)
        if size == 0:
            os._exit(0)  # the parent closed the pipe, or is gone
        self.unread -= size
        return size

    def _part(self, count: int) -> int:
        """A file with so many of the request's next bytes."""
        file = child.new_file(self.scratch.folder)
        self.files.append(file)
        while count:
            size = self._read_request(count)
            count -= size
            if os.write(file, self.payload.view[:size]) < size:
                raise OSError(errno.ENOSPC, "no memory for a request")
        return file

    def _fork(
        self,
        part: int,
        size: int,
        places: Sequence[int | None],
        work: Callable[[list[str]], None],
        of_checker: bool = False,
        reads: bool = False,
    ) -> None:
        """A new process for this part of the request that does the work; see `child.SetUp`."""
        number = os.fork()
        if number:
            self.children.append(number)
            return
        try:
            work(self.set_up.become(part, size, places, of_checker, reads))
        finally:
            os._exit(0)

    def _receive(self, receive: int) -> tuple[int, int]:
        """Collect what is written until the writer ends: why it ends, and how much there is.

        It looks only now and then: each look is a context switch.
        """
        limit = self.settings["timeout"]
        poller = select.poll()
        poller.register(receive, 0)  # wakes when the writer ends, not when it writes
        os.set_blocking(receive, False)
        self.stopwatch.start(self.children)
        count = 0
        while True:
            ended = bool(poller.poll(min(limit, LOOK_SECONDS) * 1000))
            with contextlib.suppress(BlockingIOError):
                while size := self.payload.read(receive, count):
                    count += size
                    if count > self.settings["payload_bytes"]:
                        return wire.OVERFLOW, 0
            if ended:
                return wire.ENDED, count
            self.stopwatch.look()
            late = wire.out_of_time(self.stopwatch.own, self.stopwatch.wall, limit)
            if late is not None:
                return late, count

    def _end(self, patience: float) -> int:
        """Kill what is left of the request, threads and all; the wait status that tells why it ended.

        A program that outlives its checker is killed here, which says nothing of it: 0. patience: seconds of its own
        that a program has to end by itself.
        """
        of_program = self._status_within(patience) if len(self.children) > 1 else None
        left = self.children if of_program is None else self.children[1:]
        targets = [(os.kill, -1)] if self.alone else [(kill, each) for each in left for kill in (os.killpg, os.kill)]
        for kill, target in targets if self.children else ():
            # -1: everything in this namespace but its process 1. None is left, or (macOS) only one that ended.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                kill(target, signal.SIGKILL)
        statuses = [os.waitpid(each, 0)[1] for each in left]
        single = len(self.children) == 1
        while self.alone and self.children:
            try:
                os.wait()
            except ChildProcessError:
                break
        self.children = []
        if not statuses:
            return 0
        return statuses[-1] if single or os.WIFSIGNALED(statuses[-1]) else of_program or 0

    def _status_within(self, seconds: float) -> int | None:
        """The wait status of the program's process, where it ends by itself within seconds of its own."""
        self.stopwatch.start(self.children)
        while True:
            found, status = os.waitpid(self.children[0], os.WNOHANG)
            if found:
                return status
            self.stopwatch.look()
            if self.stopwatch.own >= seconds:
                return None
            time.sleep(0.001)
