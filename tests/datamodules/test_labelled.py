"""Labelled responses: rows of the field, who is mismatched with whom, and samples labelled by execution."""

from pathlib import Path
from typing import Any

import pytest

from lit_pref.data.reading.rows import Row, RowError
from lit_pref.datamodules import ExecutionLabelsDataModule, LabelledDataModule, Samples
from lit_pref.datamodules.labelled import LabelledKeys, LabelledResponse, to_labelled, with_mismatched
from lit_pref.errors import UserError
from lit_pref.types import Outcome, Sampling, TokenTree
from tests.datamodules.test_execution import Parity, brief_llama
from tests.tiny import rows_file, saved


def user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


def assistant(content: str) -> dict[str, str]:
    return {"role": "assistant", "content": content}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"prompt": "q", "completion": "a", "label": True}, LabelledResponse("q", "a", True)),
        ({"prompt": "q", "completion": "a", "label": "False"}, LabelledResponse("q", "a", False)),  # of a CSV file
        ({"prompt": "q", "response": "a", "label": 1}, LabelledResponse("q", "a", True)),
        ({"prompt": "q", "completion": "a", "kto_tag": False}, LabelledResponse("q", "a", False)),
        (
            {"instruction": "do", "input": "it", "output": "a", "kto_tag": True},
            LabelledResponse((user("do\nit"),), (assistant("a"),), True),
        ),
        (
            {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}], "kto_tag": False},
            LabelledResponse((user("q"),), (assistant("a"),), False),
        ),
        (
            {"prompt": [user("q")], "completion": [assistant("a")], "label": True},
            LabelledResponse((user("q"),), (assistant("a"),), True),
        ),
        (
            {"prompt": "q", "completion": "a", "label": True, "completion_ids": [5, 0]},
            LabelledResponse("q", "a", True, (5, 0)),
        ),
    ],
)
def test_rows_of_the_field(values: dict[str, Any], expected: LabelledResponse):
    assert to_labelled(Row("rows.jsonl:1", values)) == expected


def test_keys_of_one_s_own():
    row = Row("rows.jsonl:1", {"q": "x", "a": "y", "good": 0})
    assert to_labelled(row, LabelledKeys("q", "a", "good")) == LabelledResponse("x", "y", False)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"prompt": "q", "completion": "a"}, r'rows.jsonl:1: expected the key "label"'),
        ({"prompt": "q", "completion": "a", "label": 2}, r'rows.jsonl:1: expected true or false under "label", got 2'),
        ({"prompt": "q", "completion": "a", "label": None}, "expected true or false"),
        ({"prompt": "q", "completion": "a", "kto_tag": [True]}, 'expected true or false under "kto_tag"'),
        ({"prompt": "q", "completion": " ", "label": True}, "empty response"),
    ],
)
def test_rows_that_say_nothing_are_named(values: dict[str, Any], message: str):
    with pytest.raises(RowError, match=message):
        to_labelled(Row("rows.jsonl:1", values))


def test_every_completion_is_once_behind_another_prompt():
    # Seven prompts with one to four completions each, 16 in all: no prompt has more than half.
    trees = [TokenTree((prompt,), ((100 + prompt, i),)) for prompt in range(7) for i in range(1 + prompt % 4)]
    made = with_mismatched(trees, seed=0)
    assert [tree.completion_ids[0] for tree in made] == [tree.completion_ids[0] for tree in trees]
    assert sorted(tree.completion_ids[1] for tree in made) == sorted(tree.completion_ids[0] for tree in trees)
    assert all(tree.completion_ids[1][0] != 100 + tree.prompt_ids[0] for tree in made)
    assert made == with_mismatched(trees, seed=0) != with_mismatched(trees, seed=1)


def test_a_mismatched_completion_is_cut_where_its_own_would_be():
    # The other completion has 4 tokens; behind a prompt of 3, 5 tokens leave room for 2.
    trees = [TokenTree((1, 2, 3), ((4,),)), TokenTree((5,), ((6, 7, 8, 9),))]
    first, second = with_mismatched(trees, seed=0, max_length=5)
    assert first.completion_ids == ((4,), (6, 7)) and second.completion_ids == ((6, 7, 8, 9), (4,))


def test_files_are_seen_without_a_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    rows = [{"prompt": f"x = {i}\n", "completion": f"print({i})", "label": i % 2 == 0} for i in range(5)]
    path = rows_file(tmp_path / "rows.jsonl", [*rows, {"prompt": "x", "completion": "y", "label": "maybe"}])
    data = LabelledDataModule(path, validation_size=0, on_bad_row="skip", policy="embedded:coder", batch_size=5)
    data.setup("fit")
    (batch,) = data.train_dataloader()
    assert batch.kind == "labelled" and batch.value_R is not None
    assert dict(zip(batch.row_R.tolist(), batch.value_R.tolist(), strict=True)) == {0: 1, 1: 0, 2: 1, 3: 0, 4: 1}
    assert batch.sibling_K.tolist() == [0, 1] * 5
    capsys.readouterr()
    data.show(1)
    assert capsys.readouterr().out.startswith("train: 5 rows (3 desirable, 2 undesirable")
    with pytest.raises(UserError, match=r'rows.jsonl:6: expected true or false under "label", got'):
        LabelledDataModule(path, policy="embedded:coder").setup("fit")


def test_whole_prompts_are_held_out_of_a_file_and_skipped_rows_are_told_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    rows = [{"prompt": f"x = {i // 2}\n", "completion": f"print({i})", "label": i % 2 == 0} for i in range(20)]
    path = rows_file(tmp_path / "rows.jsonl", [*rows, {"prompt": "x", "completion": "y", "label": "maybe"}])
    sizes = {"validation_size": 0.2, "test_size": 2}
    data = LabelledDataModule(path, on_bad_row="skip", policy="embedded:coder", **sizes)  # type: ignore[arg-type]
    for stage in ("fit", "test"):
        data.setup(stage)
    prompts = {split: {tree.prompt_ids for tree in made.trees} for split, made in data.data.items()}
    # 20 rows of 10 prompts: 4 and 2 rows are held out, with both rows of each prompt.
    assert {split: len(made.trees) for split, made in data.data.items()} == {"train": 14, "validation": 4, "test": 2}
    assert {split: len(found) for split, found in prompts.items()} == {"train": 7, "validation": 2, "test": 1}
    assert len(set.union(*prompts.values())) == 10
    assert capsys.readouterr().out.count("skipped rows: 1 not a label") == 1
    with pytest.raises(ValueError, match=r"validation_size must be a share in \[0, 1\) or a count >= 0, got 1.0"):
        LabelledDataModule(path, validation_size=1.0)


def test_samples_are_labelled_by_their_verdicts(tmp_path: Path):
    policy = saved(tmp_path / "model", brief_llama())
    samples = Samples(8, Sampling(max_new_tokens=8))
    sizes = {"train_size": 6, "validation_size": 4, "samples": samples, "policy": policy, "batch_size": 500}
    data = ExecutionLabelsDataModule(Parity(), **sizes)  # type: ignore[arg-type]
    data.setup("fit")
    (batch,) = data.train_dataloader()
    tokenizer, trees = data.module.tokenizer, data.data["train"].trees
    labels = dict(zip(batch.row_R.tolist(), batch.value_R.tolist(), strict=True))
    assert len(labels) == len(trees) > 6 and data.counts["train"]["desirable"] == sum(labels.values()) > 0
    for row, tree in enumerate(trees):
        text = tokenizer.decode(tree.completion_ids[0], skip_special_tokens=True)
        assert labels[row] == (len(text) % 2 == 0), text
    with pytest.raises(UserError, match="usable samples of train all pass or all fail"):
        ExecutionLabelsDataModule(Parity(Outcome.FAILED), **sizes).make("train")  # type: ignore[arg-type]
