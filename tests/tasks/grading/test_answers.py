"""Final answers: where they stand in a solution, and which of them are the same."""

import sys
import threading
from fractions import Fraction

import pytest

from lit_pref.tasks.grading.answers import boxed, final_latex, final_number, to_number, written_alike
from lit_pref.tasks.grading.latex_equality import LatexJudge, compare_latex
from lit_pref.types import Outcome


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("48 / 2 = 24 clips.\n#### 72", 72),
        ("#### 1,234,567", 1_234_567),
        ("The answer is 42.", 42),
        ("The final answer is: $18.50.", Fraction(37, 2)),
        ("**Answer:** 2 + 3 = 5 apples", 5),
        ("**Answer**: -7", -7),
        ("Answer:\n\n−3", -3),
        ("the answer is -$5", -5),
        ("so $\\boxed{12}$ it is", 12),
        ("The answer is 25%.", 25),
        ("The answer is 3/4 of it", Fraction(3, 4)),
        ("The answer is 10-7=3", 3),
        ("The answer is 5.\nWait.\n#### 6", 6),  # the last mark
        ("#### 4\nThe answer is clear", 4),  # the last one that has a number
        ("it is 7", None),
        ("The answer is not known", None),
        ("#### 1/0", None),
    ],
)
def test_numbers_stand_behind_marks(text: str, expected: Fraction | int | None) -> None:
    assert final_number(text) == expected


def test_anywhere_means_the_last_number_where_no_mark_stands() -> None:
    assert final_number("first 3, then 1,000 in all.", anywhere=True) == 1000
    assert final_number("The answer is 3. I checked it 4 times", anywhere=True) == 3
    assert final_number("none", anywhere=True) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [("42", 42), ("$1,000 ", 1000), ("2.50 dollars", Fraction(5, 2)), ("1,2", None), ("10-5", None), ("", None)],
)
def test_a_number_stands_alone(text: str, expected: Fraction | int | None) -> None:
    assert to_number(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"first $\boxed{1}$, then $\boxed{\frac{1}{2}}$.", r"\frac{1}{2}"),
        (r"\fbox{x^{2}}", "x^{2}"),
        (r"$\boxed{\{1, 2\}}$", r"\{1, 2\}"),
        (r"$\boxed 5$", "5"),
        ("The final answer is $x + 1$. I hope it is correct.", "x + 1"),
        (r"The answer is \(y\).", "y"),
        ("The answer is x+1.", "x+1"),
        (r"The answer is \boxed{3}.", "3"),
        (r"The answer is 4. \boxed{5", "4. \\boxed{5"),  # never closed: the earlier mark
        (r"$\boxed{}$", None),
        ("x = 3", None),
    ],
)
def test_latex_stands_in_the_last_box_or_behind_a_mark(text: str, expected: str | None) -> None:
    assert final_latex(text) == expected


def test_a_box_ends_where_its_braces_balance() -> None:
    assert boxed(r"\boxed{a{b}c}d}") == "a{b}c"
    assert boxed(r"\boxed{a\}b}") == r"a\}b"
    assert boxed(r"\boxed{a{b}") is None


def test_spelling_alike() -> None:
    assert written_alike(r"\left( 3, \dfrac{1}{2} \right)", r"(3,\frac{1}{2})")
    assert written_alike(r"\text{June 20}", "June 20")
    assert not written_alike(r"\text{June 20}", "June 21")


SAME = [
    (r"\frac12", "0.5"),
    (r"2\sqrt{3}", r"\sqrt{12}"),
    ("x^2+2x+1", "(x+1)^2"),
    (r"\$18.90", "18.9"),
    ("12,345", "12345"),
    (r"90^\circ", "90"),
    (r"11\text{ cm}", "11"),
    ("5", "x = 5"),
    (r"\text{(B)}", "B"),
    ("[0,1)", "[0, 1)"),
]
DIFFERENT = [(r"\frac13", "0.333"), ("[0,1)", "[0,1]"), ("3", "3.0000001"), (r"\text{even}", "odd"), ("1", r"\foo{")]


def test_latex_is_compared_by_what_it_means() -> None:
    assert compare_latex(SAME) == [Outcome.PASSED] * len(SAME)
    assert compare_latex(DIFFERENT) == [Outcome.FAILED] * len(DIFFERENT)


def test_from_another_thread_too() -> None:
    # math-verify's own time limit, a signal, raises there.
    found: list[Outcome] = []
    thread = threading.Thread(target=lambda: found.extend(compare_latex([SAME[0], DIFFERENT[0], SAME[0]])))
    thread.start()
    thread.join()
    assert found == [Outcome.PASSED, Outcome.FAILED, Outcome.PASSED]


def test_an_endless_comparison_is_given_up_and_the_next_one_goes_on() -> None:
    judge = LatexJudge(seconds=1.0)
    assert judge.compare("2", "9^{9^{9^9}}") is Outcome.TIMEOUT
    assert judge.compare("2", "4/2") is Outcome.PASSED
    judge.close()


def test_a_process_that_ends_is_a_crash_and_the_next_one_goes_on() -> None:
    judge = LatexJudge()
    assert judge.compare("2", "4/2") is Outcome.PASSED
    assert judge._process is not None
    judge._process.kill()
    judge._process.wait()
    assert judge.compare("2", "4/2") is Outcome.KILLED
    assert judge.compare("2", "4/2") is Outcome.PASSED
    judge.close()


def test_a_process_that_does_not_start_says_how_to_see_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="math-verify does not start; what it says: /bin/false -P"):
        LatexJudge().compare("1", "2")
    with pytest.raises(ValueError, match="seconds must be > 0, got 0"):
        LatexJudge(0)


def test_a_number_of_thousands_of_digits_is_none():
    assert final_number(f"The answer is {'1' * 5_000}.") is None
    assert final_number(f"#### 1/{'1' * 5_000}") is None
    assert to_number("1" * 5_000) is None
