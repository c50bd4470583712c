"""Word problems: their arithmetic is done again here, from the text alone."""

import random
import re

import pytest

from lit_pref.tasks import ReasoningTask
from lit_pref.tasks.embedded.reasoning.grammar import (
    MISTAKES,
    Mistake,
    Step,
    Story,
    draw_story,
    solve,
    solve_wrongly,
    written,
)
from lit_pref.types import Outcome, Problem

TASK = ReasoningTask()
STEPS = {
    step.operation.name: step.operation for i in range(300) if (s := draw_story(random.Random(i))) for step in s.steps
}


def story(start: int, *steps: tuple[str, str]) -> Story:
    made = tuple(Step(STEPS[name], amount) for name, amount in steps)
    return Story("Ana", "pens", start, made, tuple(step.operation.phrases[0] for step in made))


def check_lines(text: str) -> list[tuple[str, int]]:
    *lines, last = text.splitlines()
    parts = [line.split(" = ") for line in lines]
    assert last == f"The answer is {parts[-1][1]}."
    return [(expression, int(result)) for expression, result in parts]


def test_a_solution_written_out() -> None:
    made = story(7, ("gain", "5"), ("halve", ""), ("lose_some", "9"))
    lines = solve(made.start, made.steps)
    assert lines is not None
    assert written(lines) == "7 + 5 = 12\n12 // 2 = 6\nmax(6 - 9, 0) = 0\nThe answer is 0.\n"


def test_references_are_right_line_by_line_and_pass() -> None:
    problems = TASK.problems("train", 300, seed=3)
    for problem in problems:
        lines = check_lines(problem.reference)
        for expression, result in lines:
            assert eval(expression) == result
        start = re.search(r"has (\d+) ", str(problem.prompt))
        assert start is not None and re.findall(r"\d+", lines[0][0])[0] == start[1]
        assert problem.answer == str(lines[-1][1])
    verdicts = TASK.grade(problems, [problem.reference for problem in problems])
    assert {verdict.outcome for verdict in verdicts} == {Outcome.PASSED}


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("The answer is 12.", Outcome.PASSED),
        ("7 + 5 = 12\nThe answer is 012.\n", Outcome.PASSED),
        ("The answer is 13.", Outcome.FAILED),
        ("The answer is 13. The answer is 12.", Outcome.FAILED),
        ("12", Outcome.NO_ANSWER),
        ("The answer is twelve.", Outcome.NO_ANSWER),
        ("", Outcome.NO_ANSWER),
    ],
)
def test_grading(text: str, outcome: Outcome) -> None:
    (verdict,) = TASK.grade([Problem("p", "# …", "", answer="12")], [text])
    assert verdict.outcome is outcome


def test_splits_share_no_composition_and_are_a_function_of_the_seed() -> None:
    train, test = TASK.problems("train", 400, 0), TASK.problems("test", 200, 0)
    assert not {p.composition for p in train} & {p.composition for p in test}
    assert not {p.id for p in train} & {p.id for p in TASK.problems("validation", 200, 0)}
    assert train[:100] == TASK.problems("train", 100, 0) != TASK.problems("train", 100, 1)
    assert len({p.prompt for p in train}) == 400


def test_wrong_solutions_have_another_answer_and_the_same_length() -> None:
    pairs = TASK.pairs("train", 500, seed=0)
    problems = TASK.problems("train", 500, seed=0)
    assert [pair.prompt for pair in pairs] == [problem.prompt for problem in problems]
    verdicts = TASK.grade(problems, [str(pair.rejected) for pair in pairs])
    assert {verdict.outcome for verdict in verdicts} == {Outcome.FAILED}
    assert all(len(pair.chosen) == len(pair.rejected) for pair in pairs)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_mistake_is_what_its_name_says(mistake: Mistake) -> None:
    """From the text: which lines compute wrongly, and where a line does not begin with what the one before gave."""
    pairs = ReasoningTask([mistake]).pairs("train", 120, seed=1)
    for pair in pairs:
        right, wrong = check_lines(str(pair.chosen)), check_lines(str(pair.rejected))
        miscalculated = sum(eval(expression) != result for expression, result in wrong)
        values = [right[0][0].split(" ")[0].lstrip("maxin("), *(str(result) for _, result in wrong)]
        starts = [re.findall(r"\d+", expression)[0] for expression, _ in wrong]
        broken = sum(a != b for a, b in zip([v.strip(",") for v in values], starts, strict=False))
        assert len(right) == len(wrong)
        assert miscalculated == (mistake == "result")
        assert broken == (mistake == "carry")


def test_order_keeps_the_operations() -> None:
    made = story(9, ("gain", "5"), ("halve", ""))
    swapped = {written(w) for i in range(40) if (w := solve_wrongly(made, "order", random.Random(i)))}
    assert "9 // 2 = 4\n4 + 5 = 9\nThe answer is 9.\n" in swapped


def test_wrong_settings() -> None:
    with pytest.raises(ValueError, match=r"mistakes must be some of operation.*got spelling"):
        ReasoningTask(["spelling"])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="count must be >= 0"):
        TASK.problems("train", -1, 0)
    with pytest.raises(ValueError, match="2 completions"):
        TASK.grade([], ["a", "b"])
