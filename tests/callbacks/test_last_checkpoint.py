"""When the newest state is saved: by the clock after a step, at an epoch end, at a failure; never of half a step."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lit_pref.callbacks import LastCheckpoint, last_checkpoint


class Tiny(LightningModule):
    def __init__(self, fails_at: int = -1) -> None:
        super().__init__()
        self.layer, self.fails_at = nn.Linear(2, 1), fails_at

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        if batch_idx == self.fails_at:
            raise OSError("the data went away")
        return self.layer(batch).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Recorded(Trainer):
    saved: list[int]

    def save_checkpoint(self, *arguments: Any, **named: Any) -> None:
        self.saved = [*getattr(self, "saved", []), self.global_step]
        super().save_checkpoint(*arguments, **named)


def trainer_of(folder: Path, callback: LastCheckpoint) -> Recorded:
    return Recorded(
        accelerator="cpu", max_epochs=2, accumulate_grad_batches=2, logger=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[callback], default_root_dir=folder,
    )  # fmt: skip


DATA = DataLoader(torch.ones(7, 2))  # steps after 2, 4, 6 and 7 batches of an epoch


def test_by_the_clock_after_a_step_and_at_an_epoch_s_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(last_checkpoint, "_SHARE", float("inf"))
    trainer = trainer_of(tmp_path, LastCheckpoint(minutes=1e-9))
    trainer.fit(Tiny(), DATA)
    assert trainer.saved == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["last.ckpt"]


def test_saving_takes_no_more_than_its_share_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(last_checkpoint, "_SHARE", 1e-9)
    trainer = trainer_of(tmp_path, LastCheckpoint(minutes=1e-9))
    trainer.fit(Tiny(), DATA)
    assert trainer.saved == [1, 4, 8]  # how long it takes is not known before the first, and epochs' ends are saved


def test_where_a_run_fails_its_last_step(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, LastCheckpoint())
    with pytest.raises(OSError, match="the data went away"):
        trainer.fit(Tiny(fails_at=5), DATA)
    assert trainer.saved == [2]  # the batches 0 to 3; the fifth began another one


def test_minutes_are_checked() -> None:
    with pytest.raises(ValueError, match="minutes must be > 0, got 0"):
        LastCheckpoint(minutes=0)
