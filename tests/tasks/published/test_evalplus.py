"""EvalPlus' comparison and inputs: its rules one by one, and whole checks in the sandbox."""

import math

import pytest

from lit_pref.data.reading.rows import Row, RowError
from lit_pref.sandbox import default_sandbox
from lit_pref.tasks.published.evalplus import differential_check, hub_inputs, mbpp_arguments
from lit_pref.tasks.published.evalplus_oracle import LARGEST, accepted, close, size, value
from lit_pref.types import Outcome, Program


@pytest.mark.parametrize(
    ("result", "expected", "atol", "right"),
    [
        (3, 3, 0, True),
        (3, 4, 0, False),
        (0.1 + 0.2, 0.3, 0, True),  # 4e-17 apart; a float's tolerance is 1e-6 where none is given
        (0.301, 0.3, 0, False),
        ([0.1 + 0.2, 1.0], [0.3, 1.0], 0, True),
        ([0.3], [0.3, 1.0], 0, False),
        ((0.1 + 0.2,), [0.3], 0, False),  # close, but of another type
        (1, 1.0, 0, True),  # equal
        (1, 1.0000001, 0, False),
        (1.04, 1.0, 0.05, True),
        (1.06, 1.0, 0.05, False),
        ([], [], 0, True),
        (math.inf, math.inf, 0, True),
        ("a", "b", 0.1, False),
        (None, 0.5, 0, False),
    ],
)
def test_results_are_equal_or_close_where_the_reference_gives_floats(result, expected, atol, right):
    assert accepted("f", [], result, expected, atol) is right


@pytest.mark.parametrize(
    ("name", "arguments", "result", "expected", "right"),
    [
        ("similar_elements", [], (5, 4, 4), (4, 5), True),
        ("similar_elements", [], (4,), (4, 5), False),
        ("check_str", [], True, "a match", True),
        ("check_str", [], "another match", "a match", True),
        ("check_str", [], None, "a match", False),
        ("check_str", [], False, None, True),
        ("are_equivalent", [], False, True, True),
        ("sum_div", [7], 0, 1, True),
        ("sum_div", [7], 8, 1, False),
        # 3² + 2·3·√(1.5² + 4²) = 9 + 6·4.2720 = 34.63, rounded 35; with 4 as the side's height 9 + 2·3·4 = 33
        ("surface_Area", [3, 4], 35, 33, True),
        ("surface_Area", [3, 4], 34, 33, False),
        # 23 and 056: |0−0| + |2−5| + |3−6| = 6
        ("digit_distance_nums", [23, 56], 6, 6, True),
        ("digit_distance_nums", [1, 256], 12, 9, True),  # 001 and 256: 2 + 5 + 5 = 12
        ("digit_distance_nums", [1, 256], 11, 9, False),
        # x² − 3x + 2 has roots 1 and 2; at 1.1 it is −0.09, at the reference's 0.9 it is 0.11
        ("find_zero", [[2, -3, 1]], 2, 1, True),
        ("find_zero", [[2, -3, 1]], 1.1, 1, False),
        ("find_zero", [[2, -3, 1]], 1.1, 0.9, True),
    ],
)
def test_special_cases(name, arguments, result, expected, right):
    assert accepted(name, arguments, result, expected, 0) is right


def test_close_goes_into_lists_and_stays_out_of_text():
    assert close([[1.0], (2.0 + 1e-8,)], [[1.0], (2.0,)], 1e-7)
    assert not close([["a"]], [["b"]], 1.0)
    assert close(100.000001, 100.0, 0)  # 1e-6 of the 1e-7 · 100 = 1e-5 that are allowed
    assert not close(100.0001, 100.0, 0)


@pytest.mark.parametrize(
    "given",
    [
        [1, [2.5, -3e-9], 10**30],
        ["it's \"", "a\\/\n\x00\u2192\U0001f600"],
        [True, None],
        [(1,), {2}, set(), 1j],
        [{"a": 1}, {1: 2}],
    ],
)
def test_values_come_back_from_their_source(given):
    assert repr(value(repr(given))) == repr(given)


def test_infinities_come_back():
    assert value("[inf, -inf]") == [math.inf, -math.inf] and math.isnan(value("nan"))


def test_sizes():
    assert size("x" * 7) == 7
    assert size(10**300) == 997 // 3  # 997 bits
    assert size([1, "ab"]) == (0 + 2) + (2 + 2)  # a comma and a blank each
    assert size({"a": "bc"}) == 1 + 2 + 2


def verdicts(check, *sources):
    return [verdict.outcome for verdict in default_sandbox().run([Program(each, check=check) for each in sources])]


def test_a_reference_that_calls_itself_stays_apart_from_the_program():
    reference = "def fib(n):\n    return n if n < 2 else fib(n - 1) + fib(n - 2)\n"
    check = differential_check(reference, "fib", ["[1]", "[7]", "[12]"], 0)
    wrong = "def fib(n):\n    return n\n"
    assert verdicts(check, reference, wrong) == [Outcome.PASSED, Outcome.FAILED]


def test_a_function_may_bear_a_name_of_the_comparison():
    reference = "def accepted(close, size):\n    return [close / size]\n"
    check = differential_check(reference, "accepted", ["[1, 3]", "[inf, 2]"], 0)
    wrong = "def accepted(close, size):\n    return [close / size + 1]\n"
    assert verdicts(check, reference, wrong) == [Outcome.PASSED, Outcome.FAILED]


def test_arguments_that_a_program_changes_are_its_own():
    reference = "def last(items):\n    return items.pop()\n"
    check = differential_check(reference, "last", ["[[1, 2]]", "[[(3, {4})]]"], 0)
    assert verdicts(check, reference, "def last(items):\n    return items[0]\n") == [Outcome.PASSED, Outcome.FAILED]


def test_results_too_long_to_leave_the_sandbox_are_left_out():
    reference = "def repeat(n):\n    return 'ab' * n\n"
    check = differential_check(reference, "repeat", ["[3]", f"[{LARGEST}]"], 0)
    only_short = "def repeat(n):\n    return 'ababab' if n == 3 else None\n"
    assert verdicts(check, reference, only_short) == [Outcome.PASSED] * 2


def test_inputs_that_are_all_left_out_are_no_test():
    reference = "def repeat(n):\n    return 'ab' * n\n"
    check = differential_check(reference, "repeat", [f"[{LARGEST}]"], 0)
    assert verdicts(check, reference, "def repeat(n):\n    return 0\n") == [Outcome.HARNESS_ERROR] * 2


def test_a_broken_reference_is_no_fault_of_the_program():
    check = differential_check("def f(x):\n    return x / 0\n", "f", ["[1]"], 0)
    assert verdicts(check, "def f(x):\n    return x\n") == [Outcome.HARNESS_ERROR]


@pytest.mark.parametrize(
    ("test", "expected"),
    [
        ("x\ninputs = [[1], ['\\n']]\nresults = [2]\nfor i in inputs:\n    assertion(f(*inp), exp, 1e-06)\n", 1e-6),
        ("def check(c):\n    inputs = [[1], ['\\n']]\n    for inp in inputs:\n        g(c(*inp), f(*inp), 0)\n", 0),
        ("def check(c):\n    inputs = [[1], ['\\n']]\n    for x in y:\n        assert p(*c(*x), x) <= 0.0001\n", 1e-4),
    ],
    ids=["MBPP+", "HumanEval+, computed", "HumanEval+, root"],
)
def test_inputs_and_tolerance_of_the_hubs_tests(test, expected):
    assert hub_inputs(Row("here", {"test": test})) == (["[1]", "['\\n']"], expected)


def test_a_test_of_another_kind():
    with pytest.raises(RowError, match=r'here: expected a "test" as EvalPlus writes it.*got .assert f'):
        hub_inputs(Row("here", {"test": "assert f(1) == 2"}))


@pytest.mark.parametrize(
    ("number", "written", "expected"),
    [
        (3, [[1, [2]]], [[1, [2]]]),
        (2, [[[3, 4], [5]]], [[(3, 4), (5,)]]),
        (63, [[[[3, 5], [1, 7]]]], [[[(3, 5), (1, 7)]]]),
        (75, [[[[6, 24]], 6]], [[[(6, 24)], 6]]),
        (106, [[[5], [6, 7]]], [[[5], (6, 7)]]),
        (115, [[[[1, 2], [], 3]]], [[[{1, 2}, {}, {}]]]),
        (124, [["0.5", "1j"]], [[0.5, 1j]]),
        (250, [[[1, 2], [3]]], [[(1, 2), [3]]]),
        (252, [["1+2j"]], [[1 + 2j]]),
        (278, [[[1, [4, [6]], 10]]], [[(1, (4, [6]), 10)]]),
        (259, [[[[1, 3]], [[6, 7]]]], [[((1, 3),), ((6, 7),)]]),
        (580, [[[4, [7, [8]]]]], [[(4, (7, (8,)))]]),
        (722, [[{"a": [6.2, 70]}, 6.0]], [[{"a": (6.2, 70)}, 6.0]]),
    ],
)
def test_arguments_of_mbpp_get_their_types_back(number, written, expected):
    made = mbpp_arguments(number, written)
    assert made == expected and repr(made) == repr(expected)
