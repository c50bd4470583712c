"""Problems of the user's own: what a row may leave out, each form of tests, and rows that are none."""

import json
from pathlib import Path

import pytest

from lit_pref.data.reading.rows import RowError
from lit_pref.errors import UserError
from lit_pref.tasks import CustomCodeTask
from lit_pref.types import Check, IOCase, Outcome

TOLD = {"prompt": "Write `double`: twice a number.", "reference": "def double(x):\n    return 2 * x\n"}
LISTED = TOLD | {"test_list": ["assert double(2) == 4", "assert double(-1) == -2"]}
CHECKED = {
    "task_id": "Open/0",
    "prompt": 'import math\n\n\ndef unit(x):\n    return x\n\n\ndef area(r):\n    """Of a circle."""\n',
    "canonical_solution": "    return math.pi * r * r\n",
    "test": "METADATA = {}\n\n\ndef check(candidate):\n    assert candidate(0) == 0\n"
    "    assert abs(candidate(unit(1)) - math.pi) < 1e-6\n",
}
PRINTED = {
    "prompt": "Print the sum of the numbers of a line.",
    "code": "print(sum(map(int, input().split())))\n",
    "input_output": {"inputs": ["1 2\n", "3\n"], "outputs": ["3\n", "3\n"]},
}


def written(path: Path, *rows: dict[str, object]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def one(path: Path, row: dict[str, object], style="completion"):
    task = CustomCodeTask(written(path / "own.jsonl", row), style)
    return task, task.problems("train", 1, seed=0)[0]


def outcomes(task, problem, answers):
    return [verdict.outcome for verdict in task.grade([problem] * len(answers), answers)]


# --- forms of tests ---------------------------------------------------------------------------------------------------


def test_asserts_grade(tmp_path):
    task, problem = one(tmp_path, LISTED)
    assert (problem.id, problem.entry_point, problem.prompt) == ("1", "double", TOLD["prompt"])
    assert problem.check == Check("assert double(2) == 4\nassert double(-1) == -2", entry_points=("double",))
    answers = [
        problem.reference,
        "def double(x):\n    return x * x\n",
        "def twice(x):\n    return 2 * x\n",
        "Twice it.",
    ]
    expected = [Outcome.PASSED, Outcome.FAILED, Outcome.ERROR, Outcome.NO_CODE]
    assert outcomes(task, problem, answers) == expected


def test_asserts_may_use_the_programs_classes_and_have_a_set_up(tmp_path):
    row = {
        "prompt": "The largest weight.",
        "code": "class Box:\n    def __init__(self, weight):\n        self.weight = weight\n\n\n"
        "def heaviest(boxes):\n    return max(box.weight for box in boxes)\n",
        "test_setup_code": "boxes = [Box(3), Box(5)]",
        "test_imports": ["from math import isclose"],
        "test_list": ["assert isclose(heaviest(boxes), 5)"],
    }
    task, problem = one(tmp_path, row)
    code = "boxes = [Box(3), Box(5)]\nassert isclose(heaviest(boxes), 5)"
    assert problem.check == Check(code, "from math import isclose", ("heaviest", "Box"))
    assert outcomes(task, problem, [row["code"], row["code"].replace("max", "min")]) == [
        Outcome.PASSED,
        Outcome.FAILED,
    ]


@pytest.mark.parametrize("style", ["completion", "chat"])
def test_a_check_is_called_with_the_function_and_knows_what_stands_before_it(tmp_path, style):
    task, problem = one(tmp_path, CHECKED, style)
    assert (problem.id, problem.entry_point) == ("Open/0", "area")
    assert problem.check.code.endswith("\ncheck(area)\n") and problem.check.entry_points == ("area",)
    assert problem.check.context == "import math\ndef unit(x):\n    return x"
    wrong = "def area(r):\n    return 3 * r * r\n"
    # `unit` is the prompt's, whatever the program makes of it
    unit = "def unit(x):\n    return 0\n\n\ndef area(r):\n    return 0\n"
    assert outcomes(task, problem, [problem.reference, wrong, unit]) == [Outcome.PASSED, Outcome.FAILED, Outcome.FAILED]


@pytest.mark.parametrize(
    "test",
    [
        "def check(candidate):\n    assert candidate(2) == 4\n\n\ncheck(double)\n",
        "def test_two():\n    assert double(2) == 4\n\n\ntest_two()\n",
        "for x in (0, 2):\n    assert double(x) == 2 * x\n",
    ],
    ids=["called", "function", "loop"],
)
def test_other_test_code_is_run_as_it_is(tmp_path, test):
    task, problem = one(tmp_path, TOLD | {"test": test})
    assert problem.check.code == test
    assert outcomes(task, problem, [problem.reference, "def double(x):\n    return 3 * x\n"]) == [
        Outcome.PASSED,
        Outcome.FAILED,
    ]


@pytest.mark.parametrize("value", [PRINTED["input_output"], json.dumps(PRINTED["input_output"])], ids=["json", "text"])
@pytest.mark.parametrize("key", ["input_output", "tests"])
def test_a_program_reads_and_prints(tmp_path, key, value):
    row = {"prompt": PRINTED["prompt"], "code": PRINTED["code"], key: value}
    task, problem = one(tmp_path, row, "chat")
    assert problem.cases == (IOCase("1 2\n", "3\n"), IOCase("3\n", "3\n"))
    assert (problem.check, problem.entry_point) == (None, "")
    first = "```python\nprint(int(input().split()[0]))\n```"  # right on "3" alone
    verdicts = task.grade([problem] * 3, [problem.reference, first, "Add them."])
    assert [verdict.outcome for verdict in verdicts] == [Outcome.PASSED, Outcome.FAILED, Outcome.NO_CODE]
    assert verdicts[1].case == 0


@pytest.mark.parametrize("nothing", [{}, {"test_list": []}, {"test": ""}, {"tests": {"inputs": [], "outputs": []}}])
def test_without_tests_nothing_is_graded(tmp_path, nothing):
    task, problem = one(tmp_path, TOLD | {"id": "d"} | nothing)
    assert (problem.entry_point, problem.cases, problem.check) == ("double", (), None)
    with pytest.raises(UserError, match=r"code_problems: problem d has no tests .* --write_tests written"):
        task.grade([problem], [problem.reference])


# --- prompts, names, splits -------------------------------------------------------------------------------------------


def test_styles_and_messages(tmp_path):
    assert one(tmp_path, LISTED, "chat")[1].prompt == ({"role": "user", "content": TOLD["prompt"]},)
    (turn,) = one(tmp_path, CHECKED, "chat")[1].prompt
    assert turn["content"].startswith("Complete this") and "```python\nimport math\n" in turn["content"]
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": TOLD["prompt"]}]
    _, problem = one(tmp_path, LISTED | {"prompt": turns})
    assert problem.prompt == tuple(turns)
    assert problem.reference == "```python\ndef double(x):\n    return 2 * x\n```"


def test_the_entry_point_is_stated_or_the_only_function(tmp_path):
    helped = "def half(x):\n    return x / 2\n\n\ndef double(x):\n    return x + 2 * half(x)\n"
    row = LISTED | {"reference": helped}
    assert one(tmp_path, row | {"entry_point": "double"})[1].entry_point == "double"
    with pytest.raises(RowError) as error:
        one(tmp_path, row)
    assert str(error.value) == (
        f"{tmp_path}/own.jsonl:1: expected a reference that defines one function, or the name of one under "
        '"entry_point"; got double, half'
    )


def test_rows_of_a_file_are_train_unless_they_say(tmp_path):
    rows = [LISTED, LISTED | {"split": "test"}, LISTED | {"id": "c", "split": "train"}, LISTED | {"split": None}]
    task = CustomCodeTask(written(tmp_path / "own.jsonl", *rows))
    ids = {split: [p.id for p in task.problems(split, task.size(split), 0)] for split in ("train", "test")}
    assert ids == {"train": ["1", "c", "4"], "test": ["2"]}
    with pytest.raises(UserError, match="hold nothing of split 'validation': those of a file are of split train"):
        task.size("validation")


def test_a_folder_has_splits_of_its_own(tmp_path):
    folder = tmp_path / "own"
    folder.mkdir()
    written(folder / "train.jsonl", LISTED, TOLD | {"id": 7})  # columns of either row stand in both
    written(folder / "test.jsonl", LISTED)
    task = CustomCodeTask(str(folder))
    assert [problem.id for problem in task.problems("train", 2, 0)] == ["1", "7"]
    assert (task.size("test"), task.problems("train", 2, 0)[1].check) == (1, None)


# --- wrong rows -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": ""}, 'expected the key "prompt", there stand: '),
        (
            {"prompt": [{"role": "assistant", "content": "Ask."}]},
            "a turn of the user, got one of 'assistant'",
        ),
        ({"prompt": ["Ask."]}, "expected messages such as"),
        ({"reference": None}, 'expected the key "reference" or "code" or "canonical_solution"'),
        ({"reference": "Twice the number."}, "expected a program as the reference"),
        ({"reference": "def double(x) return x"}, "the reference is no Python"),
        ({"reference": "double = 2"}, 'the name of one under "entry_point"; got none'),
        ({"entry_point": "twice"}, "the reference does not define \"entry_point\", 'twice'"),
        ({"entry_point": 3}, 'expected text under "entry_point", got int'),
        ({"test_list": "assert double(1) == 2"}, 'expected a list of texts under "test_list", got str'),
        ({"test_list": ["assert double(1) = 2"]}, '"test_list" is no Python'),
        (
            {"test_list": ["assert len('a') == 1"]},
            "expected under \"test_list\" statements that are run and call the program's 'double'",
        ),
        ({"test_list": None, "test": "def test_one():\n    assert double(1) == 2\n"}, "or a function check(candidate)"),
        (
            {"test_list": None, "test": "from solution import double\nassert double(1) == 2\n"},
            "statements that are run",
        ),
        ({"test": "assert double(1) == 2"}, "expected tests under one key, got test_list and test"),
        ({"test_list": None, "tests": {"inputs": ["1"], "outputs": []}}, "as many texts in either, got {'inputs': "),
        (
            {"test_list": None, "tests": {"inputs": [[1]], "outputs": [2], "fn_name": "f"}},
            "calls a function by fn_name: expected",
        ),
        ({"test_list": None, "tests": {"inputs": [[1]], "outputs": [2]}}, "as many texts in either"),
        ({"test_list": None, "tests": "[" * 3000}, '"tests" is a text, and no JSON'),
        ({"test_list": None, "tests": [{"input": "1", "output": "2"}]}, '"outputs": [...]} under "tests"'),
        ({"test_list": None, "input_output": "{inputs"}, '"input_output" is a text, and no JSON'),
        ({"split": "dev"}, "expected one of train, validation, test under \"split\", got 'dev'"),
        ({"id": "1", "prompt": "def double(y):\n"}, "'1' stands in an earlier, other row too"),
    ],
)
def test_a_wrong_row_is_named(tmp_path, change, message):
    path = tmp_path / "own.jsonl"
    with pytest.raises(RowError) as error:
        CustomCodeTask(written(path, LISTED, LISTED | change)).size("train")
    assert str(error.value).startswith(f"{path}:2: ") and message in str(error.value)


def test_evalplus_words_are_of_the_published_benchmarks(tmp_path):
    with pytest.raises(ValueError, match='style must be "completion" or "chat", got \'evalplus\''):
        CustomCodeTask(str(tmp_path / "rows.jsonl"), style="evalplus")
