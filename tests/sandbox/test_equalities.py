"""Test code taken apart into equalities, and texts that are equal exactly where Python says that values are."""

import itertools
from collections import Counter, OrderedDict, namedtuple
from decimal import Decimal
from fractions import Fraction

import pytest

from lit_pref.sandbox.equalities import equalities
from lit_pref.sandbox.literal import NotPlainError, loose
from lit_pref.types import Check


def taken_apart(code):
    found = equalities(Check(code, entry_points=("f", "g")))
    return None if found is None else [(each.call, each.expected, each.number) for each in found]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("assert f(1, [2]) == -3", [("f(1, [2])", "-3", 0)]),
        ("assert f(x=(1,)) == {'a': 2}, 'why'\nassert g() == 2.0", [("f(x=(1,))", "{'a': 2:}", 0), ("g()", "2", 1)]),
        ("'words'\nMETADATA = {'author': 'x'}\npass\nassert f(0) == 0", [("f(0)", "0", 0)]),
        (
            "def check(c):\n    'Words.'\n    assert True, 'x'\n    assert c('a') == 'b'\n\ncheck(f)\n",
            [("f('a')", "'b'", 1)],
        ),
        ("M = 1\ndef check(f):\n    assert f(2) == 4\ncheck(g)", [("g(2)", "4", 0)]),
    ],
)
def test_equalities_are_found(code, expected):
    assert taken_apart(code) == expected


@pytest.mark.parametrize(
    "code",
    [
        *(
            "",
            "pass",
            "assert True",
            "assert f(1)",
            "assert not f(1) == 2",
            "assert f(1) != 2",
            "assert f(1) == 2 == 2",
        ),
        *("assert f(x) == 2", "assert f(1) == x", "assert f(1) == f(1)", "assert f(1) == [1] * 2", "assert h(1) == 2"),
        *(
            "assert f(1)[0] == 2",
            "assert 2 == f(1)",
            "assert f(*[1]) == 2",
            "assert f(**{}) == 2",
            "assert f(1) is True",
        ),
        *("assert f(", "import os\nassert f(1) == 2", "f = 1\nassert f(1) == 2", "assert False\nassert f(1) == 2"),
        *(
            "for i in range(3):\n    assert f(1) == 2",
            "assert f(1) == 2\nraise ValueError",
            "assert f(1) == 1e999 - 1e999",
        ),
        "def check(c):\n    assert c(1) == 2",  # never called
        "def check(c):\n    assert c(1) == 2\ncheck(h)",
        "def check(c):\n    assert c(1) == 2\ncheck(f, 1)",
        "def check(c, d=1):\n    assert c(1) == 2\ncheck(f)",
        "@skip\ndef check(c):\n    assert c(1) == 2\ncheck(f)",
        "def check(c):\n    return\n    assert c(1) == 2\ncheck(f)",
        "def check(c):\n    assert c(1) == 2\n    f = 3\ncheck(f)",
        "def check(c):\n    assert c(1) == 2\ncheck(f)\ncheck(g)",
    ],
)
def test_anything_else_is_a_checkers_work(code):
    assert taken_apart(code) is None


Point = namedtuple("Point", "x y")
VALUES = [0, 0.0, -0.0, False, 1, 1.0, True, 1 + 0j, 1j, 2, 0.5, 10**30, float(10**30), float("inf"), -float("inf")]
VALUES += [
    "",
    "1",
    "a",
    b"",
    b"a",
    bytearray(b"a"),
    None,
    [],
    (),
    {},
    set(),
    frozenset(),
    [1],
    (1,),
    [True],
    {1},
    {1.0},
]
VALUES += [frozenset([1]), {1: 2}, {1.0: 2}, {True: 2.0}, {"1": 2}, {1: 2, 3: 4}, {3: 4, 1: 2}, [[1], []], [[1, []]]]
VALUES += [
    Decimal(2),
    Decimal("0.5"),
    Decimal("0.1"),
    0.1,
    Fraction(1, 2),
    Fraction(1, 3),
    1 / 3,
    Fraction(2),
    Fraction(1, 10),
]
VALUES += [Decimal("-0"), Decimal(10) ** 30, Fraction(10**400, 3), 10**400]
VALUES += [(1, 2), Point(1, 2), Counter("a"), {"a": 1}, OrderedDict(a=1), [None], ["None"], "[1, ]", [1, 2], ["1, 2"]]


@pytest.mark.filterwarnings("ignore::BytesWarning")
def test_texts_are_equal_exactly_where_values_are():
    for one, other in itertools.product(VALUES, repeat=2):
        assert (loose(one) == loose(other)) == (one == other), (one, other)


@pytest.mark.parametrize(
    "value",
    [float("nan"), [float("nan")], object(), len, range(3), ..., complex("nan"), Decimal("Infinity"), Decimal("nan")],
)
def test_what_is_no_plain_value_or_equals_nothing_has_no_text(value):
    with pytest.raises(NotPlainError):
        loose(value)


def test_a_lying_subclass_counts_as_what_it_holds():
    class Liar(str):
        __eq__ = lambda self, other: True  # noqa: E731
        __hash__ = str.__hash__
        __str__ = __repr__ = lambda self: "'lie'"

    assert loose(Liar("truth")) == loose("truth")

    class Pretender:
        __class__ = int
        __eq__ = lambda self, other: True  # noqa: E731
        __hash__ = object.__hash__

    with pytest.raises(NotPlainError):
        loose(Pretender())
