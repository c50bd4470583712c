"""Programs that a checker asks from its own process, and programs whose output counts, at every level of isolation."""

import pytest

from lit_pref.sandbox.equalities import equalities
from lit_pref.types import Case, Check, IOCase, Outcome, Program, Verdict

DOUBLE = "def f(x):\n    return 2 * x\n"


def asked(sandbox, source, code, context="", entry_points=("f",), licence=()) -> Verdict:
    return sandbox.run([Program(source, check=Check(code, context, entry_points, licence))])[0]


RIGHT = [
    (DOUBLE, "assert f(2) == 4\nassert f([1]) == [1, 1] and f('a') == 'aa'"),
    (DOUBLE, "def check(candidate):\n    for i in range(50):\n        assert candidate(i) == 2 * i\ncheck(f)"),
    ("def f(x): return True", "assert f(0) == 1 and f(0) is True and isinstance(f(0), bool)"),
    ("def f(x): return 0.1 + 0.2", "assert f(0) != 0.3\nimport math\nassert math.isclose(f(0), 0.3)"),
    ("def f(a, *, b=1): return a, b", "assert f(1) == (1, 1)\nassert f(1, b=[2]) == (1, [2])"),
    ("def f(x): return float('nan')", "y = f(1)\nassert y != y"),
    ("from collections import Counter\ndef f(x): return Counter(x)", "assert f('aab') == {'a': 2, 'b': 1}"),
    ("def f(x): return (c for c in x)", "assert list(f('abc')) == ['a', 'b', 'c']"),
    (
        "import itertools\ndef f(x): return itertools.count(x)",
        "g = iter(f(3))\nassert [next(g), next(g)] == [3, 4]",
    ),
    (
        "def f(x): raise ValueError('no')",
        "try:\n    f(1)\nexcept ValueError as e:\n    assert str(e) == 'no'",
    ),
    (
        "class Own(KeyError): pass\ndef f(x): raise Own",
        "try:\n    f(1)\nexcept Exception:\n    pass\nelse:\n    assert 0",
    ),
    (
        "class Node:\n    def __init__(s, v): s.v = v\ndef f(n): return n.v",
        "n = Node(3)\nn.v = 4\nassert f(n) == n.v == 4",
    ),
    ("nodes = []\ndef f(x):\n    nodes.append(x)\n    return nodes", "f(1)\nassert len(f(2)) == 2"),
    ("def f(x): return lambda y: x + y", "assert f(1)(2) == 3"),
    ("def f(x): return 10 ** 5000", "assert f(0) == 10 ** 5000"),
    ("def f(x):\n    print('noise')\n    return x", "assert f(1) == 1"),
]


def test_right_programs_pass(any_sandbox):
    programs = [Program(source, check=Check(code, entry_points=("f",))) for source, code in RIGHT]
    verdicts = dict(zip(RIGHT, any_sandbox.run(programs), strict=True))
    assert {row: verdict for row, verdict in verdicts.items() if verdict != Verdict(Outcome.PASSED)} == {}


WRONG = [
    ("def f(x): return x", Outcome.FAILED, 1, "test 1: f(2) == 4; the last result was 2"),
    ("def f(x): return None", Outcome.FAILED, 0, "test 0: f(0) == 0; the last result was None"),
    ("def f(x): return object()", Outcome.FAILED, 0, "the last result was <the program's object>"),
    ("def f(x): return x / 0", Outcome.ERROR, 0, "test 0: ZeroDivisionError: division by zero (line 1)"),
    (
        "def f(x):\n    if x == 2:\n        raise KeyError(x)\n    return x",
        Outcome.ERROR,
        1,
        "test 1: KeyError: 2 (line 3)",
    ),
    ("def f(x): raise AssertionError", Outcome.ERROR, 0, "test 0: AssertionError (line 1)"),
    ("def f(x): raise SystemExit(0)", Outcome.ERROR, 0, "test 0: SystemExit: 0 (line 1)"),
    ("def g(x): return x", Outcome.ERROR, None, "NameError: name 'f' is not defined"),
    ("f = 3", Outcome.ERROR, None, "TypeError: 'int' object is not callable"),
    ("1 / 0", Outcome.ERROR, None, "ZeroDivisionError: division by zero (line 1)"),
    ("def f(:", Outcome.SYNTAX_ERROR, None, "SyntaxError"),
    ("def f(x):\n    while True: pass", Outcome.TIMEOUT, None, "time limit"),
    ("while True: pass", Outcome.TIMEOUT, None, "time limit"),
    ("def f(x): return 'a' * 10 ** 10", Outcome.MEMORY, 0, "test 0: out of memory"),
    ("def f(x): return 'a' * 3_000_000", Outcome.OUTPUT_LIMIT, 0, "test 0: a result longer than the limit"),
    ("def f(x):\n    while True: print('a' * 999)", Outcome.OUTPUT_LIMIT, 0, "more output"),
    ("import os\ndef f(x): os._exit(0)", Outcome.ERROR, 0, "test 0: the program exited before its end"),
    ("import ctypes\ndef f(x): ctypes.string_at(0)", Outcome.KILLED, 0, "test 0: killed by SIGSEGV"),
    ("import os\nos.write(3, b'nonsense\\n')", Outcome.ERROR, None, "no answer"),
    ('import os\nos.write(3, b\'["value", {"object": []}]\\n\' * 9)', Outcome.ERROR, None, "no answer"),
]


def test_wrong_programs_are_told_how(any_sandbox):
    code = "zero = 0\nassert f(zero) == 0\nassert f(2) == 4"  # a name in a call: work for a checker
    check = Check(code, entry_points=("f",))
    assert equalities(check) is None
    verdicts = any_sandbox.run([Program(source, check=check) for source, *_ in WRONG])
    for (source, outcome, case, detail), verdict in zip(WRONG, verdicts, strict=True):
        assert (verdict.outcome, verdict.case) == (outcome, case), (source, verdict)
        assert detail.replace("f(0)", "f(zero)") in verdict.detail, (source, verdict)


def test_equalities_give_the_outcomes_that_a_checker_gives(any_sandbox):
    code = "def check(candidate):\n    assert candidate(0) == 0\n    assert candidate(2) == 4, 'no'\n\ncheck(f)"
    check = Check(code, entry_points=("f",))
    assert equalities(check) is not None
    expected = {source: outcome for source, outcome, *_ in WRONG if "os.write" not in source}
    expected[DOUBLE] = Outcome.PASSED
    verdicts = any_sandbox.run([Program(source, check=check) for source in expected])
    found = {source: verdict.outcome for source, verdict in zip(expected, verdicts, strict=True)}
    assert found == expected


@pytest.mark.parametrize(
    ("code", "outcome", "detail"),
    [
        ("assert f(", Outcome.HARNESS_ERROR, "SyntaxError"),
        ("assert f('a' * 2_000_000)", Outcome.OUTPUT_LIMIT, "the test passes a value longer than the limit"),
        ("assert f(1) < 'a'", Outcome.FAILED, "TypeError"),  # what a result of another type does to a test
        ("import sys\nsys.exit(0)", Outcome.FAILED, "SystemExit"),
        ("assert f(1) == missing", Outcome.ERROR, "NameError: name 'missing' is not defined"),
    ],
)
def test_broken_tests_do_not_pass_and_are_told_apart(any_sandbox, code, outcome, detail):
    verdict = asked(any_sandbox, DOUBLE, code)
    assert verdict.outcome is outcome and detail in verdict.detail, verdict


def test_the_context_is_trusted_and_the_programs_own_helper_is_not_asked(any_sandbox):
    context = "def helper(x):\n    return x\n\ndef f(x):\n    pass\n"
    cheat = "def f(x): return 1\ndef helper(x): return 1"
    assert asked(any_sandbox, cheat, "assert f(5) == helper(5)", context).outcome is Outcome.FAILED
    assert asked(any_sandbox, "def f(x): return x", "assert f(5) == helper(5)", context).passed
    broken = asked(any_sandbox, DOUBLE, "one = 1\nassert f(one) == 2", "1 / 0")
    assert broken.outcome is Outcome.HARNESS_ERROR and "ZeroDivisionError" in broken.detail


def test_tests_of_one_program_are_not_in_the_memory_of_the_next(any_sandbox):
    """Read raw, around where objects lie; the marker is put together so that the searcher does not find itself."""
    marker = "assert f('se' + 'cret') == 'needle-" + "x" * 40 + "'"
    search = """
import ctypes
def f(x):
    needle = b'needle-' + b'x' * 40
    base = id(object()) & ~0xffff
    data = ctypes.string_at(base, 1 << 16)
    return 'needle-' + 'x' * 40 if data.count(needle) > 1 else 'nothing'
"""
    programs = [Program(search, check=Check(marker, entry_points=("f",)))] * 6
    assert not any(verdict.passed for verdict in any_sandbox.run(programs))


# --- output -----------------------------------------------------------------------------------------------------------


PRINTS = [
    ("print(int(input()) * 2)", Outcome.PASSED, ""),
    ("import sys\nprint(sum(map(int, sys.stdin)) * 2)\nsys.exit(0)", Outcome.PASSED, ""),
    ("import sys\nsys.stdout.write(str(2 * int(sys.stdin.read())) + '  \\r\\n\\n')", Outcome.PASSED, ""),
    ("import threading\nthreading.Thread(target=lambda: print(2 * int(input()))).start()", Outcome.PASSED, ""),
    ("import sys\nprint('note', file=sys.stderr)\nprint(2 * int(input()))", Outcome.PASSED, ""),
    ("print(2 * int(input()), end='')\nimport os, sys\nsys.stdout.flush()\nos._exit(0)", Outcome.PASSED, ""),
    ("print(6)", Outcome.FAILED, "case 1: expected '-8', got '6'"),
    ("print()", Outcome.FAILED, "case 0: expected '6', got ''"),
    ("print(int(input()) * 2)\nraise SystemExit(1)", Outcome.ERROR, "case 0: SystemExit: 1"),
    ("print(int(input()) * 2)\n1 / 0", Outcome.ERROR, "case 0: ZeroDivisionError: division by zero (line 2)"),
    ("input(); input()", Outcome.ERROR, "case 0: EOFError"),
    ("print(", Outcome.SYNTAX_ERROR, "SyntaxError"),
    ("while True: pass", Outcome.TIMEOUT, "case 0: no end within the time limit"),
    ("while True: print('a' * 999)", Outcome.OUTPUT_LIMIT, "case 0: more output"),
]


def test_what_a_program_prints_is_compared_here(any_sandbox):
    cases = (IOCase("3\n", "6"), IOCase("-4\n", "-8\n"))
    verdicts = any_sandbox.run([Program(source, cases) for source, *_ in PRINTS])
    for (source, outcome, detail), verdict in zip(PRINTS, verdicts, strict=True):
        assert verdict.outcome is outcome and detail in verdict.detail, (source, verdict)


def test_large_input_is_read_whole(any_sandbox):
    text = "7" * 2_000_000  # more than a program may write
    assert any_sandbox.run([Program("print(len(input()))", (IOCase(text, "2000000"),))])[0].passed


def test_kinds_of_tests_do_not_mix(any_sandbox):
    check = Check("assert f(1) == 2", entry_points=("f",))
    mixed = [Program(DOUBLE, (Case("f(1)", "2"),), check), Program(DOUBLE, (Case("f(1)", "2"), IOCase("", "")))]
    assert {verdict.outcome for verdict in any_sandbox.run(mixed)} == {Outcome.HARNESS_ERROR}


def test_order_and_verdicts_do_not_depend_on_what_runs_beside(any_sandbox):
    bodies = ["return 2 * x", "return x", "raise KeyError(x)", "import time; time.sleep(0.01); return 2 * x", "x +"]
    programs = []
    for i in range(60):
        source = f"def f(x):\n    {bodies[i % 5]}\nprint(f(1))"
        kinds = {"check": Check(f"assert f({i}) == {2 * i}", entry_points=("f",))}
        programs.append(Program(source, **(kinds if i % 2 else {"cases": (IOCase("", "2"),)})))
    verdicts = any_sandbox.run(programs)
    assert any_sandbox.run(list(reversed(programs))) == list(reversed(verdicts))
    expected = [Outcome.PASSED, Outcome.FAILED, Outcome.ERROR, Outcome.PASSED, Outcome.SYNTAX_ERROR]
    # f(1) runs with the source: where it raises, that is before any test.
    assert [verdict.outcome for verdict in verdicts] == expected * 12


# --- licences ---------------------------------------------------------------------------------------------------------

HALVES = """
class Half:
    def __init__(self, n):
        self.n = n
    def __eq__(self, other):
        return self.n == 2 * other
def f(x):
    return Half(x) if x % 2 else x // 2
"""
AGREES = "class Any:\n    __eq__ = lambda self, other: True\ndef f(x): return Any()"


def test_a_licence_is_what_the_reference_needed_where_it_needed_it(any_sandbox):
    code = "assert f(4) == 2\nassert f(3) == 1.5"
    reference = asked(any_sandbox, HALVES, code, licence=None)
    assert reference.passed and len(reference.licence) == 1 and "__eq__ float" in reference.licence[0]
    assert asked(any_sandbox, HALVES, code, licence=reference.licence) == Verdict(Outcome.PASSED)
    assert asked(any_sandbox, HALVES, code).outcome is Outcome.FAILED  # the default: none
    # What agrees with everything does so only where the reference's own method decides.
    agreeing = asked(any_sandbox, AGREES, code, licence=reference.licence)
    assert (agreeing.outcome, agreeing.case) == (Outcome.FAILED, 0)
    moved = asked(any_sandbox, AGREES, "y = 0\nassert f(4) == 2\nassert f(3) == 1.5", licence=reference.licence)
    assert (moved.outcome, moved.case) == (Outcome.FAILED, 0)


def test_a_reference_that_needs_nothing_has_no_licence_and_samples_take_the_short_way(any_sandbox):
    reference = asked(any_sandbox, DOUBLE, "assert f(2) == 4", licence=None)
    assert reference == Verdict(Outcome.PASSED)
    assert equalities(Check("assert f(2) == 4", entry_points=("f",))) is not None
    assert equalities(Check("assert f(2) == 4", entry_points=("f",), licence=None)) is None


def test_an_end_that_the_test_takes_for_an_error_is_none_that_it_may_expect(any_sandbox):
    code = "two = f(1)\ntry:\n    f(0)\nexcept:\n    pass"
    for end in ("os._exit(0)", "os.kill(os.getpid(), 9)", "print('a' * 10 ** 9)", "return 'a' * 3_000_000"):
        source = f"import os\ndef f(x):\n    if x == 0:\n        {end}\n    return 2 * x"
        verdict = asked(any_sandbox, source, code)
        assert not verdict.passed and verdict.outcome is not Outcome.HARNESS_ERROR, (end, verdict)


def test_names_of_the_library_that_only_a_program_imports_are_the_checkers_own(any_sandbox):
    source = "import statistics as st\nfrom math import isclose\ndef f(x): return st.mean(x)\n"
    code = "y = [1, 2]\nassert st.mean(y) == f(y) == 1.5\nassert isclose(f(y), 1.5)"
    reference = asked(any_sandbox, source, code, licence=None)
    assert reference.licence == ("name isclose math:isclose", "name st statistics:")
    assert asked(any_sandbox, source, code, licence=reference.licence).passed
    lies = "class st:\n    mean = staticmethod(lambda y: 0)\nisclose = lambda *a: True\ndef f(x): return 0\n"
    assert asked(any_sandbox, lies, code, licence=reference.licence).case == 0
    close = "y = 1\nassert isclose(f(y), 1.5)"
    assert asked(any_sandbox, lies, close, licence=reference.licence).outcome is Outcome.FAILED
    lies = "class statistics:\n    mean = staticmethod(lambda y: 1)\ndef f(x): return 0\n"
    assert not asked(any_sandbox, lies, "y = [f(1), 1]\nassert statistics.mean(y) == 1").passed
