"""Programs that try to leave the sandbox, and what must come of them: run at start, they prove that isolation holds.

Each attempt has a target that is really there: a port that listens, a file that can be read, the user's own folders.
Not covered: an exhaustive attack; the hostile suite among the tests tries more.
"""

import os
import socket
import sys
import tempfile
from pathlib import Path

from lit_pref.types import Case, Program, Sandbox

_ATTEMPTS = """
import os

def attempt(action):
    try:
        return f"it could: {action()!r}"[:60]
    except OSError:
        return "refused"

def connect(port):
    import socket
    return socket.create_connection(("127.0.0.1", port), timeout=0.2)

def fork():
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    return pid

def open_for(path, flags):
    return os.open(path, flags)

def seen(paths):
    return [path for path in paths if os.path.lexists(path)]
"""


def first_leak(sandbox: Sandbox) -> str | None:
    """What a program could do that it must not, or None."""
    with tempfile.TemporaryDirectory() as folder, socket.socket() as server:
        canary = Path(folder) / "canary"
        canary.write_text("alive")
        server.bind(("", 0))
        server.listen()
        beside = str(Path(os.__file__).with_name("lit_pref_sandbox_was_here"))
        attempts = {
            "reach the network": f"attempt(lambda: connect({server.getsockname()[1]}))",
            "read a file outside": f"attempt(lambda: open_for({str(canary)!r}, os.O_RDONLY))",
            "write a file outside": f"attempt(lambda: open_for({str(canary)!r}, os.O_WRONLY))",
            "create a file beside the standard library": f"attempt(lambda: open_for({beside!r}, 66))",
            "change a device": "attempt(lambda: os.utime('/dev/null'))",
            "start a process": "attempt(fork)",
            "see another process": f"attempt(lambda: os.kill({os.getpid()}, 0))",
            "see process information": "attempt(lambda: os.listdir('/proc/self'))",
        }
        cases = [Case(call, repr("refused")) for call in attempts.values()]
        cases.append(Case(f"seen({_home_entries()!r})", "[]"))
        # A program for each attempt: what one does must not hide the next.
        verdicts = sandbox.run([Program(_ATTEMPTS, (case,)) for case in cases])
    for what, verdict in zip([*attempts, "see the home folder"], verdicts, strict=True):
        if not verdict.passed:
            return f"a program could {what} ({verdict.outcome}; {verdict.detail})"
    return None


def _home_entries() -> list[str]:
    """Some of the user's files; folders on the way to the interpreter exist inside too, empty but for it."""
    home = Path.home()
    if not home.is_dir():
        return []
    way = {Path(sys.base_prefix), *Path(sys.base_prefix).parents, Path("/tmp"), Path("/dev"), Path("/etc")}
    way |= {Path(name) for name in ("/usr", "/lib", "/lib64")}
    return sorted(str(entry) for entry in home.iterdir() if entry not in way)[:20]
