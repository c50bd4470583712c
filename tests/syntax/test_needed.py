"""What a function needs of its program's top level when it runs, and what is only there to show it."""

import pytest

from lit_pref.syntax import extract_code, sanitize

TABLE = "table = []\ndef fill():\n    table.append(1)\n"
LOOKUP = "def f(n):\n    return table[n]\n"
DEEP = "def f(n):\n    return 0 if n == 0 else 1 + f(n - 1)\n"
NEEDED = {
    "a limit": ("import sys\n", "sys.setrecursionlimit(10000)", DEEP),
    "a limit by its name": ("from sys import setrecursionlimit\n", "setrecursionlimit(10000)", DEEP),
    "a limit that may be refused": (
        "import sys\n",
        "try:\n    sys.setrecursionlimit(10**9)\nexcept OverflowError:\n    pass",
        DEEP,
    ),
    "a precision": ("from decimal import getcontext\n", "getcontext().prec = 50", "def f(n):\n    return +n\n"),
    "a seed": ("import random\n", "random.seed(1)", "def f(n):\n    return random.random()\n"),
    "a patched module": ("import math\n", "math.twice = lambda x: 2 * x", "def f(n):\n    import math\n    return 1\n"),
    "a call that fills": (TABLE, "fill()", LOOKUP),
    "a call for its value that fills": (TABLE, "count = fill()", LOOKUP),
    "a call of what fills": (f"{TABLE}def go():\n    fill()\n", "go()", LOOKUP),
    "a call that fills with results": ("table = []\ndef go():\n    table.append(f(0))\n", "go()", LOOKUP),
    "a call that is handed the table": ("table = []\ndef fill(t):\n    t.append(1)\n", "fill(table)", LOOKUP),
    "a library's call that is handed it": ("import heapq\ntable = [2, 1]\n", "heapq.heapify(table)", LOOKUP),
    "a call that makes it": ("def make():\n    global table\n    table = [1]\n", "make()", LOOKUP),
    "a call of an inner function": (
        "table = []\ndef fill():\n    def one():\n        table.append(1)\n    one()\n",
        "fill()",
        LOOKUP,
    ),
    "a call of a lambda": ("table = []\nfill = lambda: table.append(1)\n", "fill()", LOOKUP),
    "a comprehension that fills": ("table = []\n", "[table.append(i) for i in range(3)]", LOOKUP),
    "a loop that fills": ("table = [1]\n", "while len(table) < 5:\n    table.append(2)", LOOKUP),
    "a deletion": ("table = {1: 2, 3: 4}\n", "del table[1]", LOOKUP),
    "a condition": ("import sys\n", "if sys.maxsize > 1:\n    table = [1]\nelse:\n    table = [2]", LOOKUP),
    "a method": ("class T(list):\n    def fill(self):\n        self.append(1)\ntable = T()\n", "table.fill()", LOOKUP),
    "an attribute by its text": ("class A: pass\n", "setattr(A, 'x', 1)", "def f(n):\n    return A.x\n"),
    "a name in a text": ("", "exec('table = [1]')", LOOKUP),
    "a wrapped function": ("from functools import cache\ndef f(n):\n    return n\n", "f = cache(f)", ""),
    "a registered function": (
        "table = {}\ndef add(name):\n    def add_it(g):\n        table[name] = g\n    return add_it\n",
        "@add('one')\ndef one(): return 1",
        LOOKUP,
    ),
    "a subclass": ("class A: pass\n", "class B(A): pass", "def f(n):\n    return len(A.__subclasses__())\n"),
}


@pytest.mark.parametrize(("before", "statement", "behind"), NEEDED.values(), ids=NEEDED.keys())
def test_what_changes_what_it_uses_is_kept(before, statement, behind):
    code = f"{before}{statement}\n{behind}"
    assert sanitize(f"{code}print(f(1))\n", "f") == code.strip() + "\n"


F = "def f(n):\n    return h(n)\ndef h(n):\n    return n\n"
SHOWN = {
    "a print": "print(f(1))",
    "a call": "f(10**9)",
    "calls of a helper": "h(1)\nx = h(2)",
    "a result": "x = f(1)\nprint(x)",
    "asserts": "tests = [1]\nfor x in tests:\n    assert f(x) == x",
    "a test function": "def test_f():\n    assert f(1) == 1\ntest_f()",
    "a program": "def main():\n    n = int(input())\n    print(f(n))\nmain()",
    "a program in a thread": "def main():\n    f(int(input()))\nthreading.Thread(target=main).start()",
    "input": "n = int(input())\nlines = sys.stdin.read()\nsys.stdout.write(str(f(n)))",
    "a test class": "class T(unittest.TestCase):\n    def test(self):\n        f(1)\nunittest.main()",
    "doctests": "doctest.testmod()",
    "an exit": "sys.exit(0)",
    "a guard": "if __name__ == '__main__':\n    f(1)",
    "an attempt": "try:\n    print(f('a'))\nexcept Exception as e:\n    print(e)",
}


@pytest.mark.parametrize("shown", SHOWN.values(), ids=SHOWN.keys())
def test_what_only_shows_it_goes(shown):
    imports = "import doctest, sys, threading, unittest\n"
    assert sanitize(f"{imports}{F}{shown}\n", "f") == imports + F


def test_what_its_tests_name_is_kept():
    code = "class Node: pass\nLIMIT = 3\nOTHER = 4\ndef f(n):\n    return n\n"
    assert sanitize(code, "f", ["Node", "LIMIT"]) == code.replace("OTHER = 4\n", "")


def test_a_limit_behind_a_body_and_in_a_block_of_its_own():
    text = f"{DEEP.partition(':')[2]}\nimport sys\nsys.setrecursionlimit(10000)\nprint(f(3))\n"
    code = extract_code(text, "f", "def f(n):\n").code
    assert "sys.setrecursionlimit(10000)" in code and "import sys" in code and "print" not in code
    code = extract_code(f"```python\nimport sys\nsys.setrecursionlimit(9)\n```\nand\n```python\n{DEEP}```", "f").code
    assert code == f"import sys\nsys.setrecursionlimit(9)\n{DEEP}"


def test_classes_and_docstrings_that_name_what_others_use_are_not_needed_by_these():
    # `range` and `partial` are another's, whatever a class does with them; a docstring that imports binds no module.
    shown = "class Range:\n    steps = list(range(3))\n    first = partial(max, 0)\n"
    told = 'def other():\n    """import f"""\n\nother.__doc__ += "more"\n'
    code = f"from functools import partial\n{shown}{told}def f(n):\n    return partial(sum, range(n))()\n"
    assert sanitize(code, "f") == "from functools import partial\ndef f(n):\n    return partial(sum, range(n))()\n"
