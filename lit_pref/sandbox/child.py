"""The first steps of a process that the worker forked, up to where the program or its checker takes over.

It takes its part of the request out of a file, which it empties as the last of these steps: by that, which nothing
that it then runs can undo, the worker knows whether it came so far.
"""

import os
import random
import resource
import sys
from collections.abc import Sequence
from typing import Any

from lit_pref.sandbox import imports, isolate, seccomp, wire
from lit_pref.sandbox.unforked import write_all

PLACES = 8  # descriptors that a process may be given; the worker's own are above


def new_file(folder: str) -> int:
    """A file that has no name."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("")
    path = os.path.join(folder, f"file-{os.urandom(8).hex()}")
    opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    os.unlink(path)
    return opened


def begun(part: int) -> bool:
    """Whether the process with this part of a request came to its work."""
    return os.fstat(part).st_size == 0


class SetUp:
    """The limits of settings, the scratch folder, and the lock that goes on last; None where nothing isolates.

    Made in the worker, with all that can be had there: a new process pays for each page of memory that it writes to.
    checker_memory: how many times a program's memory its checker's process may hold.
    """

    def __init__(
        self,
        settings: dict[str, Any],
        scratch: str,
        lock: "seccomp.Lock | seccomp.StrictLock | None",
        checker_memory: int,
    ) -> None:
        self._scratch, self._lock = scratch, lock
        self._preloads, self._reachable = settings["level"] == "seccomp", settings["level"] in ("seccomp", "none")
        self._processor = settings["cpu_seconds"], settings["cpu_seconds"] + 1  # SIGXCPU, then SIGKILL
        self._memory = tuple((times * settings["memory_mb"] << 20,) * 2 for times in (1, checker_memory))
        self._written = (settings["output_bytes"],) * 2
        self._descriptors, self._seed = settings["open_files"], settings["seed"]

    def become(self, part: int, size: int, places: Sequence[int | None], of_checker: bool, reads: bool) -> list[str]:
        """Give up all that programs must not have, with no way back; the texts of the part.

        part: the file with this part of a request, of so many bytes.
        places: what becomes of the first descriptors; None is a /dev/null of its own.
        reads: the last of the texts is the standard input.
        """
        resource.setrlimit(resource.RLIMIT_CPU, self._processor)
        if sys.platform == "linux":  # elsewhere it cannot be set
            resource.setrlimit(resource.RLIMIT_AS, self._memory[of_checker])
        content = wire.unpack(os.pread(part, size, 0))
        null = os.open(os.devnull, os.O_RDWR)  # flags, locks and owners belong to an opened file: no sharing
        stdin = self._input(content.pop()) if reads else null
        place = 0
        for source in places:
            os.dup2((null if place else stdin) if source is None else source, place)
            place += 1
        os.dup2(part, place)
        os.closerange(place + 1, self._descriptors)
        resource.setrlimit(resource.RLIMIT_FSIZE, self._written)
        os.chdir(self._scratch)
        random.seed(self._seed)  # equal programs, equal verdicts; the module seeds itself anew in each process
        if self._preloads:
            imports.load_named("\n".join(content))
        if self._reachable:
            os.setpgid(0, 0)
            if sys.platform == "linux":
                isolate.die_with_parent()
        if self._lock is not None:
            self._lock.apply()
        os.ftruncate(place, 0)
        os.close(place)
        return content

    def _input(self, text: str) -> int:
        file = new_file(self._scratch)
        write_all(file, memoryview(text.encode("utf-8", "surrogateescape")))
        os.lseek(file, 0, os.SEEK_SET)
        return file
