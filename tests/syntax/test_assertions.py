"""Test code taken apart into assertions that stand alone, and into calls."""

import pytest

from lit_pref.syntax.assertions import assertions, joined, literal_calls


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("assert f(1) == 2\nassert f(2) == 3\n", [("assert f(1) == 2",), ("assert f(2) == 3",)]),
        ("assert f(1) == 2\nassert f(1) == 2\n", [("assert f(1) == 2",)]),
        ("assert True\nassert g(1)\nprint(f(1))\n", []),
        ("assert f(\n    1,\n) == 2, 'one'\n", [("assert f(\n    1,\n) == 2, 'one'",)]),
        ("import math\nassert f(1) == math.pi\n", [("import math", "assert f(1) == math.pi")]),
        ("import math\nassert f(1) == 1\n", [("assert f(1) == 1",)]),
        ("x = f(1)\nassert f(x) == 2\n", [("x = f(1)", "assert f(x) == 2")]),
        ("assert f(x) == 2\nx = 1\n", [("assert f(x) == 2",)]),  # what comes later is no help
        ("def f(x):\n    return 2\nassert f(1) == 2\n", [("assert f(1) == 2",)]),  # the program's, not the test's
        ("for i in [1, 2]:\n    assert f(i) == i\n", [("for i in [1, 2]:\n    assert f(i) == i",)]),
        (
            'def test_f():\n    """Two."""\n    assert f(1) == 2\n    # why\n    assert f(2) == 3\n    assert g(3)\n',
            [("assert f(1) == 2",), ("assert f(2) == 3",)],
        ),
        (
            "def test_f():\n    x = f(1)\n    assert x == 2\n",
            [("def test_f():\n    x = f(1)\n    assert x == 2", "test_f()")],
        ),
        (
            "ONE = 1\ndef check(candidate):\n    assert candidate(ONE) == 2\ncheck(f)\n",
            [("ONE = 1", "def check(candidate):\n    assert candidate(ONE) == 2", "check(f)")],
        ),
        ("def test_f(a, b):\n    assert f(a) == b\n", []),
        ("@parametrize\ndef test_f():\n    assert f(1)\n", []),
        ("class TestF:\n    def test_f(self):\n        assert f(1)\n", []),
        ("assert f(1 == 2\n", []),
    ],
)
def test_assertions_stand_alone(source, expected):
    assert assertions(source, "f") == expected


def test_together_they_run_in_their_order_with_what_they_share_once():
    source = "import math\nx = 1\nassert f(x) == math.e\nx = 2\nassert f(x) == math.pi\n"
    parts = assertions(source, "f")
    assert parts[1] == ("import math", "x = 1", "x = 2", "assert f(x) == math.pi")
    assert joined(parts) == source


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("assert f(1) == 2\nassert 3 == f([1, (2,)], k='a')\n", ["f(1)", "f([1, (2,)], k='a')"]),
        ("assert f(1) == f(1)\n", ["f(1)"]),
        ("assert f(f(1)) == 1\n", ["f(f(1))"]),
        ("assert sorted(f(set(range(3)))) == []\n", ["f(set(range(3)))"]),
        ("x = 1\nassert f(x)\nassert g(f(2))\n", ["f(2)"]),
        ("assert f([i for i in range(3)])\n", ["f([i for i in range(3)])"]),
        ("assert x.f(1)\n", []),
        ("f(1", []),
    ],
)
def test_calls_name_nothing_but_builtins(source, expected):
    assert literal_calls(source, "f") == expected
