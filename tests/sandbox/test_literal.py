"""Equality of results is equality of their canonical texts: strict in type, blind to the order of sets and dicts."""

from collections import Counter, OrderedDict, namedtuple

import pytest

from lit_pref.sandbox.literal import MAX_DEPTH, NotPlainError, canonical, canonical_literal


@pytest.mark.parametrize(
    ("value", "literal"),
    [
        (5, "5"),
        (-0.0, "0.0"),
        (1e22, "10000000000000000000000.0"),
        (float("inf"), "1e999"),
        (1j, "1j"),
        ("a\n'é\ud800", repr("a\n'é\ud800")),
        (b"\x00", "b'\\x00'"),
        (None, "None"),
        ((), "()"),
        ((1,), "(1,)"),
        ({"b": [1], "a": {2, 1}}, "{'a': {1, 2}, 'b': [1]}"),
        (set(), "set()"),
        ({}, "{}"),
    ],
)
def test_equal_values_have_equal_texts(value, literal):
    assert canonical(value) == canonical_literal(literal)
    assert canonical(value).isascii() and "\n" not in canonical(value)


@pytest.mark.parametrize(
    ("left", "right"),
    [(True, 1), (1, 1.0), ([1], (1,)), ({1}, {True}), ("1", 1), (b"a", "a"), ([], ()), ({}, set()), ([[1]], [[1.0]])],
)
def test_values_of_different_types_differ(left, right):
    assert canonical(left) != canonical(right)


class Liar(int):
    def __eq__(self, other):
        return True

    def __repr__(self):
        return "5"

    __hash__ = int.__hash__


@pytest.mark.parametrize(
    "value",
    [
        Liar(5),
        [Liar(5)],
        {Liar(5): 1},
        Counter("a"),
        OrderedDict(),
        namedtuple("P", "x")(1),
        frozenset(),
        range(3),
        len,
    ],
)
def test_only_exact_builtin_types_are_plain(value):
    with pytest.raises(NotPlainError, match="an object of type"):
        canonical(value)


def test_a_cycle_is_not_plain():
    cycle: list[object] = []
    cycle.append(cycle)
    with pytest.raises(NotPlainError, match=f"deeper than {MAX_DEPTH}"):
        canonical(cycle)


@pytest.mark.parametrize("text", ["f(1)", "[1", "", "nan", "{[]}", "1" * 5000, "(" * 5000])
def test_what_is_no_literal_says_so(text):
    with pytest.raises(ValueError, match="not a plain literal"):
        canonical_literal(text)
