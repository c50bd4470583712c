"""What each data module gives without a fit, and that each command reads its own split and makes no other."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lit_pref.data.tokens.lengths import LengthLimits
from lit_pref.datamodules import (
    CodePairsDataModule,
    DemonstrationsDataModule,
    ExecutionPairsDataModule,
    Loading,
    PairsDataModule,
    PassingSamplesDataModule,
    Samples,
    SplitNames,
    TaskPairsDataModule,
)
from lit_pref.errors import UserError
from lit_pref.losses import DPO, SimPO
from lit_pref.models import load_tokenizer
from lit_pref.modules import DPOModule, SFTModule
from lit_pref.types import Sampling
from tests.tiny import rows_file, trainer_for

CODER = "embedded:coder"
FEW = Samples(4, Sampling(max_new_tokens=64))


def written(path: Path, rows: range) -> str:
    return rows_file(path, [{"prompt": f"# {i}\n", "chosen": "x = 1", "rejected": "y"} for i in rows])


def module_of() -> DPOModule:
    return DPOModule(CODER, SimPO(), scheduler=None)


# --- without a fit ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda path: PairsDataModule(path, policy=CODER), "pair"),
        (lambda path: DemonstrationsDataModule(train_size=8, validation_size=4, policy=CODER), "demonstration"),
        (lambda path: TaskPairsDataModule(train_size=8, validation_size=4, policy=CODER), "pair"),
        (
            lambda path: ExecutionPairsDataModule(train_size=16, validation_size=8, samples=FEW, policy=CODER),
            "pair",
        ),
        (
            lambda path: PassingSamplesDataModule(train_size=16, validation_size=8, samples=FEW, policy=CODER),
            "demonstration",
        ),
        (lambda path: CodePairsDataModule(train_size=16, validation_size=2, policy=CODER), "pair"),
    ],
    ids=["pairs", "demonstrations", "task", "execution", "passing", "code"],
)
def test_batches_and_rows_are_seen_with_only_a_policys_name(
    make: Callable[[str], Any], kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    data = make(written(tmp_path / "pairs.jsonl", range(20)))
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert batch.kind == kind and data.data.keys() == {"train", "validation"}
    trees = batch.trees
    capsys.readouterr()
    data.show(2)
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith(f"train: {len(data.data['train'])} rows (")
    tree, tokenizer = data.data["train"].trees[0], load_tokenizer(CODER)
    sides = ("chosen", "rejected") if len(tree.completion_ids) == 2 else ("completion",)
    assert shown[1:4] == [
        f"row 0: {tree.shared_length} tokens, the prompt counted once",
        f"  prompt, {len(tree.prompt_ids)} tokens: {tokenizer.decode(tree.prompt_ids)!r}",
        f"  {sides[0]}, {len(tree.completion_ids[0])} tokens: {tokenizer.decode(tree.completion_ids[0])!r}",
    ]
    assert shown[3].endswith("<eos>'") and len(shown) == 1 + 2 * (2 + len(sides))
    assert trees.input_ids_BT.shape[0] == 1  # packed, as the module would lay them out


def test_what_a_limit_cut_is_seen(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    # prompt "# 0\n": 3 tokens or more; "x = 1" and EOS do not fit into 6
    limits = LengthLimits(max_length=6, overlong="truncate")
    data = PairsDataModule(written(tmp_path / "a.jsonl", range(3)), limits=limits, policy=CODER, validation_size=0)
    data.show(1)
    shown = capsys.readouterr().out
    assert "3 truncated_completion" in shown and ", cut at its end: 'x" in shown


def test_tokens_of_a_look_are_those_of_the_fit(tmp_path: Path):
    path = written(tmp_path / "a.jsonl", range(20))
    seen, fitted = PairsDataModule(path, policy=CODER), PairsDataModule(path)
    seen.setup("fit")
    trainer_for(tmp_path).fit(module_of(), fitted)
    assert seen.fingerprints == fitted.fingerprints and seen.fingerprints.keys() == {"train", "validation"}
    # What was seen trains, too.
    trainer = trainer_for(tmp_path)
    trainer.fit(SFTModule(CODER), seen)
    assert trainer.global_step == 1 and seen.module is trainer.lightning_module


# --- the split of each command ----------------------------------------------------------------------------------------


def test_a_fit_validates_and_test_tests(tmp_path: Path):
    files = [written(tmp_path / f"{name}.jsonl", rows) for name, rows in zip("abc", map(range, (8, 2, 3)), strict=True)]
    data, module = PairsDataModule(*files, batch_size=4), DPOModule(CODER, DPO(0.1), scheduler=None)
    trainer = trainer_for(tmp_path)
    trainer.fit(module, data)
    assert data.data.keys() == {"train", "validation"}
    assert {name.split("/")[0] for name in trainer.callback_metrics} == {"train", "validation"}
    trainer.validate(module, data, verbose=False)
    assert "test" not in data.data
    trainer.test(module, data, verbose=False)
    assert {name.split("/")[0] for name in trainer.callback_metrics} == {"test"}
    assert [len(data.data[split]) for split in ("train", "validation", "test")] == [8, 2, 3]
    predicted = trainer.predict(module, data)
    assert predicted is not None and sum(len(each["row"]) for each in predicted) == 3  # type: ignore[call-overload]


def test_without_test_data_test_says_so_and_predict_takes_validation_data(tmp_path: Path):
    data, module = PairsDataModule(written(tmp_path / "a.jsonl", range(20)), validation_size=5), module_of()
    with pytest.raises(UserError, match=r"no test data: give data.test or data.test_size"):
        trainer_for(tmp_path).test(module, data)
    predicted = trainer_for(tmp_path).predict(module, data)
    assert predicted is not None and sum(len(each["row"]) for each in predicted) == 5  # type: ignore[call-overload]
    assert data.data.keys() == {"validation"}


def test_counts_and_shares_hold_out_rows_that_overlap_nowhere(tmp_path: Path):
    path = written(tmp_path / "a.jsonl", range(40))
    by_count = PairsDataModule(path, validation_size=10, test_size=4, policy=CODER, seed=3)
    by_share = PairsDataModule(path, validation_size=0.25, test_size=0.1, policy=CODER, seed=3)
    rows = []
    for data in (by_count, by_share):
        data.setup("fit")
        data.setup("test")
        rows.append({split: [tree.prompt_ids for tree in each.trees] for split, each in data.data.items()})
    assert rows[0] == rows[1] and {split: len(each) for split, each in rows[0].items()} == {
        "validation": 10,
        "train": 26,
        "test": 4,
    }
    assert len({ids for each in rows[0].values() for ids in each}) == 40
    # Whatever is held out for test, the validation rows of a seed are the same.
    without = PairsDataModule(path, validation_size=10, policy=CODER, seed=3)
    without.setup("fit")
    assert without.fingerprints["validation"] == by_count.fingerprints["validation"]


def test_each_split_of_a_task_is_drawn_from_its_own(tmp_path: Path):
    data = DemonstrationsDataModule(train_size=6, validation_size=5, test_size=4, policy=CODER, seed=3)
    assert data.task is not None
    for split, count in (("train", 6), ("validation", 5), ("test", 4)):
        data.make(split)  # type: ignore[arg-type]
        prompts = [load_tokenizer(CODER).decode(tree.prompt_ids) for tree in data.data[split].trees]  # type: ignore[index]
        assert prompts == [each.prompt for each in data.task.demonstrations(split, count, 3)]  # type: ignore[arg-type]
    none = DemonstrationsDataModule(train_size=6, validation_size=0, test_size=0, policy=CODER)
    assert none.needed("fit") == ["train"]
    with pytest.raises(UserError, match=r"no validation data: give data.validation or data.validation_size"):
        none.setup("validate")


def test_a_named_test_split_of_a_file(tmp_path: Path):
    path = written(tmp_path / "a.jsonl", range(10))
    data = PairsDataModule(path, splits=SplitNames("train[:8]", test="train[8:]"), policy=CODER, loading=Loading(64))
    data.setup("test")
    prompts = [load_tokenizer(CODER).decode(tree.prompt_ids) for tree in data.data["test"].trees]
    assert prompts == ["# 8\n", "# 9\n"]
