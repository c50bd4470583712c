"""DemonstrationsDataModule: drawn from a task or read from files, one tree a demonstration."""

import json
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Trainer, seed_everything

from lit_pref.data.formats.pairs import DemonstrationKeys
from lit_pref.data.tokens.lengths import LengthLimits
from lit_pref.datamodules import DemonstrationsDataModule, SplitNames
from lit_pref.errors import UserError
from lit_pref.models import EMBEDDED_FOLDER, load_tokenizer
from lit_pref.modules import SFTModule
from lit_pref.tasks import CodeTask
from lit_pref.types import Demonstration

ROWS = [{"prompt": f"# {i}\n", "completion": f"print({i})"} for i in range(6)]


def fitted(data: DemonstrationsDataModule, policy: str, folder: Path, **settings: Any) -> Trainer:
    """Set up through a Trainer; without a step unless the settings say so."""
    defaults: dict[str, Any] = {
        "accelerator": "cpu",
        "max_epochs": 1,
        "limit_train_batches": 0,
        "limit_val_batches": 0,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "default_root_dir": folder,
    }
    trainer = Trainer(**(defaults | settings))
    trainer.fit(SFTModule(policy, scheduler=None), data)
    return trainer


def texts(data: DemonstrationsDataModule, stage: Any = "train") -> list[Demonstration]:
    """Every tree as text; each must be one completion with one EOS at its end."""
    tokenizer, result = load_tokenizer(str(EMBEDDED_FOLDER / "tokenizer")), []
    for prompt, completions in data.data[stage].trees:
        (ids,) = completions
        assert ids[-1] == 0 and 0 not in ids[:-1]
        result.append(Demonstration(tokenizer.decode(prompt), tokenizer.decode(ids[:-1])))
    return result


def written(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_a_task_s_demonstrations_are_those_of_its_splits(policy: str, tmp_path: Path):
    data = DemonstrationsDataModule(CodeTask(), train_size=20, validation_size=7, seed=3)
    fitted(data, policy, tmp_path)
    assert texts(data) == CodeTask().demonstrations("train", 20, 3)
    assert texts(data, "validation") == CodeTask().demonstrations("validation", 7, 3)


def test_the_seed_of_the_run_draws_them(policy: str, tmp_path: Path):
    prints = []
    for seed in (1, 1, 2):
        seed_everything(seed, verbose=False)
        data = DemonstrationsDataModule(train_size=20, validation_size=5)
        fitted(data, policy, tmp_path)
        prints.append(data.fingerprints)
    assert prints[0] == prints[1]
    assert prints[0]["train"] != prints[2]["train"] and prints[0]["validation"] != prints[2]["validation"]


def test_files_are_read_instead_of_a_task(policy: str, tmp_path: Path):
    train, held_out = written(tmp_path / "train.jsonl", ROWS), written(tmp_path / "held_out.jsonl", ROWS[:2])
    data = DemonstrationsDataModule(train=train, validation=held_out, batch_size=4)
    trainer = fitted(data, policy, tmp_path, limit_train_batches=1.0, limit_val_batches=1.0)
    assert texts(data) == [Demonstration(row["prompt"], row["completion"]) for row in ROWS]
    assert texts(data, "validation") == texts(data)[:2]
    assert trainer.global_step == 2  # 6 rows in batches of 4
    assert "validation/loss" in trainer.callback_metrics


def test_a_file_alone_is_not_validated(policy: str, tmp_path: Path):
    data = DemonstrationsDataModule(train=written(tmp_path / "train.jsonl", ROWS))
    trainer = fitted(data, policy, tmp_path, limit_train_batches=1.0, limit_val_batches=1.0)
    assert data.data.keys() == {"train"} and data.val_dataloader() == []
    assert not any(name.startswith("validation") for name in trainer.callback_metrics)


def test_a_share_of_a_file_is_held_out_where_it_is_asked_for(tmp_path: Path):
    train = written(tmp_path / "train.jsonl", ROWS)  # six rows of six prompts
    data = DemonstrationsDataModule(train=train, validation_size=0.34, test_size=1, policy="embedded:coder")
    data.setup("fit")
    data.setup("test")
    assert {split: len(made.trees) for split, made in data.data.items()} == {"validation": 2, "train": 3, "test": 1}
    assert len({tree.prompt_ids for made in data.data.values() for tree in made.trees}) == 6
    with pytest.raises(ValueError, match=r"validation_size is a number of a task's demonstrations, got the share 0.1"):
        DemonstrationsDataModule(validation_size=0.1)


def test_a_data_set_folder_is_asked_for_its_validation_split(policy: str, tmp_path: Path):
    import datasets

    splits = {"train": datasets.Dataset.from_list(ROWS[:4]), "validation": datasets.Dataset.from_list(ROWS[4:])}
    folder = str(tmp_path / "rows")
    datasets.DatasetDict(splits).save_to_disk(folder)
    data = DemonstrationsDataModule(train=folder, validation=folder)
    fitted(data, policy, tmp_path)
    assert [row.prompt for row in texts(data)] == ["# 0\n", "# 1\n", "# 2\n", "# 3\n"]
    assert [row.prompt for row in texts(data, "validation")] == ["# 4\n", "# 5\n"]


def test_long_rows_are_dropped_and_told(policy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    rows = [*ROWS, {"prompt": "#" + " 1" * 30, "completion": "x"}]  # at least 60 tokens: digits stand alone
    data = DemonstrationsDataModule(train=written(tmp_path / "a.jsonl", rows), limits=LengthLimits(max_length=40))
    fitted(data, policy, tmp_path)
    assert len(data.data["train"]) == 6
    assert "train: 6 demonstrations, {'kept': 6, 'dropped_" in capsys.readouterr().out


def test_nothing_within_the_limits_is_an_error(policy: str, tmp_path: Path):
    data = DemonstrationsDataModule(train=written(tmp_path / "a.jsonl", ROWS), limits=LengthLimits(max_length=2))
    with pytest.raises(UserError, match=r"no demonstration of .*a.jsonl is left for train: .*dropped_"):
        fitted(data, policy, tmp_path)
    with pytest.raises(ValueError, match="train_size must be >= 1, got 0"):
        DemonstrationsDataModule(train_size=0)


def test_bad_rows_stop_or_are_skipped_and_unused_columns_named(
    policy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    # The embedded tokenizer has no chat template: its model takes no system text.
    rows = [*ROWS, {"system": "s", **ROWS[0]}, {"prompt": "q"}, {**ROWS[0], "context": "c"}]
    path = written(tmp_path / "a.jsonl", rows)
    with pytest.raises(UserError, match=r"a.jsonl:8: expected the key \"completion\""):
        fitted(DemonstrationsDataModule(train=path), policy, tmp_path)
    with pytest.raises(UserError, match=r"a.jsonl:7: a conversation needs a chat template"):
        fitted(DemonstrationsDataModule(train=path, splits=SplitNames("train[:7]")), policy, tmp_path)
    data = DemonstrationsDataModule(train=path, on_bad_row="skip")
    fitted(data, policy, tmp_path)
    assert len(data.data["train"]) == 7
    skipped = json.loads((tmp_path / "skipped_rows_train.json").read_text())
    assert skipped["counts"] == {"missing key": 1, "chat template": 1}
    told = capsys.readouterr()
    assert "skipped rows: 1 missing key, 1 chat template" in told.out
    assert f'{path}:9: column "context" is not used' in told.err


def test_key_names_of_the_user(policy: str, tmp_path: Path):
    rows = [{"question": row["prompt"], "answer": row["completion"]} for row in ROWS]
    keys = DemonstrationKeys("question", "answer")
    data = DemonstrationsDataModule(
        train=written(tmp_path / "a.jsonl", rows), keys=keys, splits=SplitNames(validation="train[:2]")
    )
    fitted(data, policy, tmp_path)
    assert (
        texts(data)[:2] == texts(data, "validation") == [Demonstration(r["prompt"], r["completion"]) for r in ROWS[:2]]
    )
