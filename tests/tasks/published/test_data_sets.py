"""Choice data, ReClor and LogiQA 2.0: the published formats, questions and pairs of options."""

import inspect
import json
from pathlib import Path
from typing import Any

import docstring_parser
import pytest

from lit_pref.data.reading.rows import RowError
from lit_pref.errors import UserError
from lit_pref.tasks import GSM8K, MATH, MBPP, CustomCodeTask, HumanEval, HumanEvalPlus, LogiQA2, MBPPPlus, ReClor

RECLOR = [
    {
        "context": f"Text {n}.",
        "question": "Which one follows?",
        "answers": [f"{n}a", f"{n}b", f"{n}c", f"{n}d"],
        "label": n % 4,
        "id_string": f"train_{n}",
    }
    for n in range(6)
]
LOGIQA2 = [
    {
        "id": 218,
        "answer": 3,
        "text": "Jupiter is a gas giant.",
        "question": "Which of the followings supports it?",
        "options": ["first", "second", "third", "fourth"],
        "type": {"Categorical Reasoning": True, "Conjunctive Reasoning": True},
    },
    {"id": 218, "answer": 0, "text": "Other.", "question": "What?", "options": ["yes", "no", "maybe", "never"]},
]


def written(path: Path, rows: list[dict[str, Any]]) -> str:
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_text(json.dumps(rows) if path.suffix == ".json" else lines)
    return str(path)


def test_reclor_s_rows_become_questions(tmp_path: Path) -> None:
    questions = ReClor(written(tmp_path / "val.json", RECLOR)).questions("validation", None, 0)
    assert [each.id for each in questions] == [row["id_string"] for row in RECLOR]
    assert questions[5].prompt == "Text 5.\n\nWhich one follows?\n"
    assert (questions[5].options, questions[5].answer) == (("5a", "5b", "5c", "5d"), 1)


def test_the_hub_s_labels_are_digits(tmp_path: Path) -> None:
    rows = [row | {"label": str(row["label"])} for row in RECLOR]
    task = ReClor(written(tmp_path / "rows.jsonl", rows))
    assert [each.answer for each in task.questions("train", None, 0)] == [0, 1, 2, 3, 0, 1]


def test_a_folder_as_reclor_is_given_out(tmp_path: Path) -> None:
    for name, rows in {"train": RECLOR[:2], "val": RECLOR[2:5], "test": [RECLOR[5]]}.items():
        written(tmp_path / f"{name}.json", rows)
    assert [ReClor(str(tmp_path)).size(split) for split in ReClor.splits] == [2, 3, 1]


def test_a_source_that_nobody_publishes_must_be_named() -> None:
    with pytest.raises(UserError, match="ReClor needs a source: a file, a folder or a hub id"):
        ReClor()
    assert LogiQA2().source == "baber/logiqa2:logiqa2"


@pytest.mark.parametrize(
    "task", [ReClor, LogiQA2, HumanEval, HumanEvalPlus, MBPP, MBPPPlus, GSM8K, MATH, CustomCodeTask]
)
def test_help_describes_every_argument(task: type) -> None:
    owner = next(each for each in task.__mro__ if "__init__" in vars(each))
    described = {each.arg_name for each in docstring_parser.parse(owner.__doc__ or "").params}
    assert described == inspect.signature(task).parameters.keys()


def test_logiqa2_s_text_files_are_json_lines(tmp_path: Path) -> None:
    for name, rows in {"train": LOGIQA2, "dev": LOGIQA2[:1], "test": LOGIQA2[1:], "dev_zh": [{}]}.items():
        written(tmp_path / f"{name}.txt", rows)
    assert [LogiQA2(str(tmp_path)).size(split) for split in LogiQA2.splits] == [2, 1, 1]
    assert LogiQA2(str(tmp_path / "dev.txt")).size("test") == 1  # a file is read whole, whatever the split
    (tmp_path / "bad.txt").write_text(json.dumps(LOGIQA2[0]) + "\n{\n")
    with pytest.raises(RowError, match=r"bad\.txt:2: broken JSON"):
        LogiQA2(str(tmp_path / "bad.txt")).size("test")
    (tmp_path / "other.md").write_text("")
    with pytest.raises(UserError, match=r"other\.md: unknown file type"):
        LogiQA2(str(tmp_path / "other.md")).size("test")


def test_logiqa2_s_rows_become_questions(tmp_path: Path) -> None:
    first, second = LogiQA2(written(tmp_path / "dev.jsonl", LOGIQA2)).questions("test", 2, 0)
    assert first.prompt == "Jupiter is a gas giant.\n\nWhich of the followings supports it?\n"
    assert (first.options[first.answer], second.options[second.answer]) == ("fourth", "yes")
    assert first.id.startswith("218-") and first.id != second.id  # its numbers need not be unique


def test_pairs_hold_the_right_option_over_each_wrong_one(tmp_path: Path) -> None:
    task = ReClor(written(tmp_path / "rows.json", RECLOR))
    pairs = task.pairs("train", None, seed=0)
    assert len(pairs) == 18
    for start in range(0, 18, 3):
        of_one = pairs[start : start + 3]
        number = int(of_one[0].prompt[5])
        right = RECLOR[number]["answers"][number % 4]
        assert {pair.chosen for pair in of_one} == {right}
        assert {pair.rejected for pair in of_one} == set(RECLOR[number]["answers"]) - {right}
    assert task.pairs("train", 7, seed=0) == pairs[:7]
    assert [pair.prompt for pair in task.pairs("train", None, seed=1)] != [pair.prompt for pair in pairs]


def test_or_over_one_that_the_seed_draws(tmp_path: Path) -> None:
    task = ReClor(written(tmp_path / "rows.json", RECLOR), rejected="one")
    drawn = {seed: task.pairs("train", None, seed) for seed in range(8)}
    assert all(len({pair.prompt for pair in pairs}) == len(pairs) == 6 for pairs in drawn.values())
    of_first = {pair.rejected for pairs in drawn.values() for pair in pairs if "Text 0." in pair.prompt}
    assert of_first == {"0b", "0c", "0d"}


def test_a_conversation_s_options_answer_a_turn(tmp_path: Path) -> None:
    task = LogiQA2(written(tmp_path / "rows.json", LOGIQA2[:1]), style="chat")
    (question,) = task.questions("train", None, 0)
    assert question.prompt[0]["role"] == "user" and "Jupiter" in question.prompt[0]["content"]
    assert task.pairs("train", 1, 0)[0].chosen == ({"role": "assistant", "content": "fourth"},)


def test_rows_that_are_none_are_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    unlabelled = {name: value for name, value in RECLOR[1].items() if name != "label"}
    for row, message in (
        (unlabelled, r'rows.jsonl:2: "label" holds no right option; test splits may be published without'),
        (RECLOR[1] | {"label": ""}, r'rows.jsonl:2: "label" holds no right option'),
        (RECLOR[1] | {"label": 4}, r'rows.jsonl:2: expected one of 0\.\.3 under "label", got 4'),
        (RECLOR[1] | {"label": True}, r'expected one of 0\.\.3 under "label", got True'),
        (RECLOR[1] | {"label": "A"}, r"expected one of 0\.\.3 under \"label\", got 'A'"),
        (RECLOR[1] | {"answers": ["only"]}, r'rows.jsonl:2: expected at least 2 options under "answers", got 1'),
        (RECLOR[1] | {"answers": "abcd"}, r'rows.jsonl:2: expected a list of texts under "answers"'),
        (RECLOR[1] | {"id_string": "train_0"}, r"rows.jsonl:2: the id 'train_0' stands in an earlier, other row"),
    ):
        with pytest.raises(RowError, match=message):
            ReClor(written(path, [RECLOR[0], row])).size("test")


def test_more_than_there_are(tmp_path: Path) -> None:
    task = ReClor(written(tmp_path / "rows.json", RECLOR))
    assert task.size("test") == 6 and len(task.questions("test", 2, 0)) == 2
    with pytest.raises(UserError, match="split 'test' of reclor has 6 items, 7 asked for"):
        task.questions("test", 7, 0)
    with pytest.raises(UserError, match="split 'test' of reclor gives 18 pairs, 19 asked for"):
        task.pairs("test", 19, 0)
    with pytest.raises(UserError, match="reclor has no split 'dev': expected one of train, validation, test"):
        task.questions("dev", 1, 0)
    with pytest.raises(ValueError, match='rejected must be "each" or "one", got \'none\''):
        ReClor("x", rejected="none")
