"""The sandbox at work: each outcome, forged results, what programs must not reach, order, speed, and its own ends."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lit_pref.errors import SandboxUnavailableError
from lit_pref.sandbox import IsolatedSandbox, default_sandbox, level_in_force
from lit_pref.sandbox.pool import WorkerPool
from lit_pref.types import Case, Outcome, Program

DOUBLE = "def f(x):\n    return 2 * x\n"


@pytest.fixture(scope="module")
def sandbox():
    with IsolatedSandbox("namespaces", workers=2, timeout=1.0, cpu_seconds=3, memory_mb=128, output_kb=64) as opened:
        yield opened


def of(sandbox, source, *cases):
    return sandbox.run([Program(source, tuple(Case(*case) for case in cases))])[0]


# --- outcomes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "outcome", "detail"),
    [
        ("x = 1\nassert x == 1", Outcome.PASSED, ""),
        ("import json, decimal, hashlib, threading, asyncio\nasyncio.run(asyncio.sleep(0))", Outcome.PASSED, ""),
        ("x = 1\nassert x == 2, 'no'", Outcome.ERROR, "AssertionError: no (line 2)"),
        ("def g():\n    return 1 / 0\n\ng()", Outcome.ERROR, "ZeroDivisionError: division by zero (line 2)"),
        ("def f(:\n  pass", Outcome.SYNTAX_ERROR, "(line 1)"),
        ("x = '\ud800\0'", Outcome.SYNTAX_ERROR, ""),
        ("while True: pass", Outcome.TIMEOUT, "time limit"),
        ("import time; time.sleep(60)", Outcome.TIMEOUT, "time limit"),
        ("x = 'a' * 10**9", Outcome.MEMORY, "out of memory"),
        ("x = []\nwhile True: x.append('a' * 10**6)", Outcome.MEMORY, "out of memory"),
        ("def g(): return g()\ng()", Outcome.ERROR, "RecursionError"),
        ("print('a' * 100_000)", Outcome.OUTPUT_LIMIT, "output"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", Outcome.KILLED, "SIGTERM"),
        ("import ctypes; ctypes.string_at(0)", Outcome.KILLED, "SIGSEGV"),
        ("input()", Outcome.ERROR, "EOFError"),
        ("", Outcome.PASSED, ""),
    ],
)
def test_outcome_of_a_program_without_cases(sandbox, source, outcome, detail):
    verdict = of(sandbox, source)
    assert (verdict.outcome, verdict.case) == (outcome, None), verdict
    assert detail in verdict.detail


@pytest.mark.parametrize(
    ("source", "outcome", "case", "detail"),
    [
        (DOUBLE, Outcome.PASSED, None, ""),
        ("def f(x): return 4", Outcome.FAILED, 0, "case 0: expected 2, got 4"),
        ("def f(x): return float(2 * x)", Outcome.FAILED, 0, "case 0: expected 2, got 2.0"),
        ("def f(x): return {1: 2, 2: 5}[x]", Outcome.FAILED, 1, "case 1: expected 4, got 5"),
        ("def f(x):\n    return {1: 2}[x]", Outcome.ERROR, 1, "case 1: KeyError: 2 (line 2)"),
        ("def f(x):\n    while x == 2: pass\n    return 2", Outcome.TIMEOUT, 1, "case 1: "),
        ("def f(x): return 'a' * 10**9", Outcome.MEMORY, 0, "case 0: out of memory"),
        ("def f(x): return 'a' * 10**6", Outcome.OUTPUT_LIMIT, 0, "case 0: "),
        ("f = 1 / 0", Outcome.ERROR, None, "ZeroDivisionError"),
        ("f = lambda x: (yield)", Outcome.FAILED, 0, "an object of type generator"),
        ("def f(x): raise SystemExit(0)", Outcome.ERROR, 0, "SystemExit"),
    ],
)
def test_outcome_of_a_program_with_cases(sandbox, source, outcome, case, detail):
    verdict = of(sandbox, source, ("f(1)", "2"), ("f(2)", "4"))
    assert (verdict.outcome, verdict.case) == (outcome, case), verdict
    assert detail in verdict.detail


def test_processor_time_has_its_own_limit():
    with IsolatedSandbox("namespaces", workers=1, timeout=5.0, cpu_seconds=1) as limited:
        verdict = of(limited, "while True: pass")
    assert verdict.outcome is Outcome.TIMEOUT and "CPU" in verdict.detail


# --- forged results: none of these may pass ---------------------------------------------------------------------------

FORGERIES = {
    "exit": "import sys; sys.exit(0)",
    "hard exit": "import os; os._exit(0)",
    "every descriptor": """
import os
for fd in range(3, 64):
    for line in (b"B\\nR\\nV True\\nV 2\\nV 4\\n", b"N " + b"0" * 32 + b"\\n"):
        try: os.write(fd, line)
        except OSError: pass
os._exit(0)""",
    "equal to all": """
class Equal(int):
    __eq__ = lambda s, o: True
    __ne__ = lambda s, o: False
    __repr__ = __str__ = lambda s: '2'
    __hash__ = int.__hash__
f = Equal
assert Equal(0) is None""",
    "patched builtins": """
import builtins, ast, os
builtins.repr = builtins.ascii = lambda x: '2'
builtins.type = builtins.isinstance = lambda *a: True
builtins.AssertionError = builtins.BaseException = None
real = os.write
os.write = lambda fd, data: real(fd, b"B\\nR\\nV 2\\n")
assert False""",
    "frames": """
import sys, os
found = []
def walk(frame):
    while frame is not None:
        for value in list(frame.f_locals.values()) + list(frame.f_globals.values()):
            found.append(value)
        frame = frame.f_back
walk(sys._getframe())
for frame in sys._current_frames().values(): walk(frame)
flat = found + [y for x in found if isinstance(x, (list, tuple)) for y in x]
for value in flat:
    if isinstance(value, bytes) and value.startswith(b"N "):
        os.write(3, value); os._exit(0)
    if isinstance(value, map):
        for step in value: pass
raise SystemExit""",
    "garbage collector": """
import gc, os
def search():
    for value in gc.get_objects():
        for item in [value, *gc.get_referents(value)]:
            if type(item) is bytes and item.startswith(b"N ") and len(item) > 30:
                os.write(3, item); os._exit(0)
            if type(item) is map:
                for step in item: pass
                os._exit(0)
search()
raise SystemExit""",
    "hooks": """
import sys, os
sys.unraisablehook = lambda *a: os._exit(0)
sys.excepthook = lambda *a: os._exit(0)
sys.settrace(lambda frame, *a: sys._current_frames())
assert False""",
    "a thread that goes on": """
import threading, os, time
def late():
    time.sleep(0.1); os.write(3, b"R\\nV 2\\nV 4\\n"); os._exit(0)
threading.Thread(target=late).start()
raise SystemExit""",
    "an exit hook": "import atexit, os; atexit.register(os._exit, 0); assert False",
    "the channel closed": "import os; os.closerange(0, 64); import time; time.sleep(9)",
    "what a harness prints": "print('OK'); print('PASSED'); print('1 passed'); raise SystemExit(0)",
}


@pytest.mark.parametrize("name", FORGERIES)
@pytest.mark.parametrize("cases", [(), (("f(1)", "2"), ("f(2)", "'not a guess'"))], ids=["no cases", "cases"])
def test_forged_results_do_not_pass(sandbox, name, cases):
    verdict = of(sandbox, FORGERIES[name], *cases)
    assert not verdict.passed
    assert verdict.outcome is not Outcome.HARNESS_ERROR, verdict
    assert of(sandbox, DOUBLE, ("f(1)", "2")).passed


# --- isolation --------------------------------------------------------------------------------------------------------


def test_network_files_and_processes_are_out_of_reach(sandbox, tmp_path):
    (tmp_path / "secret").write_text("s")
    tries = [
        "socket.socket()",
        "socket.create_connection(('127.0.0.1', 80), 1)",
        f"open({str(tmp_path / 'secret')!r})",
        f"open({str(tmp_path / 'new')!r}, 'w')",
        f"os.listdir({str(Path(__file__).parent)!r})",
        "open(os.__file__, 'a')",
        "open('/new', 'w')",
        "os.fork()",
        "os.execv('/bin/sh', ['sh'])",
        f"os.kill({os.getpid()}, 0)",
        "os.kill(1, 9) or os.kill(1, 2) or os.listdir('/proc/1')",
        "os.setuid(0) or os.chroot('/tmp')",
        "os.mknod('/tmp/disk', 0o60600, 0x800)",
    ]
    programs = [
        Program(f"import os, socket\ntry:\n    {each}\nexcept OSError:\n    result = 'no'", (Case("result", "'no'"),))
        for each in tries
    ]
    verdicts = sandbox.run(programs)
    assert {each: v for each, v in zip(tries, verdicts, strict=True) if not v.passed} == {}
    assert not (tmp_path / "new").exists()


def test_installed_packages_are_out_of_sight(sandbox):
    source = """
import glob, sys
seen = [p for root in ('/', '/usr', sys.base_prefix) for p in glob.glob(root + '/lib*/python*/*-packages/*')]
"""
    assert of(sandbox, source, ("seen", "[]")).passed


@pytest.mark.parametrize(
    "bomb",
    [
        "import os\nwhile True:\n    os.fork()",
        "import threading, time\nwhile True:\n    threading.Thread(target=time.sleep, args=(9,)).start()",
        "import subprocess, sys\nwhile True:\n    subprocess.Popen([sys.executable])",
    ],
)
def test_bombs_are_contained(sandbox, bomb):
    assert of(sandbox, bomb).outcome in (Outcome.ERROR, Outcome.MEMORY, Outcome.TIMEOUT)
    assert all(v.passed for v in sandbox.run([Program(DOUBLE, (Case("f(3)", "6"),))] * 20))


def test_scratch_is_writable_and_fresh_for_each_program():
    with IsolatedSandbox("namespaces", workers=1) as one:
        dirty = "import os\nopen('left', 'w').write('x')\nos.makedirs('a/' * 200)\n"
        dirty += "try: os.chmod('.', 0)\nexcept OSError: pass"  # without root, scratch belongs to the program's user
        look = Program("import os", (Case("os.listdir()", "[]"), Case("open('mine', 'w').write('abc')", "3")))
        assert [v.outcome for v in one.run([Program(dirty), look, look])] == [Outcome.PASSED] * 3
        full = "f = open('big', 'wb')\nfor _ in range(100):\n    open(str(_), 'wb').write(b'x' * 1_000_000)"
        verdict = of(one, full)
        assert verdict.outcome is Outcome.ERROR and "No space left" in verdict.detail


def test_programs_leave_nothing_to_the_next():
    with IsolatedSandbox("namespaces", workers=1) as one:
        first = Program("import builtins, math, sys\nbuiltins.len = None\nmath.pi = 3\nsys.modules.clear()")
        second = Program("import math", (Case("len([1])", "1"), Case("math.pi > 3", "True")))
        assert [v.passed for v in one.run([first, second])] == [True, True]


# --- order, concurrency, speed ----------------------------------------------------------------------------------------


def mixed(count):
    kinds = ["return 2 * x", "return x", "raise KeyError(x)", "return list({'b', 'a', 'c', str(x)})", "x +"]
    return [
        Program(f"import random\ndef f(x):\n    {kinds[i % 5]}\n", (Case("f(1)", "2"), Case(f"f({i})", str(2 * i))))
        for i in range(count)
    ]


def test_verdicts_are_in_order_and_equal_for_any_concurrency(sandbox):
    programs = mixed(100)
    with IsolatedSandbox("namespaces", workers=1) as one, IsolatedSandbox("namespaces", workers=4) as four:
        expected = one.run(programs)
        assert four.run(programs) == expected == sandbox.run(programs)
    assert [v.outcome for v in expected[:5]] == [
        *(Outcome.PASSED, Outcome.FAILED, Outcome.ERROR, Outcome.FAILED, Outcome.SYNTAX_ERROR)
    ]
    assert expected[6].detail == "case 0: expected 2, got 1" and sandbox.run([]) == []


def test_two_thousand_short_programs():
    body = "def f(x):\n    y = x + {}\n    return [y, str(y)]\n"
    programs = [
        Program(body.format(i), tuple(Case(f"f({j})", f"[{i + j}, '{i + j}']") for j in range(8))) for i in range(2000)
    ]
    with IsolatedSandbox("namespaces", workers=2) as two:
        assert all(verdict.passed for verdict in two.run(programs))


def test_large_requests_and_replies_do_not_block_each_other(sandbox):
    source = f"def f(x):\n    return {'a' * 60_000!r}\n" + "# padding\n" * 20_000
    program = Program(source, tuple(Case(f"f({i})", repr("a" * 60_000)) for i in range(8)))
    assert all(verdict.passed for verdict in sandbox.run([program] * 12))


# --- workers that die, interrupts, ends -------------------------------------------------------------------------------


def test_a_worker_that_dies_is_replaced_and_costs_no_other_verdict():
    with IsolatedSandbox("namespaces", workers=2) as two:
        before = two.worker_pids
        threading.Timer(0.2, os.kill, (before[0], signal.SIGKILL)).start()
        slow = Program("import time; time.sleep(0.1)\n" + DOUBLE, (Case("f(1)", "2"),))
        assert all(verdict.passed for verdict in two.run([slow] * 12))
        assert len(two.worker_pids) == 2 and before[0] not in two.worker_pids


def test_an_interrupt_stops_the_programs_and_the_sandbox_goes_on():
    with IsolatedSandbox("namespaces", workers=2, timeout=90.0) as two:
        pids = two.worker_pids
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            two.run([Program("import time; time.sleep(60)")] * 4)
        assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
        assert of(two, DOUBLE, ("f(1)", "2")).passed


@pytest.mark.parametrize("level", ["namespaces", "bubblewrap", "seccomp"])
def test_workers_outlive_the_thread_that_started_them_and_end_with_the_sandbox(level):
    if level == "bubblewrap" and shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed (apt-get install bubblewrap)")
    opened = []
    thread = threading.Thread(
        target=lambda: opened.append(IsolatedSandbox(level, workers=2, timeout=30.0, cpu_seconds=30))
    )
    thread.start()
    thread.join()
    (two,) = opened
    pids = two.worker_pids
    below = [deep for pid in pids for deep in descendants(pid)]
    assert of(two, DOUBLE, ("f(1)", "2")).passed and two.worker_pids == pids
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        two.run([Program("import time; time.sleep(20)")] * 2)
    assert gone([*pids, *below])
    two.close()


def descendants(pid):
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children] + [deep for child in children for deep in descendants(child)]


def gone(pids):
    """Whether these processes end; the kernel may take a while on a busy machine."""
    deadline = time.monotonic() + 60.0
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_close_leaves_no_process():
    two = IsolatedSandbox("namespaces", workers=2)
    below = [deep for pid in two.worker_pids for deep in descendants(pid)]
    assert len(below) == 2  # process 1 of each worker's namespaces
    pids = two.worker_pids + below
    two.close()
    two.close()
    assert gone(pids)
    with pytest.raises(RuntimeError, match="closed"):
        two.run([Program("")])


def test_a_sandbox_that_nobody_closed_ends_with_the_interpreter(tmp_path):
    code = (
        "from lit_pref.sandbox import IsolatedSandbox\n"
        "both = [IsolatedSandbox(level, workers=1) for level in ('namespaces', 'none')]\n"
        "print(*[one.worker_pids[0] for one in both], flush=True)\n"
    )
    command, environment = [sys.executable, "-W", "error", "-c", code], os.environ | {"TMPDIR": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stderr == ""
    assert [pid for pid in done.stdout.split() if Path(f"/proc/{pid}").exists()] == []
    assert list(tmp_path.iterdir()) == []


# --- refusal and the unsafe option ------------------------------------------------------------------------------------


def test_without_namespaces_a_strict_filter_isolates():
    # In a user namespace of its own a process may forbid itself further ones.
    code = """
import ctypes, os, sys
user = os.geteuid()
if ctypes.CDLL(None).unshare(0x10000000): sys.exit(7)
open("/proc/self/uid_map", "w").write(f"0 {user} 1")
open("/proc/sys/user/max_user_namespaces", "w").write("0")
from lit_pref.errors import SandboxUnavailableError
from lit_pref.sandbox import IsolatedSandbox, default_sandbox, level_in_force
from lit_pref.types import Program
for refused in ("namespaces", "bubblewrap"):
    try: IsolatedSandbox(refused)
    except SandboxUnavailableError as error: print(error)
print(level_in_force())
print(default_sandbox().run([Program("x = 1")])[0].passed, level_in_force())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, second, third, fourth = done.stdout.splitlines()
    assert "by namespaces" in first and "No space left" in first  # the kernel's word for "no more namespaces"
    assert "by bubblewrap" in second
    assert (third, fourth) == ("None", "True seccomp")


def test_refuses_where_no_level_holds_but_for_who_asks_for_none(monkeypatch, capsys):
    lacking = SandboxUnavailableError("not here")

    def refuse(*_):
        raise lacking

    monkeypatch.setattr("lit_pref.sandbox.sandbox.WorkerPool", refuse)
    default_sandbox.cache_clear()
    monkeypatch.delenv("LIT_PREF_UNSAFE_SANDBOX", raising=False)
    with pytest.raises(SandboxUnavailableError) as refusal:
        default_sandbox()
    for part in ("by bubblewrap: not here", "by namespaces", "by seccomp", "apt-get", "LIT_PREF_UNSAFE_SANDBOX=1"):
        assert part in str(refusal.value)
    monkeypatch.undo()
    monkeypatch.setenv("LIT_PREF_UNSAFE_SANDBOX", "1")
    assert default_sandbox().run([Program("x = 1")])[0].passed and level_in_force() == "none"
    assert "WITHOUT isolation" in capsys.readouterr().err
    default_sandbox().close()
    default_sandbox.cache_clear()


def test_refuses_where_the_self_test_finds_a_leak(monkeypatch, tmp_path):
    # Workers that skip isolation: what the self-test tries must then succeed, so it must notice.
    def skipping(settings, workers, timeout, _):
        return WorkerPool({**settings, "level": "none"}, workers, timeout, str(tmp_path))

    monkeypatch.setattr("lit_pref.sandbox.sandbox.WorkerPool", skipping)
    with pytest.raises(SandboxUnavailableError, match=r"does not hold.*reach the network"):
        IsolatedSandbox("namespaces", workers=1)


def test_the_unsafe_sandbox_gives_the_same_verdicts_without_isolation(sandbox, tmp_path):
    (tmp_path / "file").write_text("read")
    with IsolatedSandbox("none", workers=2) as unsafe:
        assert unsafe.run(mixed(20)) == sandbox.run(mixed(20))
        assert of(unsafe, f"x = open({str(tmp_path / 'file')!r}).read()", ("x", "'read'")).passed
        # A program can even kill its worker; it costs that program's verdict alone.
        rude = Program("import os; os.kill(os.getppid(), 9)")
        outcomes = [v.outcome for v in unsafe.run([rude, *[Program("x = 1")] * 8])]
    assert outcomes == [Outcome.KILLED, *[Outcome.PASSED] * 8]


def test_an_unknown_level_is_named():
    with pytest.raises(ValueError, match="level must be one of bubblewrap, namespaces, seccomp, none, got docker"):
        IsolatedSandbox("docker")


@pytest.mark.parametrize(
    ("setting", "value"), [("workers", 0), ("timeout", 0.0), ("cpu_seconds", 0), ("memory_mb", 8), ("output_kb", 0)]
)
def test_settings_out_of_range_are_named(setting, value):
    with pytest.raises(ValueError, match=f"{setting} must be >.* got {value}"):
        IsolatedSandbox("namespaces", **{setting: value})


def test_tasks_of_a_process_share_one_sandbox(monkeypatch):
    monkeypatch.delenv("LIT_PREF_UNSAFE_SANDBOX", raising=False)
    default_sandbox.cache_clear()
    shared = default_sandbox()
    assert shared.level == level_in_force() == ("bubblewrap" if shutil.which("bwrap") else "namespaces")
    assert default_sandbox() is shared


# --- chance -----------------------------------------------------------------------------------------------------------


def test_a_seed_decides_what_hangs_on_chance():
    source = "import random\ndef f():\n    return hash('a'), random.random()\n"
    given = []
    for seed in (0, 0, 1):
        with IsolatedSandbox("namespaces", workers=1, seed=seed) as opened:
            given.append(opened.results([Program(source, (Case("f()", "0"),))])[0])
    assert given[0] == given[1] != given[2]
    assert len(given[2]) == 1
    with pytest.raises(ValueError, match=r"seed must be in 0\.\.4294967295, got -1"):
        IsolatedSandbox(seed=-1)
