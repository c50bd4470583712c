"""The bar without a terminal and in a made-up one."""

import io
import re
from pathlib import Path

import pytest
import rich
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lit_pref.callbacks import MetricsCSV, TrainingProgress


class Module(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        loss = self.layer(batch).sum()
        self.log("train/loss", 0.0 * loss.detach() + 0.25, prog_bar=True)
        self.log("train/hidden", 1.0)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Prints(Callback):
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        rich.get_console().print("closing table")


class Versioned(MetricsCSV):
    @property
    def version(self) -> str:
        return "7abc"


def shown(folder: Path, monkeypatch: pytest.MonkeyPatch, terminal: bool) -> str:
    stream = io.StringIO()
    console = rich.console.Console(file=stream, force_terminal=terminal, width=120, color_system=None)
    monkeypatch.setattr(rich, "_console", console)
    monkeypatch.setattr(rich, "reconfigure", lambda **_: None)
    monkeypatch.setattr("lightning.pytorch.callbacks.progress.rich_progress.reconfigure", lambda **_: None)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=Versioned(folder),
        log_every_n_steps=1,
        callbacks=[TrainingProgress(), Prints()],
        default_root_dir=folder,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(Module(), DataLoader(torch.zeros(6, 3), batch_size=2))  # type: ignore[arg-type]
    return stream.getvalue()


def test_shows_rate_and_what_the_module_marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    text = shown(tmp_path, monkeypatch, terminal=True)
    assert "3/3" in text and "it/s" in text and "•" in text  # batches, rate, elapsed • left
    assert "train/loss: 0.250" in text
    assert "hidden" not in text and "v_num" not in text


def test_the_bar_ends_before_what_is_printed_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    text = shown(tmp_path, monkeypatch, terminal=True)
    assert text.rindex("3/3") < text.rindex("closing table")


def test_prints_a_line_where_there_is_no_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    text = shown(tmp_path, monkeypatch, terminal=False)
    lines = [line for line in text.splitlines() if line.strip()]
    assert len(lines) == 2 and "3/3" in lines[0] and lines[1] == "closing table"


def test_a_log_gets_a_line_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    for seconds in ("_FIRST", "_EVERY"):
        monkeypatch.setattr(f"lit_pref.machine.progress.{seconds}", 0.0)
    shown(tmp_path, monkeypatch, terminal=False)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Training")]
    # 6 rows in batches of 2
    assert [re.sub(r"[\d.,]+/s, \d:\d\d:\d\d", "R/s, T", line) for line in lines] == [
        f"Training, steps: {step} of 3, R/s, T left, train/loss 0.25" for step in (1, 2, 3)
    ]
    monkeypatch.setattr("lit_pref.machine.progress._FIRST", 3600.0)
    shown(tmp_path, monkeypatch, terminal=False)
    assert "Training" not in capsys.readouterr().out
