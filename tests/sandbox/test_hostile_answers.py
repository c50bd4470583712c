"""Programs that speak both ends of the conversation with a checker, at every level: none passes, none is our error.

Their tests are of the kinds that data sets hold: loops, helpers of the context, tolerances, errors that are expected.
What is right is `want(x)`, which no program knows and which is asked of none. The suite tries each program at one
level, the slow tests at all.
"""

import re
from pathlib import Path

import pytest

from lit_pref.types import Check, Outcome, Program
from tests.sandbox.conftest import LEVELS, rotated

FOLDER = Path(__file__).parent
SPEAK = """
import json, os
def send(line):
    if type(line) is not str: line = json.dumps(line)
    data = line.encode() + b'\\n'
    while data: data = data[os.write(3, data):]
unread = b''
def hear():
    global unread
    while b'\\n' not in unread:
        piece = os.read(4, 65536)
        if not piece: os._exit(0)
        unread += piece
    line, _, unread = unread.partition(b'\\n')
    return json.loads(line)
def ask(question):
    send(question)
    return hear()
def value(v, *news): return ['value', v, list(news), []]
asked = []
def fn(q):
    # a function for its name, 1 for a call
    if q[0] != 'names': return 1
    asked.append(1)
    return None
def speak(answer):
    send(['value', None, [], []])
    first = True
    while True:
        q = hear()
        said = answer(q)
        if q[0] == 'names' and type(said) is list and said[0] == 'value' and said[1] is None and not said[2]:
            said[2] = [['name', ['f', {'object': [900, {'standing': [901, 'function']}]}, '']]]
        send(said)
"""
ANSWERS = {}
for _each in (FOLDER / "hostile_answers.txt").read_text().split("\n#### ")[1:]:
    _name, _, _program = _each.partition("\n")
    _name, _, _tests = _name.partition(" | ")
    ANSWERS[_name] = (_tests.split(), re.sub("^SPEAK\n", lambda _: SPEAK, _program))

CONTEXT = """
import math
SECRET = 11
def want(x):
    return 7919 * x + SECRET

def assertion(out, exp, atol=0):
    exact_match = out == exp
    if atol == 0 and isinstance(exp, float):
        atol = 1e-6
    if not exact_match and atol != 0:
        assert type(out) == type(exp), f"{out}, {exp}"
        assert abs(out - exp) <= atol
    else:
        assert exact_match
"""
TESTS = {
    "equal": "x = 1\nassert f(x) == want(x)",
    "unequal": "assert not f(1) != want(1)",
    "abs": "for x in range(3):\n    assert abs(f(x) - want(x)) < 1e-6",
    "helper": "for x in range(3):\n    assertion(f(x), want(x), 1e-6)\nassertion(f(1.0), want(1.0))",
    "loop": "cases = [(x, want(x)) for x in range(3)]\nfor x, w in cases:\n    got = f(x)\n    assert got == w, got",
    "all": "assert all(f(x) == want(x) for x in range(3))",
    "any": "assert any(f(x) == want(x) for x in range(3))",
    "zip": "for got, w in zip(map(f, range(3)), map(want, range(3))):\n    assert got == w",
    "map": "assert [w for w, got in zip(map(want, range(3)), map(f, range(3))) if got != w] == []",
    "in": "assert f(1) in [want(1), want(2)] and f(1) in (want(1),)",
    "set": "assert f(1) in {want(1), want(2)} and len({f(1), want(1)}) == 1",
    "key": "assert {want(1): 'yes'}[f(1)] == 'yes'",
    "inside": "assert f(want)[0] == want(1) and want(1) in f(want)",
    "isinstance": "assert isinstance(f(1), int) and not isinstance(f(1), bool)\nassert f(1) == want(1)",
    "isclose": "assert math.isclose(f(1), want(1), rel_tol=1e-9)",
    "round": "assert round(f(1), 2) == want(1)",
    "order": "assert want(1) - 1 < f(1) and f(1) <= want(1) and f(1) >= want(1)",
    "arithmetic": "assert f(1) - want(1) == 0\nassert want(1) ^ f(1) == 0\nassert f(1) / want(1) == 1",
    "index": "assert list(range(want(3)))[f(1)] == want(1)",
    "sorted": "assert sorted([f(2), f(1)]) == [want(1), want(2)]",
    "iterate": "assert [x for x in f(3)] == [want(x) for x in range(3)] and list(f(1)) == [want(0)]",
    "length": "assert len(f(want)) == want(0) and len(f(want)) == len(list(f(want)))",
    "text": "assert str(f(1)) == str(want(1)) and f'{f(1)}' == '%s' % want(1)",
    "truth": "for x in range(6):\n    assert bool(f(x)) == (want(x) % 3 == 1) and (not f(x)) == (want(x) % 3 != 1)",
    "try": "try:\n    got = f(1)\nexcept Exception:\n    got = None\nassert got == want(1)",
    "bare": "try:\n    f(-1)\nexcept:\n    pass\nassert f(1) == want(1)",
    "dying": "try:\n    f(-1)\nexcept:\n    pass",  # what is caught here is more than an error
    "raises": "try:\n    f(-1)\nexcept ValueError:\n    pass\nelse:\n    assert False\nassert f(1) == want(1)",
    "mutate": "xs = [1, 2]\nf(xs)\nassert xs == [want(1), want(2)]",
    "later": "xs = [want(1)]\nf(xs[:])\nassert f(1) == want(1)\nassert xs == [want(1)]",
    "both": "assert f([1]) == f([1]) == [want(1)]",
    "callback": "def is_it(x):\n    return want(x) == x\nassert f(lambda x: is_it(x)) == want(1) and not is_it(5)",
    "iterator": "def hidden():\n    secret = want(1)\n    yield 1\n    yield 2\nassert f(hidden()) == want(1)",
    "object": "class Shape:\n    def __init__(self):\n        self._secret, self.side = want(1), 3\n"
    "    def area(self):\n        return self.side ** 2\ns = Shape()\nassert f(s) == want(1) and s.area() == 9",
    "borrowed": "assert statistics.mean([abs(f(1) - want(1))]) == 0\nassert statistics.fmean([f(1)]) == want(1)",
    "lengths": "w = [want(x) for x in range(3)]\nassert len(f(w)) == len(w) and all(a == b for a, b in zip(f(w), w))",
    "output": "import io, contextlib\nout = io.StringIO()\nwith contextlib.redirect_stdout(out):\n    f(1)\n"
    "assert out.getvalue() == str(want(1))",
}
HONEST = """
import statistics
def want(x):
    return 7919 * x + 11
def f(x):
    if callable(x) and x.__name__ == 'want':
        return [want(1)] * want(0)
    if isinstance(x, list):
        x[:] = [want(y) for y in x]
        return x
    return want(x) if isinstance(x, (int, float)) else want(1)
"""


def programs_of(names):
    for name in names:
        tests, source = ANSWERS[name]
        for test in tests:
            yield f"{name} | {test}", Program(source, check=Check(TESTS[test], CONTEXT, ("f",)))


@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["rotated", "whole"])
def test_none_passes_and_none_is_taken_for_our_fault(any_sandbox, whole):
    names = list(ANSWERS) if whole else rotated(ANSWERS, LEVELS.index(any_sandbox.level))
    programs = dict(programs_of(names))
    verdicts = dict(zip(programs, any_sandbox.run(list(programs.values())), strict=True))
    assert {name: v for name, v in verdicts.items() if v.passed} == {}
    assert {name: v for name, v in verdicts.items() if v.outcome is Outcome.HARNESS_ERROR} == {}


def test_the_suite_is_large_and_its_tests_can_be_passed(any_sandbox):
    assert len(ANSWERS) >= 80
    assert {test for tests, _ in ANSWERS.values() for test in tests} <= TESTS.keys()
    programs = [Program(HONEST, check=Check(test, CONTEXT, ("f",))) for test in TESTS.values()]
    verdicts = dict(zip(TESTS, any_sandbox.run(programs), strict=True))
    # Four that want something else of f than the others.
    assert {name for name, v in verdicts.items() if not v.passed} == {"iterate", "output", "raises", "truth"}
