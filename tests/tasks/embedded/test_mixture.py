"""Mixtures: turns, shares, and each problem graded by its own task."""

import pytest

from lit_pref.tasks import CodeTask, Mixture, ReasoningTask
from lit_pref.types import Outcome, Problem

CODE, REASONING = CodeTask(bug_rate=0.5), ReasoningTask()


def test_problems_and_demonstrations_in_turns() -> None:
    mixed = Mixture([CODE, REASONING])
    problems = mixed.problems("train", 5, seed=1)
    assert problems[0::2] == CODE.problems("train", 3, seed=1)
    assert problems[1::2] == REASONING.problems("train", 2, seed=1)
    assert mixed.problems("train", 3, seed=1) == problems[:3]
    demonstrations = mixed.demonstrations("train", 6, seed=1)
    assert demonstrations[0::2] == CODE.demonstrations("train", 3, seed=1)
    assert demonstrations[1::2] == REASONING.demonstrations("train", 3, seed=1)


def test_each_is_graded_by_its_own_task() -> None:
    mixed = Mixture([CODE, REASONING])
    problems = mixed.problems("test", 6, seed=0)
    verdicts = mixed.grade(problems, [problem.reference for problem in problems])
    assert {verdict.outcome for verdict in verdicts} == {Outcome.PASSED}
    swapped = mixed.grade(problems[:2], [problem.reference for problem in problems[1::-1]])
    assert [verdict.passed for verdict in swapped] == [False, False]


def test_wrong_use() -> None:
    with pytest.raises(ValueError, match="at least 2 tasks, got 1"):
        Mixture([CODE])
    with pytest.raises(ValueError, match="'other' is of none"):
        Mixture([CODE, REASONING]).grade([Problem("other", "", "")], [""])
