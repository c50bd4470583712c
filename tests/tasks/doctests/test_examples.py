"""Examples as test code: doctest's rules where they make sense, and the prose that stays."""

from textwrap import dedent

import pytest

from lit_pref.tasks.doctests.examples import Docstring, Own, cases_of, check_shown, context_of
from lit_pref.tasks.doctests.needs import UnfitError

NONE = Own(set(), {}, set())


def code_of(text: str, own: Own = NONE, prints: bool = False) -> list[str]:
    return [case.code for case in cases_of(Docstring(dedent(text)), own, prints)]


def holds(code: str, **names: object) -> bool:
    """Whether the test code passes for what the names mean."""
    try:
        exec(compile(context_of(code) + code, "<test>", "exec"), dict(names))
    except AssertionError:
        return False
    return True


@pytest.mark.parametrize(
    ("example", "right", "wrong"),
    [
        (">>> f(1)\n[1, 2]", [1, 2], [2, 1]),
        (">>> f(1)\n{'a': 1, 'b': 2}", {"b": 2, "a": 1}, {"a": 1}),  # doctest itself minds the order
        (">>> f(1)\n{'b', 'a'}", {"a", "b"}, {"a"}),
        (">>> f(1) is None\nTrue", None, 1),  # not `f(1) is (None == True)`
        (">>> f(1)\n'ab...'", "ab...", "abc"),  # a literal, and no ellipsis
        (">>> f(1)  # doctest: +ELLIPSIS\n'ab...'", "abc", "b"),
        (">>> f(1)\n[0, 1, ..., 9]", list(range(10)), [0, 1]),
        (">>> f(1)\n3.14...", 3.14159, 2.71828),
        (">>> f(1)\nrange(0, 3)", range(3), range(4)),
        (">>> f(1)\n[range(0, 3),\n range(1, 3)]", [range(3), range(1, 3)], [range(3)]),
        (">>> f(1)  # doctest: +NORMALIZE_WHITESPACE\nslice(1,   2,  None)", slice(1, 2), slice(1, 3)),
        (">>> print(f(1))\na\n<BLANKLINE>\nb", "a\n\nb", "a\nb"),
        (">>> for x in f(1):\n...     print(x)\n1\n2", [1, 2], [2, 1]),
        (">>> f(1)  # doctest: +SKIP\n{'a': 1}", {"a": 1}, {}),  # most are skipped for an order
    ],
)
def test_a_result_is_compared(example, right, wrong):
    (code,) = code_of(example)
    assert holds(code, f=lambda _: right)
    assert not holds(code, f=lambda _: wrong)


def test_an_error_is_compared_by_its_class():
    (code,) = code_of(">>> f(1)\nTraceback (most recent call last):\n    ...\njson.JSONDecodeError: whatever it says")

    class JSONDecodeError(Exception):
        pass

    def raising(error):
        def f(_):
            raise error

        return f

    assert holds(code, f=raising(JSONDecodeError("other words")))
    assert not holds(code, f=raising(ValueError("whatever it says")))
    assert not holds(code, f=lambda _: 1)


def test_what_a_function_prints_is_compared_and_so_is_what_it_then_gives():
    (code,) = code_of(">>> f(1)\none\n2", prints=True)

    def shows(first, given):
        def f(_):
            print(first)
            return given

        return f

    assert holds(code, f=shows("one", 2))
    assert not holds(code, f=shows("one", 3))
    assert not holds(code, f=shows("two", 2))


def test_set_ups_run_and_results_that_no_text_tells_are_not_compared():
    told = ">>> it = f(1)\n>>> it\n<generator object f at 0x7f0012345678>\n>>> next(it)\n1\n>>> %time f(1)\n1\n"
    assert code_of(told) == ["it = f(1)", "it", "assert next(it) == 1"]
    assert [case.compared for case in cases_of(Docstring(told), NONE, False)] == [False, False, True]


def test_the_packages_own_imports_go_and_its_modules_mean_themselves():
    text = ">>> import kit as k, kit.more\n>>> from kit import f as g\n>>> k.f(kit.more.f(g(1)))\n1\n"
    docstring = Docstring(text)
    own = Own({"k", "kit.more"}, {}, {docstring.statements[0][0], docstring.statements[1][0]})
    assert [case.code for case in cases_of(docstring, own, False)] == ["g = f", "assert f(f(g(1))) == 1"]


# --- prose ------------------------------------------------------------------------------------------------------------

TOLD = Docstring(
    dedent("""\
    Twice a number, or text.

    Examples:
    ---------

        >>> f(2)
        4
        >>> f('a')
        'aa'

    Zero stays zero:

    >>> f(0)
    0
    """)
)


def test_hidden_examples_leave_no_trace_but_prose():
    assert TOLD.prose(0) == "Twice a number, or text.\n\nZero stays zero:"
    shown = TOLD.prose(1)
    assert "    >>> f(2)\n    4\n" in shown
    assert "Examples:" in shown
    assert "aa" not in shown
    assert TOLD.prose(3).count(">>>") == 3


def test_the_first_example_is_shown_where_another_gives_something_else():
    assert (TOLD.shown("none", [0, 1, 2]), TOLD.shown("first", [0, 1, 2]), TOLD.shown("all", [0, 1, 2])) == (0, 1, 3)
    assert TOLD.shown("first", [1, 2]) == 2  # what leads to it is shown too
    assert TOLD.shown("first", [0]) == 0
    same = Docstring("Told in words.\n\n>>> f(1)\n0\n>>> f(2)\n0\n")
    assert same.shown("first", [0, 1]) == 0
    with pytest.raises(ValueError, match="show_examples must be one of none, first, all, got 'some'"):
        check_shown("some")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("No examples here.", "no examples"),
        (">>>f(1)\n1\n", "examples that doctest cannot read"),
    ],
)
def test_a_docstring_that_tells_nothing_is_refused(text, reason):
    with pytest.raises(UnfitError) as refused:
        Docstring(text)
    assert refused.value.reason == reason


def test_examples_alone_are_no_description():
    with pytest.raises(UnfitError, match="no description"):
        Docstring("Example:\n\n>>> f(1)\n1\n").prose(1)
