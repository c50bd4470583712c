"""Weights & Biases offline, read back from its own file; nothing here needs a login or a network.

Its run file: a 7-byte header, then LevelDB log framing in blocks of 32 KiB, each entry a protobuf `Record`.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import wandb
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor
from rich import get_console
from torch import Tensor, nn
from torch.utils.data import DataLoader
from wandb.proto.wandb_internal_pb2 import Record

from lit_pref.callbacks import MetricsCSV, RunWandbLogger, run_loggers
from lit_pref.callbacks.loggers import wandb_mode
from lit_pref.errors import UserError


@pytest.fixture(autouse=True)
def no_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "wandb_config"))
    wandb.teardown()  # forgets settings and logins


class Module(LightningModule):
    def __init__(self, hidden: int = 3, fails: bool = False) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layer, self.fails = nn.Linear(2, hidden), fails

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        if self.fails:
            raise RuntimeError("on purpose")
        self.log("train/step", float(self.global_step))
        return self.layer(batch).sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(folder: Path, module: Module) -> str:
    """Trains three steps with a run's loggers; what it printed."""
    trainer = Trainer(
        accelerator="cpu",
        max_steps=3,
        logger=run_loggers(folder, "project", "dpo/first"),
        log_every_n_steps=1,
        callbacks=[LearningRateMonitor("step")],
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    with get_console().capture() as capture:
        trainer.fit(module, DataLoader(torch.zeros(8, 2), batch_size=2))  # type: ignore[arg-type]
    return capture.get()


def records(path: Path) -> Iterator[Record]:
    data, position, parts = path.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while position + 7 <= len(data):
        left = 32768 - position % 32768
        if left < 7:  # too short for a header: zeros up to the next block
            position += left
            continue
        length, kind = int.from_bytes(data[position + 4 : position + 6], "little"), data[position + 6]
        parts += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(parts)
            parts = b""


def history(path: Path) -> list[dict[str, Any]]:
    rows = [record.history for record in records(path) if record.HasField("history")]
    return [{i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in row.item} for row in rows]


def run_files(folder: Path) -> list[Path]:
    wandb.teardown()  # its own process writes the last entries after finish() has returned
    return sorted(folder.glob("wandb/offline-run-*/run-*.wandb"))


def test_an_offline_run_holds_metrics_and_config_and_says_how_to_upload(tmp_path: Path, capfd: pytest.CaptureFixture):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text("ours: true\n")
    said = fit(folder, Module(hidden=3))
    (path,) = run_files(folder)
    rows = history(path)
    assert [(r["trainer/global_step"], r["train/step"]) for r in rows if "train/step" in r] == [(0, 0), (1, 1), (2, 2)]
    assert {r["lr-SGD"] for r in rows if "lr-SGD" in r} == {0.1}
    config = {u.key: json.loads(u.value_json) for r in records(path) for u in r.config.update}
    assert config["hidden"] == 3
    (run,) = [record.run for record in records(path) if record.HasField("run")]
    assert (run.project, run.display_name) == ("project", "dpo/first")

    assert (folder / "config.yaml").read_text() == "ours: true\n"
    assert said.strip().splitlines() == [
        f"W&B: logged offline; to upload: wandb login && wandb sync {folder}/wandb/offline-run-*"
    ]
    output = capfd.readouterr()
    assert "wandb" not in (output.out + output.err).lower()

    header, *lines = (folder / "metrics.csv").read_text().splitlines()
    assert {"step", "epoch", "train/step", "lr-SGD"} == set(header.split(","))
    assert len(lines) >= 3


def test_runs_of_one_process_stay_apart_and_a_resumed_one_goes_on(tmp_path: Path):
    fit(tmp_path / "a", Module(hidden=1))
    fit(tmp_path / "b", Module(hidden=2))
    fit(tmp_path / "a", Module(hidden=1))  # as a resumed run does: the same folder
    files = [*run_files(tmp_path / "a"), *run_files(tmp_path / "b")]
    first, again, other = [next(r.run.run_id for r in records(path) if r.HasField("run")) for path in files]
    assert first == again == (tmp_path / "a" / "wandb_id.txt").read_text().strip() != other
    # Three training rows each: none went to another run's file.
    assert [sum("train/step" in row for row in history(p)) for p in files] == [3, 3, 3]
    assert "WANDB_MODE" not in os.environ  # would keep later runs offline that have a login


def test_a_failed_run_is_finished_with_an_exit_code(tmp_path: Path):
    with pytest.raises(RuntimeError, match="on purpose"):
        fit(tmp_path, Module(fails=True))
    (path,) = run_files(tmp_path)
    assert [record.exit.exit_code for record in records(path) if record.HasField("exit")] == [1]


def test_disabled_means_no_wandb_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    (logger,) = run_loggers(tmp_path, "project", "name")
    assert isinstance(logger, MetricsCSV) and logger.save_dir == str(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("environment", "netrc", "expected"),
    [
        ({}, "", "offline"),
        ({"WANDB_MODE": "online"}, "", "offline"),  # without a login, online would ask
        ({"WANDB_API_KEY": "k" * 40}, "", "online"),
        ({"WANDB_API_KEY": "k" * 40, "WANDB_MODE": "offline"}, "", "offline"),
        ({"WANDB_API_KEY": "k" * 40, "WANDB_MODE": "dryrun"}, "", "offline"),
        ({}, "machine api.wandb.ai login user password " + "k" * 40, "online"),
        ({}, "machine example.org login user password " + "k" * 40, "offline"),
    ],
)
def test_online_needs_a_login_and_no_veto(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], netrc: str, expected: str
):
    (tmp_path / "netrc").write_text(netrc)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert wandb_mode() == expected
    assert RunWandbLogger(tmp_path).offline == (expected == "offline")


def test_a_login_of_the_wrong_form_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WANDB_API_KEY", "not a key")
    with pytest.raises(UserError, match=r"WANDB_API_KEY invalid.*WANDB_MODE=offline"):
        wandb_mode()
