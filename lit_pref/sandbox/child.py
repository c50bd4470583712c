"""The first steps of a process that the worker forked, up to where the program or its checker takes over.

It takes its part of the request out of a file, which it empties as the last of these steps: by that, which nothing
that it then runs can undo, the worker knows whether it came so far.

Standard library only: the sandbox's worker script imports this file by its own path.
"""

# pathlib would make every fork dearer
# ruff: noqa: PTH108

import fcntl
import os
import random
import resource
import sys
import tempfile
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from lit_pref.sandbox import imports, isolate, seccomp, wire
    from lit_pref.sandbox.unforked import write_all
else:  # files beside this one: nothing inside the sandbox imports the package
    import imports
    import isolate
    import seccomp
    import wire
    from unforked import write_all

_FREE_DESCRIPTOR = 16  # above those that a process is given


class Given(NamedTuple):
    """What a process gets.

    part: the file with its part of the request.
    places: its descriptors; 0, 1 and 2 are its own /dev/null where they are not among them.
    memory_mb: of address space.
    reads: the last of its texts is its standard input.
    """

    part: int
    places: dict[int, int]
    memory_mb: int
    reads: bool = False


def new_file(folder: str) -> int:
    """A file that has no name."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("")
    opened, path = tempfile.mkstemp(dir=folder)
    os.unlink(path)
    return opened


def begun(part: int) -> bool:
    """Whether the process with this part of a request came to its work."""
    return os.fstat(part).st_size == 0


def become(
    given: Given, settings: dict[str, Any], scratch: str, lock: "seccomp.Lock | seccomp.StrictLock | None"
) -> list[str]:
    """Give up all that programs must not have, with no way back; the texts of the part."""
    resource.setrlimit(resource.RLIMIT_CPU, (settings["cpu_seconds"], settings["cpu_seconds"] + 1))  # XCPU, then KILL
    if sys.platform == "linux":  # elsewhere it cannot be set
        resource.setrlimit(resource.RLIMIT_AS, (given.memory_mb << 20,) * 2)
    content = _texts(given.part)
    null = os.open(os.devnull, os.O_RDWR)  # flags, locks and owners belong to an opened file, which may not be shared
    wanted = {0: null, 1: null, 2: null} | given.places
    if given.reads:
        wanted[0] = _input(content.pop(), scratch)
    part = max(wanted) + 1
    wanted[part] = given.part
    spare = {place: fcntl.fcntl(source, fcntl.F_DUPFD, _FREE_DESCRIPTOR) for place, source in wanted.items()}
    resource.setrlimit(resource.RLIMIT_FSIZE, (settings["output_bytes"],) * 2)
    for place, source in spare.items():
        os.dup2(source, place)
    os.closerange(part + 1, settings["open_files"])
    os.chdir(scratch)
    random.seed(0)  # equal programs, equal verdicts
    if settings["level"] == "seccomp":
        imports.load_named("\n".join(content))
    if settings["level"] in ("seccomp", "none"):
        os.setpgid(0, 0)
        if sys.platform == "linux":
            isolate.die_with_parent()
    if lock is not None:
        lock.apply()
    os.ftruncate(part, 0)
    os.close(part)
    return content


def _texts(part: int) -> list[str]:
    data = bytearray(os.fstat(part).st_size)
    os.preadv(part, [data], 0)
    return wire.unpack(data)


def _input(text: str, scratch: str) -> int:
    file = new_file(scratch)
    write_all(file, memoryview(text.encode("utf-8", "surrogateescape")))
    os.lseek(file, 0, os.SEEK_SET)
    return file
