"""GSM8K's graded solutions: the published format, and pairs of a right and a wrong solution of one question."""

import json
from pathlib import Path
from typing import Any

import pytest

from lit_pref.data.reading.rows import RowError
from lit_pref.tasks import GSM8KSolutions
from lit_pref.tasks.published.gsm8k_solutions import MODELS


def row(number: int, right: int) -> dict[str, Any]:
    """The first `right` models are right."""
    solutions = {
        model: {"is_correct": place < right, "solution": f"{number} + {place} = <<{number}+{place}=9>>9\nA: {place}"}
        for place, model in enumerate(MODELS)
    }
    return {"question": f"Question {number}?", "ground_truth": "A: 0", **solutions}


def written(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))
    return str(path)


@pytest.fixture
def source(tmp_path: Path) -> str:
    return written(tmp_path / "solutions.jsonl", [row(number, number % 5) for number in range(200)])


def test_splits_share_no_question_and_are_a_quarter_and_a_twentieth(source: str) -> None:
    task = GSM8KSolutions(source)
    of_split = [set(task.solved(split)) for split in task.splits]
    assert sum(map(len, of_split)) == len(set().union(*of_split)) == 200
    sizes = dict(zip(task.splits, map(len, of_split), strict=True))
    # 50 and 10 expected of 200; two standard deviations of a binomial are 12 and 6
    assert abs(sizes["test"] - 50) <= 12 and abs(sizes["validation"] - 10) <= 6


def test_a_pair_is_a_right_and_a_wrong_solution_of_one_question(source: str) -> None:
    task = GSM8KSolutions(source)
    solved, pairs = task.solved("train"), task.pairs("train", None, 0)
    both = [question for question, texts in solved.items() if set(texts.values()) == {True, False}]
    assert len(pairs) == len(both)
    for pair in pairs:
        assert isinstance(pair.prompt, str) and pair.prompt.endswith("?\nAnswer:\n")
        texts = solved[pair.prompt.removeprefix("Question: ").removesuffix("\nAnswer:\n")]
        assert texts[str(pair.chosen)] and not texts[str(pair.rejected)] and "<<" not in str(pair.chosen)
    # one right and three wrong, or the other way round, give one pair; two and two give two
    more = GSM8KSolutions(source, pairs_per_question=4).pairs("train", None, 0)
    assert len(more) == sum(min(sum(solved[each].values()), 4 - sum(solved[each].values())) for each in both)


def test_calculations_are_kept_where_they_are_asked_for(source: str) -> None:
    (pair,) = GSM8KSolutions(source, calculations=True, style="chat").pairs("train", 1, 0)
    assert not isinstance(pair.chosen, str) and "<<" in pair.chosen[0]["content"]
    assert not isinstance(pair.prompt, str) and pair.prompt[0]["content"].endswith("?")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"6b_finetuning": None}, r'jsonl:1: expected "solution" and "is_correct" under "6b_finetuning"'),
        ({"175b_finetuning": {"solution": "x", "is_correct": "yes"}}, r"jsonl:1: expected true or false .* got 'yes'"),
    ],
    ids=["none", "verdict"],
)
def test_a_row_without_solutions_is_named(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    task = GSM8KSolutions(written(tmp_path / "rows.jsonl", [{**row(0, 2), **change}]))
    with pytest.raises(RowError, match=message):
        for split in task.splits:
            task.solved(split)
