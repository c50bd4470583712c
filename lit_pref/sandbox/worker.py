"""The inside of the sandbox, a script: it isolates itself, then forks one process for each program it is sent.

Requests and replies run over its standard input and output, length first; `pool.py` is the other end. What a
program's process writes (see `program.py`) is passed on unread. After each program everything that it started is
killed, and the scratch folder is renewed where it was touched.

Standard library only, and never imported by the package: a small interpreter forks in about 1 ms.
"""

# pathlib would make every fork dearer
# ruff: noqa: PTH103, PTH116, PTH118, PTH208

import contextlib
import gc
import json
import os
import random
import resource
import select
import shutil
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lit_pref.sandbox import isolate, program, wire
else:  # files beside this one: nothing inside the sandbox imports the package
    import isolate
    import program
    import wire

    sys.path.pop(0)

# What programs import most. Each shared library more makes every fork slower: hashlib and decimal cost all programs
# more than they save the few that use them.
PRELOADED = (
    "bisect collections copy dataclasses functools heapq itertools math operator random re string textwrap types typing"
)

LOOK_SECONDS = 0.01  # a program that fills the pipe (64 KB) waits for the next look


class Worker:
    """Forks a process for each request and tells how it ended.

    isolated: this is process 1 of its own namespaces; else an ordinary process (the unsafe option).
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings, self.isolated = settings, bool(settings["isolated"])
        self.scratch: str = isolate.SCRATCH if self.isolated else settings["scratch"]
        self.lock = isolate.Lock() if self.isolated else None
        path = os.path.join(self.scratch, "output")
        self.output = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC)  # of all programs, in turn
        self._renew_scratch()
        self._limit()

    def _limit(self) -> None:
        """Limits that programs inherit; processor time alone is set in each."""
        settings = self.settings
        limits = {resource.RLIMIT_CORE: 0, resource.RLIMIT_FSIZE: settings["output_bytes"]}
        limits[resource.RLIMIT_NOFILE] = settings["open_files"]
        if sys.platform == "linux":  # elsewhere it cannot be set
            limits[resource.RLIMIT_AS] = settings["memory_mb"] << 20
        if self.isolated:  # outside a user namespace it would count all of the user's processes
            limits[resource.RLIMIT_NPROC] = settings["threads"]
        for limit, value in limits.items():
            resource.setrlimit(limit, (value, value))

    def _renew_scratch(self) -> None:
        if self.isolated:
            isolate.renew_scratch(self.settings["scratch_mb"])
        else:
            shutil.rmtree(self.scratch, ignore_errors=True)
            os.makedirs(self.scratch, exist_ok=True)
        self.clean = self._scratch_state()

    def _scratch_state(self) -> tuple[int, int, list[str]]:
        state = os.stat(self.scratch)
        return state.st_mode, state.st_ctime_ns, os.listdir(self.scratch)

    def run(self, source: str, calls: list[str]) -> tuple[int, int, bool, bytes]:
        """(why it ended, wait status, whether it proved its end, what it wrote)."""
        os.lseek(self.output, 0, os.SEEK_SET)
        os.ftruncate(self.output, 0)
        proof = [b"N " + os.urandom(16).hex().encode() + b"\n"]
        receive, send = os.pipe()
        child = os.fork()
        if child == 0:
            self._enter(source, calls, send, proof)
        os.close(send)
        why, payload = self._receive(receive)
        os.close(receive)
        status = self._end(child)
        if self._scratch_state() != self.clean:
            self._renew_scratch()
        proved = payload.endswith(proof[0])
        return why, status, proved, payload[: -len(proof[0])] if proved else payload

    def _enter(self, source: str, calls: list[str], channel: int, proof: list[bytes]) -> None:
        """In the new process: give up all that programs must not have, then run one. Never returns."""
        try:
            os.dup2(self.output, 1)
            os.dup2(self.output, 2)
            os.dup2(channel, program.CHANNEL)
            os.closerange(program.CHANNEL + 1, self.settings["open_files"])
            os.chdir(self.scratch)
            seconds = self.settings["cpu_seconds"]
            resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))  # SIGXCPU, then SIGKILL
            random.seed(0)  # equal programs, equal verdicts
            if self.lock is not None:
                self.lock.apply()
            else:
                os.setpgid(0, 0)
                if sys.platform == "linux":
                    isolate.die_with_parent()
            program.run_program(source, calls, proof, self.settings["result_bytes"])
        finally:
            os._exit(0)

    def _receive(self, receive: int) -> tuple[int, bytes]:
        """Collect what the program writes until it ends, looking only now and then: each look is a context switch."""
        deadline = time.monotonic() + self.settings["timeout"]
        poller = select.poll()
        poller.register(receive, 0)  # wakes when the program ends, not when it writes
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

    def _end(self, child: int) -> int:
        """Kill what is left of a program, its threads and all processes it may have; its wait status."""
        for kill, target in ((os.kill, -1),) if self.isolated else ((os.killpg, child), (os.kill, child)):
            try:
                kill(target, signal.SIGKILL)  # -1: everything in this namespace but its process 1
            except (ProcessLookupError, PermissionError):  # none left, or (macOS) only one that ended
                continue
        status = os.waitpid(child, 0)[1]
        while self.isolated:
            try:
                os.wait()
            except ChildProcessError:
                break
        return status


def _read_exactly(source: int, count: int) -> bytes:
    """Unbuffered: no other program's source may lie in memory that programs inherit."""
    data = b""
    while len(data) < count:
        piece = os.read(source, count - len(data))
        if not piece:
            os._exit(0)  # the parent closed the pipe, or is gone
        data += piece
    return data


def _reply(sink: int, why: int, status: int = 0, proved: bool = False, payload: bytes = b"") -> None:
    data = memoryview(wire.REPLY_HEADER.pack(len(payload), why, status, proved) + payload)
    while data:
        data = data[os.write(sink, data) :]


def _isolate(source: int, sink: int, scratch_mb: int) -> None:
    """Returns in process 1 of the new namespaces only."""
    isolate.enter_namespaces()
    first = os.fork()
    if first:
        os.close(source)
        os.close(sink)
        os._exit(os.waitstatus_to_exitcode(os.waitpid(first, 0)[1]) & 0xFF)
    isolate.build_root(scratch_mb)


def main() -> None:
    settings = json.loads(sys.argv[1])
    source, sink = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # process 1 ignores what has no handler, so no program can stop it
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # in programs: an output beyond its limit kills
    for name in PRELOADED.split():
        __import__(name)
    try:
        if settings["isolated"]:
            _isolate(source, sink, settings["scratch_mb"])
        os.environ.clear()
        worker = Worker(settings)
        if settings["isolated"]:
            isolate.die_with_parent()  # last: a change of credentials undoes it
    except (OSError, ValueError) as error:
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        _reply(sink, wire.REFUSED, payload=text.encode())
        return
    gc.collect()
    gc.freeze()
    _reply(sink, wire.READY)
    while True:
        (size,) = wire.REQUEST_SIZE.unpack(_read_exactly(source, wire.REQUEST_SIZE.size))
        _reply(sink, *worker.run(*json.loads(_read_exactly(source, size))))


if __name__ == "__main__":
    main()
