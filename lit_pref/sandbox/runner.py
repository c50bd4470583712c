"""Runs requests one at a time, in processes of their own: a fork for the program, another for its checker.

What the processes write is passed on unread. After each request everything that it started is killed, and the scratch
folder is renewed where it was touched.

Standard library only: the sandbox's worker script imports this file by its own path.
"""

# pathlib would make every fork dearer
# ruff: noqa: PTH103, PTH108, PTH116, PTH118, PTH208

import contextlib
import fcntl
import os
import random
import resource
import select
import shutil
import signal
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from lit_pref.sandbox import checker, imports, isolate, literal, program, seccomp, served, wire
else:  # files beside this one: nothing inside the sandbox imports the package
    import checker
    import imports
    import isolate
    import literal
    import program
    import seccomp
    import served
    import wire

LOOK_SECONDS = 0.01  # a program that fills the pipe (64 KB) waits for the next look
DEATH_SECONDS = 0.1  # between a process closing its pipe and its end
_FREE_DESCRIPTOR = 16  # above those that a process is given


class Ended(NamedTuple):
    """How a request ended: a reason of `wire`, a wait status, whether the end is proven, what its processes wrote."""

    why: int
    status: int
    proved: bool
    payload: bytes
    output: bytes


class Runner:
    """Runs one request at a time.

    level: bubblewrap or namespaces, where this is process 1 of its own; seccomp, an ordinary process whose programs
        may do next to nothing; none, the unsafe option.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings, self.level = settings, settings["level"]
        self.alone = self.level in ("bubblewrap", "namespaces")  # no other process is in sight
        self.scratch: str = isolate.SCRATCH if self.alone else settings["scratch"]
        locks = {"none": None, "seccomp": seccomp.StrictLock}
        lock = locks.get(self.level, seccomp.Lock)
        self.lock = None if lock is None else lock()
        self.output, self.input = self._anonymous_file("output"), self._anonymous_file("input")
        self._renew_scratch()
        self._limit()

    def _anonymous_file(self, name: str) -> int:
        """One for all programs in turn."""
        if hasattr(os, "memfd_create"):
            return os.memfd_create(name)
        path = os.path.join(self.scratch, name)
        opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC)
        os.unlink(path)
        return opened

    def _limit(self) -> None:
        """Limits that programs inherit; those of processor time and files are set in each."""
        settings = self.settings
        limits = {resource.RLIMIT_CORE: 0, resource.RLIMIT_NOFILE: settings["open_files"]}
        if sys.platform == "linux":  # elsewhere it cannot be set
            limits[resource.RLIMIT_AS] = settings["memory_mb"] << 20
        if self.alone:  # outside a user namespace it would count all of the user's processes
            limits[resource.RLIMIT_NPROC] = settings["threads"]
        for limit, value in limits.items():
            resource.setrlimit(limit, (value, value))

    def _renew_scratch(self) -> None:
        if self.alone:
            isolate.renew_scratch(self.settings["scratch_mb"])
        else:
            shutil.rmtree(self.scratch, ignore_errors=True)
            os.makedirs(self.scratch, exist_ok=True)
        self.clean = self._scratch_state()

    def _scratch_state(self) -> tuple[int, int, list[str]]:
        state = os.stat(self.scratch)
        return state.st_mode, state.st_ctime_ns, os.listdir(self.scratch)

    def run(self, kind: int, part: bytearray, read_check: Callable[[], bytearray]) -> Ended:
        """Run one request. `read_check` reads its second part, once the process is there that must not know it."""
        os.ftruncate(self.output, 0)
        os.lseek(self.output, 0, os.SEEK_SET)
        receive, send = os.pipe()
        proof = [b"N " + os.urandom(16).hex().encode() + b"\n"]
        if kind == wire.CHECK:
            children = self._fork_checked(part, read_check, send, proof[0])
        else:
            given = {1: self.output, 2: self.output, program.CHANNEL: send}
            if kind == wire.OUTPUT:
                given |= {0: self.input, 2: 2}  # messages are not output
            children = [self._fork(given, part, lambda content: self._run_alone(kind, content, proof))]
        os.close(send)
        why, payload = self._receive(receive)
        os.close(receive)
        status = self._end(children, payload)
        output = os.pread(self.output, self.settings["output_bytes"], 0) if kind == wire.OUTPUT else b""
        if self._scratch_state() != self.clean:
            self._renew_scratch()
        proved = payload.endswith(proof[0])
        return Ended(why, status, proved, payload[: -len(proof[0])] if proved else payload, output)

    def _fork_checked(self, part: bytearray, read_check: Callable[[], bytearray], send: int, proof: bytes) -> list[int]:
        """The program's process, then its checker's, with a pipe each way between them; the program has no other."""
        (questions, ask), (answers, answer) = os.pipe(), os.pipe()
        given = {1: self.output, 2: self.output, served.TO_CHECKER: answer, served.FROM_CHECKER: questions}
        asked = self._fork(given, part, lambda content: served.serve(content[0]))
        given = {checker.CHANNEL: send, checker.TO_PROGRAM: ask, checker.FROM_PROGRAM: answers}
        asking = self._fork(given, read_check(), lambda content: checker.run_check(content, proof))
        for descriptor in (questions, ask, answers, answer):
            os.close(descriptor)
        return [asked, asking]

    def _run_alone(self, kind: int, content: list[str], proof: list[bytes]) -> None:
        if kind == wire.OUTPUT:
            program.run_for_output(content[0])
        else:
            write = literal.loose if kind == wire.EQUALITIES else literal.canonical
            program.run_program(content[0], content[1:], proof, self.settings["result_bytes"], write)

    def _fork(self, given: dict[int, int], part: bytearray, work: Callable[[list[str]], None]) -> int:
        """A new process with these descriptors, given up all that programs must not have, that does the work."""
        child = os.fork()
        if child:
            part[:] = bytes(len(part))  # the next process must not find it in its memory
            return child
        try:
            content = wire.unpack(part)
            spare = {place: fcntl.fcntl(source, fcntl.F_DUPFD, _FREE_DESCRIPTOR) for place, source in given.items()}
            if 0 in given:
                self._fill_input(content.pop())
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.settings["output_bytes"],) * 2)
            for place, source in spare.items():
                os.dup2(source, place)
            os.closerange(max(given) + 1, self.settings["open_files"])
            os.chdir(self.scratch)
            seconds = self.settings["cpu_seconds"]
            resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))  # SIGXCPU, then SIGKILL
            random.seed(0)  # equal programs, equal verdicts
            if self.level == "seccomp":
                imports.load_named("\n".join(content))
            if not self.alone:
                os.setpgid(0, 0)
                if sys.platform == "linux":
                    isolate.die_with_parent()
            if self.lock is not None:
                self.lock.apply()
            work(content)
        finally:
            os._exit(0)

    def _fill_input(self, text: str) -> None:
        os.ftruncate(self.input, 0)
        data = memoryview(text.encode("utf-8", "surrogateescape"))
        os.lseek(self.input, 0, os.SEEK_SET)
        while data:
            data = data[os.write(self.input, data) :]
        os.lseek(self.input, 0, os.SEEK_SET)

    def _receive(self, receive: int) -> tuple[int, bytes]:
        """Collect what is written until the writer ends, looking only now and then: each look is a context switch."""
        deadline = time.monotonic() + self.settings["timeout"]
        poller = select.poll()
        poller.register(receive, 0)  # wakes when the writer ends, not when it writes
        payload = bytearray()
        os.set_blocking(receive, False)
        while True:
            left = deadline - time.monotonic()
            ended = bool(poller.poll(max(min(left, LOOK_SECONDS), 0) * 1000))
            with contextlib.suppress(BlockingIOError):
                while piece := os.read(receive, 1 << 16):
                    payload += piece
                    if len(payload) > self.settings["payload_bytes"]:
                        return wire.OVERFLOW, b""
            if ended or left <= 0:
                return wire.ENDED if ended else wire.TIMEOUT, bytes(payload)

    def _end(self, children: list[int], payload: bytes) -> int:
        """Kill what is left of a request, threads and all; the wait status that tells why it ended.

        A program that outlives its checker is killed here, which says nothing of it: 0.
        """
        seconds = DEATH_SECONDS if payload.startswith(b"D ") else 0.0  # the checker saw it die: its status is to come
        of_program = _status_within(children[0], seconds) if len(children) > 1 else None
        left = [child for child in children if of_program is None or child != children[0]]
        targets = [(os.kill, -1)] if self.alone else [(kill, child) for child in left for kill in (os.killpg, os.kill)]
        for kill, target in targets:
            # -1: everything in this namespace but its process 1. None is left, or (macOS) only one that ended.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                kill(target, signal.SIGKILL)
        statuses = [os.waitpid(child, 0)[1] for child in left]
        while self.alone:
            try:
                os.wait()
            except ChildProcessError:
                break
        if len(children) == 1 or os.WIFSIGNALED(statuses[-1]):
            return statuses[-1]
        return of_program or 0


def _status_within(child: int, seconds: float) -> int | None:
    """The wait status of a process that ends by itself within the time."""
    deadline = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return status
        if time.monotonic() >= deadline:
            return None
        time.sleep(0.001)
