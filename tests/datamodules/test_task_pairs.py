"""TaskPairsDataModule: a task's pairs as trees; what is held out is the same for every run."""

import json
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import LightningModule, seed_everything

from lit_pref.data.tokens.lengths import LengthLimits
from lit_pref.datamodules import TaskPairsDataModule
from lit_pref.errors import UserError
from lit_pref.losses import BradleyTerry
from lit_pref.models import EMBEDDED_FOLDER, load_tokenizer
from lit_pref.modules import PMPretrainModule, RewardFinetuneModule
from lit_pref.tasks import DeductionTask, ReasoningTask, ReClor
from lit_pref.types import PairTask, PreferencePair, Split
from tests.tiny import trainer_for

EOS = 0


class Numbered(PairTask):
    """10 pairs a split and seed; those of even numbers have long prompts. Counts what it is asked for."""

    name = "numbered"

    def __init__(self, margins: bool = False, equal: bool = False) -> None:
        self.margins, self.equal = margins, equal
        self.asked: list[tuple[Split, int | None, int]] = []

    def pairs(self, split: Split, count: int | None, seed: int) -> list[PreferencePair]:
        self.asked.append((split, count, seed))
        return [
            PreferencePair(
                f"# {split} {seed} {i}" + " word" * (i % 2 == 0) * 30,
                "right",
                "right" if self.equal else "wrong",
                float(i) if self.margins else None,
            )
            for i in range(10 if count is None else count)
        ]


def made(data: TaskPairsDataModule, module: LightningModule, folder: Path) -> TaskPairsDataModule:
    """Set up through a Trainer, without a step."""
    trainer_for(folder, limit_train_batches=0, limit_val_batches=0).fit(module, data)
    return data


def texts(data: TaskPairsDataModule, stage: Any, end: tuple[int, ...] = (EOS,)) -> list[PreferencePair]:
    """The pairs of every tree; each side must end with `end`, and with that alone."""
    tokenizer, found = load_tokenizer(str(EMBEDDED_FOLDER / "tokenizer")), []
    for prompt, sides in data.data[stage].trees:
        own = [ids[: len(ids) - len(end)] for ids in sides]
        assert all(ids[len(ids) - len(end) :] == end for ids in sides) and not any(EOS in ids for ids in own)
        found.append(PreferencePair(*(tokenizer.decode(ids) for ids in (prompt, *own))))
    return found


@pytest.mark.parametrize("task", [ReasoningTask(), DeductionTask()], ids=lambda task: task.name)
def test_pairs_are_those_of_the_task(policy: str, tmp_path: Path, task: PairTask):
    data = TaskPairsDataModule(task, train_size=12, validation_size=6, seed=4)
    made(data, RewardFinetuneModule(policy), tmp_path)
    assert texts(data, "train") == task.pairs("train", 12, 4)
    assert texts(data, "validation") == task.pairs("validation", 6, 0)
    # As a reward model that reads the last own token takes them
    other = made(
        TaskPairsDataModule(task, train_size=12, validation_size=6, seed=4), PMPretrainModule(policy), tmp_path
    )
    assert texts(other, "train", end=()) == task.pairs("train", 12, 4)
    assert texts(other, "validation", end=()) == task.pairs("validation", 6, 0)


def test_rows_of_a_data_set_are_taken_whole(policy: str, tmp_path: Path):
    rows = [
        {"context": "c", "question": f"q{i}", "answers": ["a", "b", "d"], "label": i % 3, "id_string": f"r{i}"}
        for i in range(4)
    ]
    (tmp_path / "val.json").write_text(json.dumps(rows))
    task = ReClor(str(tmp_path / "val.json"))
    data = TaskPairsDataModule(task, train_size=None, validation_size=None)
    made(data, RewardFinetuneModule(policy), tmp_path)
    # each of two wrong options of four questions
    assert len(texts(data, "train")) == len(texts(data, "validation")) == 8
    assert set(texts(data, "train")) == set(task.pairs("train", None, 9))


def test_held_out_pairs_are_the_same_for_every_run(policy: str, tmp_path: Path):
    prints = []
    for seed in (1, 1, 2):
        seed_everything(seed, verbose=False)
        data = TaskPairsDataModule(train_size=8, validation_size=4)
        prints.append(made(data, RewardFinetuneModule(policy), tmp_path).fingerprints)
    assert prints[0] == prints[1]
    assert prints[0]["train"] != prints[2]["train"] and prints[0]["validation"] == prints[2]["validation"]


def test_each_split_is_made_once_and_only_where_it_is_needed(policy: str, tmp_path: Path):
    module, task = RewardFinetuneModule(policy), Numbered()
    data = TaskPairsDataModule(task, train_size=None, validation_size=3, seed=5, batch_size=4)
    trainer_for(tmp_path).validate(module, data, verbose=False)
    assert task.asked == [("validation", 3, 0)]
    for _ in range(2):
        trainer = trainer_for(tmp_path)
        trainer.fit(module, data)
        assert trainer.global_step == 3  # 10 pairs in batches of 4
    assert task.asked == [("validation", 3, 0), ("train", None, 5)]
    trainer_for(tmp_path).test(module, data, verbose=False)
    assert task.asked[2:] == [("test", 1000, 0)]


def test_more_pairs_are_the_same_and_others(policy: str, tmp_path: Path):
    few, many = (
        texts(
            made(TaskPairsDataModule(train_size=n, validation_size=2), RewardFinetuneModule(policy), tmp_path), "train"
        )
        for n in (5, 9)
    )
    assert many[:5] == few and len(set(many)) == 9


def test_margins_reach_a_loss_that_asks_for_them(policy: str, tmp_path: Path):
    data = TaskPairsDataModule(Numbered(margins=True), train_size=8, validation_size=2, batch_size=8)
    made(data, RewardFinetuneModule(policy, loss=BradleyTerry(use_margin=True)), tmp_path)
    (batch,) = data.train_dataloader()
    assert batch.value_R.tolist() == [float(row) for row in batch.row_R]


def test_pairs_that_are_too_long_are_dropped_and_counted(policy: str, tmp_path: Path, capsys: Any):
    limits = LengthLimits(max_length=30)
    data = TaskPairsDataModule(Numbered(), train_size=9, validation_size=5, limits=limits)
    made(data, RewardFinetuneModule(policy), tmp_path)
    # Numbers 0, 2, 4, 6 and 8 of 9, and 0, 2 and 4 of 5
    assert (len(data.data["train"]), len(data.data["validation"])) == (4, 2)
    told = capsys.readouterr().out
    assert "train: 4 pairs, {'kept': 4, 'dropped_prompt_fills_limit': 5}" in told
    assert "validation: 2 pairs, {'kept': 2, 'dropped_prompt_fills_limit': 3}" in told


def test_nothing_left_is_an_error_with_its_counts(policy: str, tmp_path: Path):
    data = TaskPairsDataModule(Numbered(equal=True), train_size=4, validation_size=2)
    with pytest.raises(UserError, match=r"no pair of numbered, validation, is left: .*'dropped_equal_sides': 2"):
        made(data, RewardFinetuneModule(policy), tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train_size": 0}, "train_size must be >= 1, got 0"),
        ({"validation_size": -1}, "validation_size must be >= 0, got -1"),
        ({"batch_size": 0}, "batch_size must be >= 1, got 0"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        TaskPairsDataModule(**settings)
