"""Programs of one worker are apart: one leaves something, the next looks, and must see what it saw before.

And in all memory that it may read there is nothing of another program, its tests or what it wrote.
"""

import random
import shutil
from pathlib import Path

import pytest

from lit_pref.sandbox import IsolatedSandbox
from lit_pref.types import Case, Check, IOCase, Outcome, Program, Verdict
from tests.sandbox.conftest import LEVELS

FILE = Path(__file__).with_name("apart_programs.txt")
PAIRS = {
    name: pair.split("look\n")
    for name, _, pair in (each.partition("\n") for each in FILE.read_text().split("\n#### ")[1:])
}
HELPER = """
import ctypes, fcntl, os, struct
FILES = (0, 1, 2)
libc = ctypes.CDLL(None)
def tried(action):
    try:
        return action()
    except (OSError, ValueError, ImportError) as error:
        return 'OSError' if isinstance(error, OSError) else type(error).__name__
"""


@pytest.fixture(scope="module", params=LEVELS)
def one(request):
    """A sandbox whose programs all share a worker."""
    if request.param == "bubblewrap" and shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed (apt-get install bubblewrap)")
    with IsolatedSandbox(request.param, workers=1, timeout=20.0, cpu_seconds=20) as opened:
        yield opened


def test_nothing_is_left_to_the_next_program(one):
    pairs = {name: pair for name, pair in PAIRS.items() if f"not at {one.level}" not in name}
    assert len(pairs) > 30
    for name, (leave, see) in pairs.items():
        define = f"{HELPER}\ndef f(x):\n    return repr({see.strip()})\n"
        look = [
            Program(define, check=Check("nothing = ''\nassert f(1) == nothing", "", ("f",))),
            Program(f"{define}\nprint(hash(f(1)))", (IOCase("given\n", ""),)),
        ]
        called = [Program(define, (Case("f(1)", "''"),))]
        leaves = f"{HELPER}\n{leave}\ndef f(x):\n    pass\n"
        left = [Program(leaves, (Case("f(1)", "None"),)), Program(leaves, (IOCase("given\n", ""),))]
        left.append(Program(leaves, check=Check("one = 1\nassert f(one) is None", "", ("f",))))

        before = one.results(called), one.run(look)
        assert len(before[0][0]) == 1, (name, before)
        assert {verdict.outcome for verdict in before[1]} == {Outcome.FAILED}, (name, before)  # it sees
        ended = one.run(left)
        assert Outcome.HARNESS_ERROR not in {verdict.outcome for verdict in ended}, (name, ended)
        assert (one.results(called), one.run(look)) == before, name


# --- memory -----------------------------------------------------------------------------------------------------------

# Reads by writing to a pipe, which tells of what cannot be read instead of dying by it. Where /proc is out of sight it
# walks from places that are known until nothing has come for a while.
SEARCH = """
import ctypes, os, re
libc = ctypes.CDLL(None)
libc.write.argtypes = ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t
own = 'mkself-' + 'OWN'
receive, send = os.pipe()
PAGE, REACH = 4096, 1 << 24

def read(at, size=1 << 16):
    count = libc.write(send, at, size)
    return os.read(receive, count) if count > 0 else b''

def walked(start, step):
    at, nothing = start, 0
    while nothing < REACH and at > 0:
        piece = read(at, (1 << 16) if step > 0 else PAGE)
        nothing = 0 if piece else nothing + PAGE
        if piece:
            yield at, piece
        at += (len(piece) or PAGE) if step > 0 else -PAGE

def regions():
    try:
        with open('/proc/self/maps') as maps:
            lines = maps.read().splitlines()
    except OSError:
        lines = None
    if lines is not None:
        for line in lines:
            start, end = (int(each, 16) for each in line.split()[0].split('-'))
            at = start
            while at < end:
                piece = read(at, min(1 << 16, end - at))
                yield piece
                at += len(piece) or PAGE
        return
    libc.sbrk.restype = ctypes.c_void_p
    places = [id(object()), id(0), id(bytearray(1 << 20)), ctypes.addressof(ctypes.c_int()), libc.sbrk(0)]
    places.append(ctypes.cast(libc.write, ctypes.c_void_p).value)
    places.append(ctypes.c_void_p.in_dll(libc, '__libc_stack_end').value)
    seen = set()
    for place in places:
        for step in (1, -1):
            for at, piece in walked(place & -PAGE, step):
                if (at, step) in seen:
                    break
                seen.add((at, step))
                yield piece

def f(x):
    marker, found, before = re.compile(rb'mk([a-z]+)-[0-9a-f]{8}'), set(), b''
    for piece in regions():
        found.update(marker.findall(before[-40:] + piece))
        before = piece
    return sorted(kind.decode() for kind in found)
print(f(1))
"""


def markers():
    """Programs that hold, are sent or write a marker each; a source that writes one holds only its parts."""
    chance = random.Random(0)

    def marker(kind):
        return f"mk{kind}-{chance.getrandbits(32):08x}"

    def parts(kind):
        return f"'mk' + '{kind}-' + '{chance.getrandbits(32):08x}'"

    yield Program(f"# {marker('source')}\ndef f(x):\n    return 1\n", (Case(f"f('{marker('call')}')", "1"),))
    yield Program("def f(x):\n    return 1\n", (Case("f(1)", f"'{marker('expected')}'"),))
    yield Program(f"def f(x):\n    return {parts('result')}\n", (Case("f(1)", "1"),))
    yield Program(f"def f(x):\n    raise ValueError({parts('error')})\n", (Case("f(1)", "1"),))
    yield Program(f"raise ValueError({parts('early')})")
    yield Program(f"def f(:  # {marker('syntax')}")
    check = f"want = '{marker('wanted')}'\nassert f('{marker('asked')}') == want, '{marker('message')}'"
    context = f"helper = '{marker('context')}'"
    for body in (f"return {parts('given')}", f"raise KeyError({parts('raised')})"):
        yield Program(f"def f(x):\n    {body}\n", check=Check(check, context, ("f",)))
    equalities = f"assert f('{marker('equal')}') == '{marker('equality')}'"
    yield Program(f"def f(x):\n    return {parts('same')}\n", check=Check(equalities, "", ("f",)))
    name = "import ctypes, time\nctypes.CDLL(None).prctl(15, {}.encode())\ntime.sleep(0.05)"  # longer than a look
    yield Program(name.format(parts("name")))
    printed = f"import sys\nprint(input(), {parts('printed')})\nprint({parts('warned')}, file=sys.stderr)"
    yield Program(printed, (IOCase(f"{marker('input')}\n", f"{marker('output')}"),))
    yield Program(f"print({parts('noise')} * 3000)\n1 / 0")
    yield Program(f"import os\nos.write(3, ({parts('forged')} * 9).encode())\nos.kill(os.getpid(), 9)")
    yield Program(f"open('left', 'w').write({parts('file')})")
    for size in (3, 30, 300, 3000):  # each size has its own places in a heap
        yield Program(f"def f(x):\n    return {parts('large')} * {size}\n", (Case("f(1)", "1"),))
        yield Program(f"print({parts('long')} * {size})", (IOCase("", ""),))
        yield Program(f"#{marker('source') * size}", check=Check(f"assert f('{marker('wanted') * size}')", "", ("f",)))


@pytest.fixture(scope="module", params=["none", *LEVELS])
def searched(request):
    """A sandbox with room for a search of all memory, in one worker."""
    if request.param == "bubblewrap" and shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed (apt-get install bubblewrap)")
    with IsolatedSandbox(request.param, workers=1, timeout=60.0, cpu_seconds=60) as opened:
        yield opened


def test_memory_holds_nothing_of_other_programs(searched):
    source = SEARCH.replace("OWN", "0123abcd")
    programs = list(markers())
    for each in [*programs, *programs[::-1]]:
        assert not searched.run([each])[0].outcome.startswith("harness")
    assert searched.run([Program(source, (Case("f(1)", "['self']"),))]) == [Verdict(Outcome.PASSED)]
    searched.run(programs)
    asked = Program(source, check=Check("one = 1\nassert f(one) == ['self']", "", ("f",)))
    printing = Program(source, (IOCase("", "['self']"),))
    assert searched.run([asked, printing]) == [Verdict(Outcome.PASSED)] * 2
