"""The sandboxes: isolated by Linux namespaces, or, where the user says so by name, not isolated at all.

`NamespaceSandbox` proves at its start that isolation holds, and refuses otherwise; nothing falls back to the unsafe
one. A program runs once, as `__main__`, then its cases' calls in turn in the same process; results are compared in
this process as text (see `literal.py`). Equal programs get equal verdicts: hash seed and `random` are fixed.
Not covered: third-party packages inside, several processes a program, expected exceptions, float tolerance.
"""

import os
import shutil
import sys
import tempfile
import weakref
from collections.abc import Sequence
from functools import cache
from types import TracebackType
from typing import Self

from lit_pref.errors import SandboxUnavailableError
from lit_pref.processors import usable_processors
from lit_pref.sandbox.pool import WorkerPool
from lit_pref.sandbox.selftest import first_leak
from lit_pref.sandbox.verdict import encode_request, flaw, judge
from lit_pref.types import Program, Sandbox, Verdict

MAX_DEFAULT_WORKERS = 4
MIN_MEMORY_MB = 64  # an interpreter with its libraries maps about 30
_FIXED_LIMITS = {"threads": 32, "open_files": 64, "scratch_mb": 16, "result_bytes": 1 << 16, "payload_bytes": 1 << 20}
UNSAFE_VARIABLE = "LIT_PREF_UNSAFE_SANDBOX"
_MEND = (
    "Allow user namespaces: sysctl user.max_user_namespaces above 0; on Ubuntu also "
    "kernel.apparmor_restrict_unprivileged_userns=0; in Docker --security-opt seccomp=unconfined "
    "--security-opt apparmor=unconfined. Or, only for programs that you trust with your files, network and "
    f"processes, set {UNSAFE_VARIABLE}=1."
)


class _PooledSandbox(Sandbox):
    """Programs to verdicts over a pool of workers."""

    _pool: WorkerPool

    def run(self, programs: Sequence[Program]) -> list[Verdict]:
        """One verdict a program, in order; equal for any number of workers. Interrupting it stops all programs."""
        verdicts = [flaw(program) for program in programs]
        sound = [index for index, verdict in enumerate(verdicts) if verdict is None]
        replies = self._pool.run([encode_request(programs[index]) for index in sound])
        for index, reply in zip(sound, replies, strict=True):
            verdicts[index] = judge(programs[index], reply)
        return [verdict for verdict in verdicts if verdict is not None]

    @property
    def worker_pids(self) -> list[int]:
        """Process ids of the workers that run now."""
        return self._pool.pids

    def close(self) -> None:
        """End the workers. Also happens when the sandbox is collected or the interpreter exits."""
        self._pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class NamespaceSandbox(_PooledSandbox):
    """Isolated by Linux namespaces and a system-call filter; see `isolate.py` for what a program gets.

    Args:
        workers: processes that run programs; by default one for each processor this process may use, at most 4.
        timeout: wall seconds a program, its cases included.
        cpu_seconds: processor seconds a program.
        memory_mb: address space of a program's process, the interpreter included (about 30 MB).
        output_kb: bytes that a program may print, and the largest file that it may write to its scratch folder.

    Raises `SandboxUnavailableError` where isolation is impossible or the self-test finds a leak.
    """

    def __init__(
        self,
        workers: int | None = None,
        timeout: float = 2.0,
        cpu_seconds: int = 2,
        memory_mb: int = 256,
        output_kb: int = 1024,
    ) -> None:
        limits = _checked_limits(timeout, cpu_seconds, memory_mb, output_kb)
        settings = self._worker_settings() | limits
        try:
            self._pool = WorkerPool(settings, _checked_workers(workers), timeout)
        except SandboxUnavailableError as error:
            raise SandboxUnavailableError(f"programs cannot be isolated on this machine: {error}. {_MEND}") from error
        leak = first_leak(self)
        if leak is not None:
            self.close()
            raise SandboxUnavailableError(f"isolation does not hold on this machine: {leak}. {_MEND}")

    @staticmethod
    def _worker_settings() -> dict[str, object]:
        return {"isolated": True}


class UnsafeSubprocessSandbox(_PooledSandbox):
    """UNSAFE: programs run as ordinary processes with this user's files, network and processes.

    Same arguments, limits and verdicts as `NamespaceSandbox` but no isolation, no limit on threads or processes, and
    outside Linux none on memory. For programs that you trust, on machines where isolation is impossible.
    """

    def __init__(
        self,
        workers: int | None = None,
        timeout: float = 2.0,
        cpu_seconds: int = 2,
        memory_mb: int = 256,
        output_kb: int = 1024,
    ) -> None:
        limits = _checked_limits(timeout, cpu_seconds, memory_mb, output_kb)
        count = _checked_workers(workers)
        folder = tempfile.mkdtemp(prefix="lit_pref_unsafe_")
        self._remove_folder = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self._pool = WorkerPool({"isolated": False} | limits, count, timeout, folder)

    def close(self) -> None:
        super().close()
        self._remove_folder()


@cache
def default_sandbox() -> Sandbox:
    """The one sandbox that tasks of this process share unless they are given their own.

    Isolated; without isolation only where the user set the environment variable LIT_PREF_UNSAFE_SANDBOX=1.
    """
    if os.environ.get(UNSAFE_VARIABLE) == "1":
        print(f"{UNSAFE_VARIABLE}=1: generated programs run WITHOUT isolation", file=sys.stderr, flush=True)
        return UnsafeSubprocessSandbox()
    return NamespaceSandbox()


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
