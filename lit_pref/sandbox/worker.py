"""The inside of the sandbox, a script: it isolates itself, then runs the requests that it is sent.

Requests and replies run over standard input and output; `pool.py` is the other end, `runner.py` does the work.

Standard library only, and never imported by the package: a small interpreter forks in about 1 ms.
"""

import gc
import json
import os
import signal
import sys
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lit_pref.sandbox import imports, isolate, wire
    from lit_pref.sandbox.runner import Ended, Runner
else:  # files beside this one: nothing inside the sandbox imports the package
    import imports
    import isolate
    import wire
    from runner import Ended, Runner

    sys.path.pop(0)


def _read_exactly(source: int, count: int) -> bytearray:
    """Into memory that the caller can wipe: no other program's source or tests may lie in what programs inherit."""
    data = bytearray(count)
    place = memoryview(data)
    while place:
        size = os.readv(source, [place])
        if size == 0:
            os._exit(0)  # the parent closed the pipe, or is gone
        place = place[size:]
    return data


def _reply(sink: int, ended: Ended) -> None:
    sizes = len(ended.payload), len(ended.output)
    header = wire.REPLY_HEADER.pack(*sizes, ended.why, ended.status, ended.proved)
    data = memoryview(header + ended.payload + ended.output)
    while data:
        data = data[os.write(sink, data) :]


def _enter_namespaces(source: int, sink: int, scratch_mb: int) -> None:
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
    imports.preload(settings["level"] == "seccomp")
    try:
        if settings["level"] == "namespaces":
            _enter_namespaces(source, sink, settings["scratch_mb"])
        elif settings["level"] == "bubblewrap":
            isolate.mount_scratch(settings["scratch_mb"])
        os.environ.clear()
        runner = Runner(settings)
        if runner.alone:
            isolate.die_with_parent()  # last: a change of credentials undoes it
    except (OSError, ValueError) as error:
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        _reply(sink, Ended(wire.REFUSED, 0, False, text.encode(), b""))
        return
    gc.collect()
    gc.freeze()
    _reply(sink, Ended(wire.READY, 0, False, b"", b""))
    while True:
        header = _read_exactly(source, wire.REQUEST_HEADER.size)
        kind, size, check_size = wire.REQUEST_HEADER.unpack(header)
        part = _read_exactly(source, size)
        _reply(sink, runner.run(kind, part, partial(_read_exactly, source, check_size)))


if __name__ == "__main__":
    main()
