import pytest

from lit_pref.evaluation.grading import HarnessError, counts, problems_of, ungraded
from lit_pref.sampling.grading import grade
from lit_pref.tasks import CodeTask
from lit_pref.types import Outcome, Problem, Task, Verdict


class Lengths(Task):
    """Passes texts of even length and counts what it was asked."""

    name = "lengths"

    def __init__(self) -> None:
        self.graded = []

    def problems(self, split, count, seed):
        return [Problem(f"{split} {seed} {i}", "", "") for i in range(count)]

    def grade(self, problems, completions):
        self.graded += [(problem.id, text) for problem, text in zip(problems, completions, strict=True)]
        return [Verdict(Outcome.FAILED if len(text) % 2 else Outcome.PASSED, detail=text) for text in completions]


class Three(Lengths):
    def size(self, split):
        return 3


def test_equal_texts_of_a_problem_are_run_once():
    task = Lengths()
    verdicts = grade(task, task.problems("test", 2, 0), [["ab", "c", "ab"], ["c", "", "ab"]])
    assert task.graded == [(f"test 0 {i}", text) for i, text in [(0, "ab"), (0, "c"), (1, "c"), (1, ""), (1, "ab")]]
    assert [[verdict.detail for verdict in several] for several in verdicts] == [["ab", "c", "ab"], ["c", "", "ab"]]
    assert [[verdict.passed for verdict in several] for several in verdicts] == [
        [True, False, True],
        [False, True, True],
    ]


@pytest.mark.parametrize(("task", "count", "expected"), [(Lengths(), None, 1000), (Three(), None, 3), (Three(), 2, 2)])
def test_all_of_a_benchmark_and_a_thousand_of_a_task_without_end(task, count, expected):
    problems = problems_of(task, "validation", count, seed=7)
    assert len(problems) == expected and problems[-1].id == f"validation 7 {expected - 1}"


def test_the_embedded_task_has_no_end():
    assert len(problems_of(CodeTask(), "test", None, seed=0)) == 1000


def test_counts_of_each_problem():
    outcomes = ("passed no_code", "no_code error", "harness_error passed")
    verdicts = [[Verdict(Outcome(name)) for name in several.split()] for several in outcomes]
    found = counts(verdicts, [[True, False], [False, False], [True, True]])
    assert [each.tolist() for each in found] == [[1, 0, 1], [1, 1, 0], [1, 2, 0], [0, 0, 1]]


def test_a_failure_of_the_harness_is_none_of_the_models():
    fine, broken = Verdict(Outcome.PASSED), Verdict(Outcome.HARNESS_ERROR, detail="no process")
    assert ungraded([[fine], [fine]], needed=2) == {}  # too few samples are another matter
    several = [[fine, broken], [broken, broken], [fine, fine]]
    assert ungraded(several, needed=1) == {1: "no process"}
    assert ungraded(several, needed=2) == {0: "no process", 1: "no process"}
    with pytest.raises(HarnessError, match="3 of 4 gradings failed; the first: no process"):
        ungraded(several[:2], needed=2)


def test_no_problem_is_none_to_measure_on():
    with pytest.raises(ValueError, match="problems must be >= 1, got 0"):
        problems_of(Lengths(), "test", 0, seed=0)
