"""MATH and MATH-500: the published formats, and answers that mean the same."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from lit_pref.data.reading.rows import RowError
from lit_pref.tasks import MATH
from lit_pref.types import Outcome

OF_MATH = {
    "problem": "What is $\\frac{1}{3} + \\frac{1}{6}$?",
    "level": "Level 2",
    "type": "Prealgebra",
    "solution": "We have $\\frac{2}{6} + \\frac{1}{6} = \\boxed{\\frac{1}{2}}$.",
}
OF_MATH_500 = {
    "problem": "Convert $(0,3)$ to polar coordinates.",
    "solution": "... $\\boxed{\\left( 3, \\frac{\\pi}{2} \\right)}.$",
    "answer": "\\left( 3, \\frac{\\pi}{2} \\right)",
    "subject": "Precalculus",
    "level": 2,
    "unique_id": "test/precalculus/807.json",
}


def written(path: Path, *rows: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_both_formats_become_problems(tmp_path: Path) -> None:
    first, second = MATH(written(tmp_path / "rows.jsonl", OF_MATH, OF_MATH_500)).problems("test", 2, 0)
    assert (first.answer, second.answer) == ("\\frac{1}{2}", OF_MATH_500["answer"])
    assert len(first.id) == 16 and second.id == "test/precalculus/807.json"
    assert first.prompt == f"Question: {OF_MATH['problem']}\nAnswer:\n" and first.reference == OF_MATH["solution"]


def test_answers_are_graded_by_what_they_mean(tmp_path: Path) -> None:
    task = MATH(written(tmp_path / "rows.jsonl", OF_MATH, OF_MATH_500))
    half, polar = task.problems("test", 2, 0)
    assert all(verdict.passed for verdict in task.grade([half, polar], [half.reference, polar.reference]))
    cases = [
        (half, "It is $\\boxed{0.5}$.", Outcome.PASSED),
        (half, "It is $\\boxed{\\dfrac{3}{6}}$.", Outcome.PASSED),
        (half, "The answer is $\\frac{1}{3}$.", Outcome.FAILED),
        (half, "a half", Outcome.NO_ANSWER),
        (polar, "$\\boxed{(3, \\pi/2)}$", Outcome.PASSED),
        (polar, "$\\boxed{(\\pi/2, 3)}$", Outcome.FAILED),
    ]
    problems, texts, outcomes = zip(*cases, strict=True)
    with ThreadPoolExecutor(1) as grading:  # as samples are graded
        verdicts = grading.submit(task.grade, problems, texts).result()
    assert [verdict.outcome for verdict in verdicts] == list(outcomes)
    assert verdicts[2].detail == "expected \\frac{1}{2}, got \\frac{1}{3}"


def test_chat_asks_for_a_box(tmp_path: Path) -> None:
    (problem,) = MATH(written(tmp_path / "rows.jsonl", OF_MATH), style="chat").problems("train", 1, 0)
    assert "\\boxed{}" in problem.prompt[0]["content"] and OF_MATH["problem"] in problem.prompt[0]["content"]


def test_rows_that_are_none_are_named(tmp_path: Path) -> None:
    with pytest.raises(RowError, match=r'rows.jsonl:1: expected a \\boxed answer in "solution", or an "answer"'):
        MATH(written(tmp_path / "rows.jsonl", OF_MATH | {"solution": "a half"})).size("test")
    with pytest.raises(RowError, match=r'rows.jsonl:1: expected the key "problem"'):
        MATH(written(tmp_path / "rows.jsonl", {"solution": "1"})).size("test")
    with pytest.raises(RowError, match=r"rows.jsonl:2: the id 'test/precalculus/807.json' stands in an earlier, other"):
        MATH(written(tmp_path / "rows.jsonl", OF_MATH_500, OF_MATH_500 | {"problem": "?"})).size("test")


def test_a_folder_of_a_file_a_problem_as_math_was_released(tmp_path: Path) -> None:
    for split, numbers in {"train": range(3), "test": range(3, 5)}.items():
        for number in numbers:
            file = tmp_path / split / f"kind_{number % 2}" / f"{number}.json"
            file.parent.mkdir(parents=True, exist_ok=True)
            row = {"problem": f"What is {number} + 0?", "level": "1", "solution": f"\\boxed{{{number}}}"}
            file.write_text(json.dumps(row, indent=4))
    task = MATH(str(tmp_path))
    answers = {split: {each.answer for each in task.problems(split, task.size(split), 0)} for split in task.splits}
    assert answers == {"train": {"0", "1", "2"}, "test": {"3", "4"}}
    assert MATH(f"{tmp_path}/test/*/*.json").size("test") == 2
