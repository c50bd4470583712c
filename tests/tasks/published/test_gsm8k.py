"""GSM8K: the published format, grading by the final number, the rows that are none."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lit_pref.data.reading.rows import RowError
from lit_pref.errors import UserError
from lit_pref.tasks import GSM8K
from lit_pref.types import Outcome

ROWS = [
    {
        "question": "Ann sold 48 clips in April and half as many in May. How many in all?",
        "answer": "In May 48/2 = <<48/2=24>>24 clips.\nIn all 48+24 = <<48+24=72>>72.\n#### 72",
    },
    {"question": "A car costs $12,000 and a bike $345. What do both cost?", "answer": "Added up.\n#### 12,345"},
    {"question": "Half of 5?", "answer": "5/2 = <<5/2=2.5>>2.5\n#### 2.5"},
]


def written(path: Path, rows: list[dict[str, Any]]) -> str:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def source(tmp_path: Path) -> str:
    return written(tmp_path / "rows.jsonl", ROWS)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.parquet"])
def test_rows_become_problems(tmp_path: Path, name: str) -> None:
    first, second, third = GSM8K(written(tmp_path / name, ROWS)).problems("test", 3, seed=0)
    assert first.prompt == f"Question: {ROWS[0]['question']}\nAnswer:\n"
    assert first.reference == "In May 48/2 = 24 clips.\nIn all 48+24 = 72.\n#### 72"
    assert (first.answer, second.answer, third.answer) == ("72", "12345", "5/2")
    assert len({first.id, second.id, third.id}) == 3


def test_references_pass_and_other_numbers_do_not(source: str) -> None:
    task = GSM8K(source)
    problems = task.problems("test", 3, 0)
    assert all(verdict.passed for verdict in task.grade(problems, [problem.reference for problem in problems]))
    verdicts = task.grade(problems, ["The answer is 72 clips.", "#### 12344", "2 and a half"])
    assert [verdict.outcome for verdict in verdicts] == [Outcome.PASSED, Outcome.FAILED, Outcome.NO_ANSWER]
    assert verdicts[1].detail == "expected 12345, got 12344"


def test_the_last_number_counts_where_it_is_asked_for(source: str) -> None:
    task = GSM8K(source, last_number=True)
    problems = task.problems("test", 3, 0)[:1]
    assert task.grade(problems, ["48 and 24, that is 72"])[0].passed
    assert task.grade(problems, ["a lot"])[0].outcome is Outcome.NO_ANSWER


def test_a_thought_is_no_answer(source: str) -> None:
    task = GSM8K(source)
    problems = task.problems("test", 3, 0)[:1] * 3
    verdicts = task.grade(problems, ["<think>#### 3</think>#### 72", "<think>#### 72", "#### 72 <think>#### 3"])
    assert [verdict.outcome for verdict in verdicts] == [Outcome.PASSED, Outcome.NO_ANSWER, Outcome.PASSED]


def test_what_a_text_goes_on_with_is_not_its_answer(source: str) -> None:
    task = GSM8K(source)
    run_on = "#### 72\n\nQuestion: And now?\nAnswer:\n#### 3"
    assert task.grade(task.problems("test", 3, 0)[:1], [run_on])[0].passed


def test_chat_asks_for_a_form_that_is_understood(source: str) -> None:
    task = GSM8K(source, style="chat", calculations=True)
    (problem,) = task.problems("train", 1, seed=1)
    assert problem.prompt[0]["role"] == "user" and "The answer is N." in problem.prompt[0]["content"]
    (shown,) = task.demonstrations("train", 1, seed=1)
    assert shown.completion == ({"role": "assistant", "content": problem.reference},)
    assert "<<48/2=24>>" in task.problems("train", 3, 0)[0].reference


def test_the_seed_decides_which_and_the_file_in_which_order(source: str) -> None:
    task = GSM8K(source)
    assert task.size("test") == 3
    answers = [problem.answer for problem in task.problems("test", 3, 0)]
    for seed in range(5):
        two = [problem.answer for problem in task.problems("test", 2, seed)]
        assert two == [answer for answer in answers if answer in two]
    assert len({tuple(p.id for p in task.problems("test", 1, seed)) for seed in range(20)}) == 3
    with pytest.raises(UserError, match="split 'test' of gsm8k has 3 items, 4 asked for"):
        task.problems("test", 4, 0)


def test_a_row_that_stands_twice_is_one_problem(tmp_path: Path) -> None:
    assert GSM8K(written(tmp_path / "rows.jsonl", [*ROWS, ROWS[0]])).size("train") == 3


def test_a_problem_is_also_called_by_its_place(tmp_path: Path) -> None:
    rows = [ROWS[0], ROWS[1], ROWS[0], ROWS[2]]
    task = GSM8K(written(tmp_path / "rows.jsonl", rows))
    assert [problem.aliases for problem in task.problems("test", 3, 0)] == [("0", "2"), ("1",), ("3",)]


def test_rows_that_are_none_are_named(tmp_path: Path) -> None:
    for row, message in (
        ({"question": "q", "answer": "72"}, r'rows.jsonl:2: expected "answer" to end with #### and a number'),
        ({"question": "q", "answer": "#### many"}, r'rows.jsonl:2: expected "answer" to end with #### and a number'),
        ({"problem": "q", "answer": "#### 1"}, r'rows.jsonl:2: expected the key "question", there stand: problem'),
        ({"question": 3, "answer": "#### 1"}, r'rows.jsonl:2: expected text under "question", got int'),
        ({"question": " ", "answer": "#### 1"}, r'rows.jsonl:2: "question" is empty: expected what is asked for'),
        ({"question": "\ud83d", "answer": "#### 1"}, r'rows.jsonl:2: "question" holds half a character'),
    ):
        with pytest.raises(RowError, match=message):
            GSM8K(written(tmp_path / "rows.jsonl", [ROWS[0], row])).size("test")


def test_settings_and_splits_that_are_none(source: str) -> None:
    with pytest.raises(UserError, match="gsm8k has no split 'validation': expected one of train, test"):
        GSM8K(source).problems("validation", 1, 0)
    with pytest.raises(ValueError, match='style must be "completion" or "chat", got \'talk\''):
        GSM8K(source, style="talk")
    with pytest.raises(ValueError, match="one completion a problem: got 1 problems, 0 completions"):
        GSM8K(source).grade(GSM8K(source).problems("test", 1, 0), [])
