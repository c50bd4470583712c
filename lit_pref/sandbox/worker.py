"""The inside of the sandbox, a script: it isolates itself, then runs the requests that it is sent.

Requests and replies run over standard input and output; `pool.py` is the other end, `runner.py` does the work.

This script and all files that it imports use the standard library and each other, since a small interpreter forks in
about 1 ms (`tests/test_architecture.py` holds them to it). They are modules of a `lit_pref` that is nothing else.
"""

import fcntl
import gc
import json
import os
import signal
import sys
import types

sys.path.pop(0)
for _name in ("lit_pref", "lit_pref.sandbox"):
    sys.modules[_name] = types.ModuleType(_name)
    sys.modules[_name].__path__ = [os.path.dirname(os.path.abspath(__file__))]

from lit_pref.sandbox import child, imports, isolate, rehearsal, wire
from lit_pref.sandbox.runner import Ended, Runner
from lit_pref.sandbox.unforked import write_all


def _next_request(source: int) -> tuple[int, int, int]:
    """Its kind and the size of its parts, which only the processes that they are for read."""
    header = b""
    while len(header) < wire.REQUEST_HEADER.size:
        piece = os.read(source, wire.REQUEST_HEADER.size - len(header))
        if not piece:
            os._exit(0)  # the parent closed the pipe, or is gone
        header += piece
    kind, size, check_size = wire.REQUEST_HEADER.unpack(header)
    return kind, size, check_size


def _reply(sink: int, ended: Ended) -> None:
    sizes = len(ended.payload), len(ended.output)
    header = wire.REPLY_HEADER.pack(*sizes, ended.why, ended.status, ended.proved)
    write_all(sink, memoryview(header), ended.payload, ended.output)


def _say(sink: int, why: int, text: str = "") -> None:
    _reply(sink, Ended(why, 0, False, memoryview(text.encode()), memoryview(b"")))


def _moved(descriptor: int) -> int:
    """To a number that no process which is forked needs for its own, and that it closes."""
    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD, child.PLACES)
    os.close(descriptor)
    return moved


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
    source, sink = _moved(0), _moved(1)
    processes = None if settings["processes"] is None else _moved(settings["processes"])
    null = os.open(os.devnull, os.O_RDWR)
    for place in range(child.PLACES):
        os.dup2(null, place)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # process 1 ignores what has no handler, so no program can stop it
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # in programs: an output beyond its limit kills
    imports.preload(settings["level"] == "seccomp")
    try:
        if settings["level"] == "namespaces":
            _enter_namespaces(source, sink, settings["scratch_mb"])
        elif settings["level"] == "bubblewrap":
            isolate.finish_root(settings["scratch_mb"])
        os.environ.clear()
        runner = Runner(settings, source, processes)
        if runner.alone:
            isolate.die_with_parent()  # last: a change of credentials undoes it
    except (OSError, ValueError) as error:
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        _say(sink, wire.REFUSED, text)
        return
    rehearsal.rehearse()
    gc.collect()
    gc.freeze()
    _say(sink, wire.READY)
    while True:
        _reply(sink, runner.run(*_next_request(source)))


if __name__ == "__main__":
    main()
