"""Broken rows of problems, questions and samples: each is refused by name of its file, or means something.

Whatever is read is also graded, by a sandbox that runs nothing, so that no later step trips over it.
"""

import json
import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from lit_pref.data.reading.sample_files import read_samples
from lit_pref.errors import UserError
from lit_pref.tasks import (
    GSM8K,
    MATH,
    MBPP,
    CustomCodeTask,
    HumanEval,
    HumanEvalPlus,
    LogiQA2,
    MathShepherd,
    MBPPPlus,
    ReClor,
)
from lit_pref.types import Outcome, Problem, Program, Sandbox, Task, Verdict

ROUNDS = 20 * int(os.environ.get("LIT_PREF_FUZZ", "1"))  # of each kind of row


class Nothing(Sandbox):
    """Passes everything and runs nothing."""

    def run(self, programs: Sequence[Program]) -> list[Verdict]:
        return [Verdict(Outcome.PASSED) for _ in programs]


class Kind(NamedTuple):
    """A row as it should be, the keys that it cannot do without, and what reads a file of them."""

    row: dict[str, Any]
    needed: tuple[str, ...]
    read: Callable[[str], object]
    name: str = "rows.jsonl"


def graded(task: Task, split: Any) -> object:
    problems = task.problems(split, task.size(split), 0)  # type: ignore[attr-defined]
    task.demonstrations(split, len(problems), 0)
    answers = [
        "",
        "return 1",
        "#### 3",
        "```python\ndef f(x):\n    return x\n```",
        *(each.reference for each in problems),
    ]
    for answer in answers:
        task.grade(problems, [answer] * len(problems))
    return problems


F = "def f(x):\n    return x\n"
STUB = "def f(x):\n    "
CHECK = "def check(candidate):\n    assert candidate(1) == 1\n"
OWN = {"id": "a", "prompt": "Write f.", "reference": F}
PUBLISHED = {"task_id": "HumanEval/0", "prompt": STUB, "entry_point": "f", "canonical_solution": "    return x\n"}
INPUTS = {"base_input": [[1]], "plus_input": [[2], [3]], "atol": 0}
MBPP_ROW = {"task_id": 11, "text": "Write f.", "code": F, "test_list": ["assert f(1) == 1"], "test_setup_code": "y = 1"}
HUB_TEST = "inputs = [[1], [2]]\nresults = [1, 2]\nfor i in inputs:\n    assertion(f(*i), 1, 0)\n"
TAGGED = "Half of 4? Step 1: 4 / 2 = 2 ки Step 2: The answer is: 2 ки"
CHOICE = {"text": "A.", "question": "B?", "options": ["a", "b", "c", "d"], "id": 1, "answer": 0}

KINDS = {
    "code_problems, asserts": Kind(
        OWN | {"test_list": ["assert f(1) == 1"], "test_setup_code": "y = 1", "test_imports": ["import math"]},
        ("prompt", "reference"),
        lambda path: graded(CustomCodeTask(path, sandbox=Nothing()), "train"),
    ),
    "code_problems, a check": Kind(
        OWN | {"test": CHECK, "entry_point": "f", "split": "train"},
        ("prompt", "reference"),
        lambda path: graded(CustomCodeTask(path, sandbox=Nothing()), "train"),
    ),
    "code_problems, a program": Kind(
        OWN | {"input_output": {"inputs": ["1\n"], "outputs": ["1\n"]}},
        ("prompt", "reference"),
        lambda path: graded(CustomCodeTask(path, sandbox=Nothing()), "train"),
    ),
    "code_problems, messages": Kind(
        OWN | {"prompt": [{"role": "user", "content": "Write f."}], "test_list": ["assert f(1) == 1"]},
        ("prompt", "reference"),
        lambda path: graded(CustomCodeTask(path, style="chat", sandbox=Nothing()), "train"),
    ),
    "human_eval": Kind(
        PUBLISHED | {"test": CHECK},
        (*PUBLISHED, "test"),
        lambda path: graded(HumanEval(path, sandbox=Nothing()), "test"),
    ),
    "human_eval_plus": Kind(
        PUBLISHED | INPUTS, (*PUBLISHED, *INPUTS), lambda path: graded(HumanEvalPlus(path, sandbox=Nothing()), "test")
    ),
    "human_eval_plus, hub": Kind(
        PUBLISHED | {"test": HUB_TEST},
        (*PUBLISHED, "test"),
        lambda path: graded(HumanEvalPlus(path, sandbox=Nothing()), "test"),
    ),
    "mbpp": Kind(
        MBPP_ROW, ("task_id", "text", "code", "test_list"), lambda path: graded(MBPP(path, sandbox=Nothing()), "test")
    ),
    "mbpp_plus": Kind(
        PUBLISHED | INPUTS | {"task_id": "Mbpp/2", "canonical_solution": F, "base_input": [[[1]]], "plus_input": {}},
        (*PUBLISHED, *INPUTS),
        lambda path: graded(MBPPPlus(path, sandbox=Nothing()), "test"),
    ),
    "gsm8k": Kind(
        {"question": "1 + 2?", "answer": "1 + 2 = <<1+2=3>>3\n#### 3"},
        ("question", "answer"),
        lambda path: graded(GSM8K(path), "test"),
    ),
    "math": Kind(
        {"problem": "1 + 2?", "solution": r"\boxed{3}", "answer": "3", "unique_id": "a", "level": 1},
        ("problem", "solution"),
        lambda path: graded(MATH(path), "test"),
    ),
    "math, a list": Kind(
        {"problem": "1 + 2?", "solution": r"\boxed{3}"},
        ("problem", "solution"),
        lambda path: graded(MATH(path), "test"),
        "rows.json",
    ),
    "math_shepherd": Kind(
        {"input": TAGGED, "label": TAGGED.replace("ки", "+"), "task": "GSM8K"},
        ("input", "label"),
        lambda path: list(MathShepherd(path, validation_percent=0).solutions("train")),
    ),
    "logiqa2": Kind(CHOICE, tuple(CHOICE), lambda path: LogiQA2(path).pairs("test", None, 0), "rows.txt"),
    "reclor": Kind(
        {"context": "A.", "question": "B?", "answers": ["a", "b"], "label": 1, "id_string": "x"},
        ("context", "question", "answers", "label", "id_string"),
        lambda path: ReClor(path).pairs("test", None, 0),
        "rows.json",
    ),
    "samples": Kind(
        {"task_id": "T/1", "completion": "return 1", "finished": True},
        ("task_id", "completion"),
        lambda path: read_samples(Path(path), [Problem("T/1", "", "")]),
    ),
}
WRONG: tuple[Any, ...] = (None, True, 1.5, [], {}, [[]], [None], {"a": 1}, [{"role": "user"}], float("nan"), -1)
ODD: tuple[Any, ...] = (
    *WRONG, 0, 10**400, "", " ", "\0", "\ud800", "a" * 20_000, "(" * 2_000, "def f(x):", "import", "\\", "'", "é\u2028",
    ["", ""], ["\0"], "[" * 3_000, {"inputs": [1], "outputs": [1]}, {"inputs": ["a"], "outputs": []}, "{}", "#### ",
    "1" * 5_000, "```", "return", ["assert f(1"], ["assert True"], "-inf", "def f(f): f\nf", "class f: pass", "f = 1",
)  # fmt: skip


def broken(row: dict[str, Any], draw: random.Random, needed: Sequence[str]) -> tuple[dict[str, Any], bool]:
    """The row with one to three changes, and whether one of them leaves out what it needs, or gives it another type."""
    row, refused = dict(row), False
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        key = draw.choice(list(row))
        way = draw.randrange(5)
        if way == 0:
            del row[key]
            refused = refused or key in needed
            if not row:
                break
        elif way == 1 and isinstance(row[key], str):
            row[key] = WRONG[draw.randrange(len(WRONG))]
            # A prompt may be messages; a name may be a number.
            refused = refused or (key in needed and key not in ("prompt", "task_id", "id_string", "id", "label"))
        elif way == 2 and isinstance(row[key], str) and row[key]:
            place = draw.randrange(len(row[key]))
            row[key] = (
                row[key][:place]
                + draw.choice(("", "\0", "(", '"', "\n", " ", "ки", "\r\n", "#"))
                + row[key][place + 1 :]
            )
        elif way == 3 and isinstance(row[key], list) and row[key]:
            row[key] = [*row[key], draw.choice(ODD)]
        else:
            row[key] = draw.choice(ODD)
            refused = False
    return row, refused


def spoilt(text: str, draw: random.Random) -> bytes:
    """The file with a few bytes changed, or as it is."""
    data = bytearray(text.encode("utf-8", "surrogatepass"))
    for _ in range(draw.choice((0, 0, 0, 0, 1, 4))):
        place = draw.randrange(len(data))
        data[place : place + draw.choice((0, 1, 30))] = bytes(
            draw.choice((b"", b"\xff", b"{", b'"', b"\n", b"\\", b"\0"))
        )
    return bytes(data)


def names_its_place(said: str, file: Path) -> bool:
    """The file, or what is no row's fault: a split without rows, problems without tests, questions without pairs."""
    return file.name in said or any(part in said for part in ("no problem of split", "has no tests to grade with"))


@pytest.mark.parametrize("name", KINDS)
def test_broken_rows_are_refused_by_name_or_mean_something(name: str, tmp_path: Path) -> None:
    kind, draw, counts = KINDS[name], random.Random(f"fuzz:{name}"), {"refused": 0, "read": 0}
    file = tmp_path / kind.name
    for number in range(ROUNDS):
        row, must_be_refused = broken(kind.row, draw, kind.needed)
        rows = [kind.row, row] if draw.random() < 0.3 else [row]
        text = json.dumps(rows) if file.suffix == ".json" else "".join(f"{json.dumps(each)}\n" for each in rows)
        data = text.encode() if must_be_refused else spoilt(text, draw)
        file.write_bytes(data)
        at_fault = f"{name}, round {number}, the file: {data!r}"
        try:
            kind.read(str(file))
        except UserError as error:
            counts["refused"] += 1
            assert names_its_place(str(error), file) and len(str(error)) < 1_000, f"{error}; {at_fault}"
        except Exception as error:
            raise AssertionError(f"{type(error).__name__}: {error}; {at_fault}") from error
        else:
            counts["read"] += 1
            assert not must_be_refused, f"taken without a word; {at_fault}"
    assert counts["refused"] > 0 and counts["read"] > 0
