"""MBPP in its full, sanitized and EvalPlus formats: rows, splits by number, what tests call, and rows that are none."""

import json
from pathlib import Path

import pytest

from lit_pref.data.reading.rows import RowError
from lit_pref.tasks.published.mbpp import MBPP, MBPPPlus
from lit_pref.types import Outcome, Sandbox, Verdict

FULL = {
    "task_id": 11,
    "text": "Write a function to remove the first and last occurrence of a character.",
    "code": "def remove_occ(s, ch):\r\n    s = s.replace(ch, '', 1)\r\n    i = s.rfind(ch)\r\n    return s[:i]+s[i+1:]",
    "test_list": ['assert remove_occ("hello","l") == "heo"', 'assert remove_occ("PHPPa","P") == "HPa"'],
    "test_setup_code": "",
    "challenge_test_list": [],
}
CLASSES = {
    "task_id": 601,
    "text": "Write a function to find the largest second number of pairs.",
    "code": "class Pair(object):\n    def __init__(self, a, b):\n        self.a, self.b = a, b\n"
    "def largest(pairs):\n    return max(pair.b for pair in pairs)\n",
    "test_list": ["assert largest(pairs) == 24", "assert max(1, largest([Pair(5, 4)])) == 4"],
    "test_setup_code": "pairs = [Pair(5, 24), Pair(15, 2)]",
    "challenge_test_list": [],
}
SANITIZED = {
    "source_file": "Benchmark Questions Verification V2.ipynb",
    "task_id": 511,
    "prompt": "Write a function to find the area of a circle.",
    "code": "import math\n\ndef area(r):\n    return math.pi * r * r",
    "test_imports": ["from math import isclose, pi"],
    "test_list": ["assert isclose(area(1), pi)", "assert area(0) == 0"],
}


def written(path: Path, rows: list[dict[str, object]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def source(tmp_path):
    prompting = [FULL | {"task_id": number} for number in (1, 10)]
    others = [FULL | {"task_id": number} for number in (510, 600, 974)]
    return written(tmp_path / "mbpp.jsonl", [*prompting, FULL, SANITIZED, CLASSES, *others])


SET_UP = {
    "task_id": 602,
    "text": "Write a function to find the depth of a tree.",
    "code": "class Tree:\r\n    def __init__(self, *below):\r\n        self.below = below\r\n\r\n"
    "LEAF = Tree()\r\n\r\ndef depth(tree):\r\n    return 1 + max(map(depth, tree.below), default=0)\r\nprint(LEAF)",
    "test_list": ["assert depth(tree) == 2"],
    "test_setup_code": "tree = Tree(Tree(), LEAF)",
    "challenge_test_list": [],
}


def test_splits_go_by_number(source):
    task = MBPP(source)
    numbers = {split: [problem.id for problem in task.problems(split, task.size(split), 0)] for split in task.splits}
    assert numbers == {"train": ["601", "974"], "validation": ["511", "600"], "test": ["11", "510"]}


def test_references_pass_and_wrong_ones_fail(source):
    task = MBPP(source)
    every = [problem for split in task.splits for problem in task.problems(split, 2, seed=0)]
    assert [v.outcome for v in task.grade(every, [problem.reference for problem in every])] == [Outcome.PASSED] * 6
    found = {problem.id: problem for problem in every}
    wrong = {
        "11": "def remove_occ(s, ch):\n    return s.replace(ch, '')\n",
        "511": "def area(r):\n    return 3.14 * r * r\n",
        "601": "class Pair:\n    def __init__(self, a, b):\n        self.b = a\n"
        "def largest(pairs):\n    return max(pair.b for pair in pairs)\n",
    }
    verdicts = task.grade([found[name] for name in wrong], list(wrong.values()))
    assert [verdict.outcome for verdict in verdicts] == [Outcome.FAILED] * 3


def test_a_completion_prompt_is_a_docstring_with_one_test(source):
    problem = MBPP(source).problems("test", 2, seed=0)[0]
    assert problem.prompt == f'"""\n{FULL["text"]}\n{FULL["test_list"][0]}\n"""\n'
    assert (problem.entry_point, problem.check.entry_points) == ("remove_occ", ("remove_occ",))


def test_a_chat_prompt_asks_in_a_turn(source):
    task = MBPP(source, style="chat")
    problem = task.problems("validation", 2, seed=0)[0]
    (turn,) = problem.prompt
    assert turn["role"] == "user" and turn["content"].endswith(f"{SANITIZED['prompt']}\n{SANITIZED['test_list'][0]}")
    answer = f"A circle's area:\n\n{problem.reference}\n\nIt is right."
    assert task.grade([problem] * 2, [answer, "pi times r squared"])[0].passed
    assert task.grade([problem], ["pi times r squared"])[0].outcome is Outcome.NO_CODE


def test_imports_are_the_tests_and_the_set_up_calls_the_program(source):
    task = MBPP(source)
    sanitized, pairs = task.problems("validation", 2, 0)[0], task.problems("train", 2, 0)[0]
    assert sanitized.check.context == "from math import isclose, pi" and sanitized.check.entry_points == ("area",)
    assert pairs.check.code.startswith("pairs = [Pair(5, 24)") and pairs.check.context == ""
    assert pairs.entry_point == "largest" and set(pairs.check.entry_points) == {"largest", "Pair"}


class Looking(Sandbox):
    def run(self, programs):
        self.sources = [program.source for program in programs]
        return [Verdict(Outcome.PASSED) for _ in programs]


def test_what_the_set_up_alone_uses_is_kept(tmp_path):
    task = MBPP(written(tmp_path / "mbpp.jsonl", [SET_UP]), sandbox=(looking := Looking()))
    (problem,) = task.problems("train", 1, 0)
    task.grade([problem], [problem.reference])
    (source,) = looking.sources
    assert source == SET_UP["code"].replace("\r\n", "\n").replace("\n\n", "\n").replace("print(LEAF)", "")
    assert MBPP(task.source).grade([problem], [problem.reference])[0].passed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task_id": "eleven"}, "expected a number under \"task_id\", got 'eleven'"),
        ({"test_list": "assert f(1)"}, 'expected a list of texts under "test_list", got str'),
        ({"test_list": ["assert len('a') == 1"]}, 'no test in "test_list" calls a function that "code" defines'),
        ({"test_list": []}, 'no test in "test_list" calls'),
        ({"code": "def remove_occ(s, ch) return s"}, '"test_list", "test_setup_code" or "code" is no Python'),
    ],
    ids=["number", "no list", "no call", "no test", "no Python"],
)
def test_a_wrong_row_is_named(tmp_path, change, message):
    path = tmp_path / "mbpp.jsonl"
    with pytest.raises(RowError) as error:
        MBPP(written(path, [FULL | {"task_id": 12}, FULL | change])).size("test")
    assert str(error.value).startswith(f"{path}:2: ") and message in str(error.value)


def test_a_row_without_a_description(tmp_path):
    row = {key: value for key, value in FULL.items() if key != "text"}
    with pytest.raises(RowError, match='expected the key "text" or "prompt", there stand: task_id, code, test_list'):
        MBPP(written(tmp_path / "mbpp.jsonl", [row])).size("test")


# --- MBPP+ ------------------------------------------------------------------------------------------------------------

RELEASED = {
    "task_id": "Mbpp/2",
    "prompt": '"""\nWrite a function to find the shared elements of two tuples.\n'
    'assert similar_elements((3, 4),(4, 7)) == (4,)\n"""\n',
    "entry_point": "similar_elements",
    "canonical_solution": "\ndef similar_elements(a, b):\n    return tuple(set(a) & set(b))\n",
    "base_input": [[[3, 4], [4, 7]]],
    "plus_input": [[[], []], [[1, 2, 3], [3, 2]]],
    "atol": 0,
    "contract": "",
    "assertion": "assert set(similar_elements((3, 4),(4, 7))) == {4}",
}
HUB = {
    "task_id": 2,
    "code": RELEASED["canonical_solution"],
    "prompt": "Write a function to find the shared elements of two tuples.",
    "source_file": "",
    "test_imports": [],
    "test_list": ["assert set(similar_elements((3, 4),(4, 7))) == {4}"],
    "test": "import numpy as np\n\ndef assertion(out, exp, atol):\n    exact_match = set(out) == set(exp)\n\n"
    "inputs = [[(3, 4), (4, 7)], [(), ()], [(1, 2, 3), (3, 2)]]\nresults = [(4,), (), (2, 3)]\n"
    "for i, (inp, exp) in enumerate(zip(inputs, results)):\n    assertion(similar_elements(*inp), exp, 0)\n",
}


@pytest.mark.parametrize("row", [RELEASED, HUB], ids=["release", "hub"])
def test_plus_compares_with_the_reference(tmp_path, row):
    task = MBPPPlus(written(tmp_path / "plus.jsonl", [row]))
    (problem,) = task.problems("test", 1, seed=0)  # though MBPP prompts with number 2
    assert (problem.id, problem.entry_point) == ("Mbpp/2", "similar_elements")
    assert problem.prompt.startswith('"""\nWrite a function to find the shared elements of two tuples.\nassert ')
    assert problem.prompt.endswith('\n"""\n')
    answers = [
        problem.reference,
        "def similar_elements(a, b):\n    return sorted(set(a) & set(b), reverse=True)\n",  # any order and type will do
        "def similar_elements(a, b):\n    return a + b and (max(a),)\n",  # right on the first two inputs alone
        "def similar_elements(a, b):\n    return set(a) & set(b) if type(a) is tuple else None\n",
    ]
    outcomes = [verdict.outcome for verdict in task.grade([problem] * 4, answers)]
    assert outcomes == [Outcome.PASSED, Outcome.PASSED, Outcome.FAILED, Outcome.PASSED]


def test_plus_inputs_may_be_none_and_must_be_what_the_problem_takes(tmp_path):
    path = tmp_path / "plus.jsonl"
    task = MBPPPlus(written(path, [RELEASED | {"plus_input": {}}]))
    (problem,) = task.problems("test", 1, 0)
    assert task.grade([problem], [problem.reference])[0].passed
    with pytest.raises(RowError, match=r'plus.jsonl:1: "base_input" or "plus_input" is not what this problem takes'):
        MBPPPlus(written(path, [RELEASED | {"plus_input": [[1, 2]]}])).size("test")


def test_plus_has_no_other_split(tmp_path):
    with pytest.raises(ValueError, match="mbpp_plus has no split 'train': expected one of test"):
        MBPPPlus(written(tmp_path / "plus.jsonl", [RELEASED])).size("train")


def test_in_evalplus_words_the_answer_is_begun(source):
    task = MBPP(source, style="evalplus")
    problem = task.problems("test", None, seed=0)[0]
    asked, begun = problem.prompt
    told = f'"""\n{FULL["text"]}\n{FULL["test_list"][0]}\n"""'
    assert f"```\n{told}\n```\n" in asked["content"] and begun["content"].endswith("```python\n")
    (verdict,) = task.grade([problem], [problem.reference])
    assert verdict.passed and not problem.reference.startswith("```")


@pytest.mark.parametrize("kind", [MBPP, MBPPPlus])
def test_text_completions_end_before_tests_of_their_own(source, kind):
    assert {"\nassert", '\n"""'} <= set(kind(source).stop)
    assert not any(text.startswith("\ndef f") for text in kind(source).stop)  # the answer is a whole function
    assert kind(source, style="chat").stop == ()
