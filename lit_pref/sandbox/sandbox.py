"""The sandbox: isolated by one of three levels, or, where the user says so by name, not isolated at all.

It proves at its start that isolation holds, and refuses otherwise; nothing falls back to the unsafe one. A program
runs as `__main__`. The calls of its cases follow in its process and their results are compared in this one as text
(`literal.py`); a check asks it from another process (`checker.py`); for cases of input and output it is run once for
each, and what it printed is compared here. Equal programs get equal verdicts: hash seed and `random` are fixed, and a
busy machine is no program's fault (`stopwatch.py`): what it kept from its end, or what failed of ours, is tried again
and then a HARNESS_ERROR. Nothing of one program, its tests or its verdict is in another one's reach (`runner.py`).
Not covered: third-party packages inside, and several processes a program.
"""

import os
import shutil
import sys
import tempfile
import weakref
from collections.abc import Callable, Sequence
from functools import cache
from types import TracebackType
from typing import Literal, Self, get_args

from lit_pref.errors import SandboxUnavailableError
from lit_pref.machine.processors import usable_processors
from lit_pref.sandbox.pool import WorkerPool
from lit_pref.sandbox.selftest import first_leak
from lit_pref.sandbox.verdict import encode_requests, flaw, given, judge
from lit_pref.types import Program, Sandbox, Verdict

Level = Literal["bubblewrap", "namespaces", "seccomp", "none"]
ISOLATING: tuple[Level, ...] = ("bubblewrap", "namespaces", "seccomp")
MAX_DEFAULT_WORKERS = 4
MIN_MEMORY_MB = 64  # an interpreter with its libraries maps about 30
_FIXED_LIMITS = {"threads": 32, "open_files": 64, "scratch_mb": 16, "result_bytes": 1 << 16, "payload_bytes": 1 << 20}
UNSAFE_VARIABLE = "LIT_PREF_UNSAFE_SANDBOX"
_MEND = (
    "Install bubblewrap (apt-get install bubblewrap), or allow user namespaces: sysctl user.max_user_namespaces above "
    "0; on Ubuntu also kernel.apparmor_restrict_unprivileged_userns=0; in Docker --security-opt seccomp=unconfined "
    "--security-opt apparmor=unconfined. Or, only for programs that you trust with your files, network and "
    f"processes, set {UNSAFE_VARIABLE}=1."
)


class IsolatedSandbox(Sandbox):
    """Programs to verdicts over a pool of workers, isolated by one of three levels, each proven at the start.

    Args:
        level: what isolates programs. "bubblewrap": namespaces made by bubblewrap, which some systems allow it alone.
            "namespaces": Linux namespaces and a system-call filter, see `isolate.py`. "seccomp": a system-call filter
            alone, for containers and hosted notebooks that allow no namespaces: a program can open, look up or make no
            file, socket or process, and signal nobody (`seccomp.py`); it has no scratch folder, no limit on threads but
            that of memory, and finds no module that it names at run time only. "none": UNSAFE, ordinary processes with
            this user's files, network and processes, and outside Linux without a limit on memory.
        workers: processes that run programs; by default one for each processor this process may use, at most 4.
        timeout: seconds a program, its tests included, without what it waits for a processor on a busy machine.
        cpu_seconds: processor seconds a program.
        memory_mb: address space of a program's process, the interpreter included (about 30 MB).
        output_kb: bytes that a program may print, and the largest file that it may write to its scratch folder.
        seed: of hashes and of `random`, the same for all programs; verdicts under two seeds tell what hangs on chance.

    Raises `SandboxUnavailableError` where isolation is impossible or the self-test finds a leak.
    """

    def __init__(
        self,
        level: Level = "namespaces",
        workers: int | None = None,
        timeout: float = 2.0,
        cpu_seconds: int = 2,
        memory_mb: int = 256,
        output_kb: int = 1024,
        seed: int = 0,
    ) -> None:
        if level not in get_args(Level):
            raise ValueError(f"level must be one of {', '.join(get_args(Level))}, got {level}")
        self.level = level
        if not 0 <= seed < 1 << 32:
            raise ValueError(f"seed must be in 0..{(1 << 32) - 1}, got {seed}")
        limits = {"level": level, "seed": seed, **_checked_limits(timeout, cpu_seconds, memory_mb, output_kb)}
        count, folder = _checked_workers(workers), None
        self._remove_folder: Callable[[], object] = lambda: None
        if level in ("seccomp", "none"):  # nothing hides the file system: a folder to stand in
            folder = tempfile.mkdtemp(prefix="lit_pref_sandbox_")
            self._remove_folder = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        try:
            self._pool = WorkerPool(limits, count, timeout, folder)
        except SandboxUnavailableError as error:
            raise SandboxUnavailableError(f"programs cannot be isolated by {level}: {error}") from error
        leak = None if level == "none" else first_leak(self)
        if leak is not None:
            self.close()
            raise SandboxUnavailableError(f"isolation by {level} does not hold: {leak}")

    def run(self, programs: Sequence[Program]) -> list[Verdict]:
        """One verdict a program, in order; equal for any number of workers. Interrupting it stops all programs."""
        verdicts = [flaw(program) for program in programs]
        sound = [index for index, verdict in enumerate(verdicts) if verdict is None]
        requests = [encode_requests(programs[index]) for index in sound]
        replies = iter(self._pool.run([request for several in requests for request in several]))
        for index, several in zip(sound, requests, strict=True):
            verdicts[index] = judge(programs[index], [next(replies) for _ in several])
        return [verdict for verdict in verdicts if verdict is not None]

    def results(self, programs: Sequence[Program]) -> list[tuple[str, ...]]:
        """What the calls of each program's cases give, as literals, up to the first that gives no plain value.

        What a program wrote is checked to be a literal, and is no more than its word.
        """
        requests = [request for program in programs for request in encode_requests(program)]
        return [given(reply) for reply in self._pool.run(requests)]

    @property
    def worker_pids(self) -> list[int]:
        """Process ids of the workers that run now."""
        return self._pool.pids

    def close(self) -> None:
        """End the workers. Also happens when the sandbox is collected or the interpreter exits."""
        self._pool.close()
        self._remove_folder()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@cache
def default_sandbox() -> IsolatedSandbox:
    """The one sandbox that tasks of this process share unless they are given their own.

    The first of bubblewrap, namespaces and seccomp that proves its isolation here; without any only where the user set
    the environment variable LIT_PREF_UNSAFE_SANDBOX=1. Raises `SandboxUnavailableError` with what each was lacking.
    """
    if os.environ.get(UNSAFE_VARIABLE) == "1":
        print(f"{UNSAFE_VARIABLE}=1: generated programs run WITHOUT isolation", file=sys.stderr, flush=True)
        return _opened("none")
    lacking = []
    for level in ISOLATING:
        try:
            return _opened(level)
        except SandboxUnavailableError as error:
            lacking.append(str(error))
    raise SandboxUnavailableError(f"{'; '.join(lacking)}. {_MEND}")


_in_force: list[str] = []


def _opened(level: Level) -> IsolatedSandbox:
    sandbox = IsolatedSandbox(level)
    _in_force.append(level)
    return sandbox


def level_in_force() -> str | None:
    """The isolation of the shared sandbox: bubblewrap, namespaces, seccomp or none; None where it was never opened."""
    return _in_force[-1] if _in_force else None


def _checked_limits(timeout: float, cpu_seconds: int, memory_mb: int, output_kb: int) -> dict[str, object]:
    if timeout <= 0:
        raise ValueError(f"timeout must be > 0 seconds, got {timeout}")
    if cpu_seconds < 1:
        raise ValueError(f"cpu_seconds must be >= 1, got {cpu_seconds}")
    if memory_mb < MIN_MEMORY_MB:
        raise ValueError(f"memory_mb must be >= {MIN_MEMORY_MB}, got {memory_mb}")
    if output_kb < 1:
        raise ValueError(f"output_kb must be >= 1, got {output_kb}")
    limits = {"timeout": timeout, "cpu_seconds": cpu_seconds, "memory_mb": memory_mb, "output_bytes": output_kb << 10}
    return {**_FIXED_LIMITS, **limits}


def _checked_workers(workers: int | None) -> int:
    if workers is None:
        return min(usable_processors(), MAX_DEFAULT_WORKERS)
    if workers < 1:
        raise ValueError(f"workers must be >= 1, got {workers}")
    return workers
