"""The record of tiny runs that finish, fail and are interrupted, read back as strict JSON."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer, seed_everything
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lit_pref.callbacks import BeforeAfter, RunRecord
from lit_pref.evaluation.base import Evaluation
from lit_pref.types import Split


class Data(LightningDataModule):
    def __init__(self) -> None:
        super().__init__()
        self.fingerprints = {"train": "abc123"}
        self.counts = {"train": {"pairs": 8, "problems": 9}}

    def train_dataloader(self) -> DataLoader[Tensor]:
        return DataLoader(torch.zeros(8, 3), batch_size=2)  # type: ignore[arg-type]


class Module(LightningModule):
    """3 × 4 weights and 4 frozen biases; 10 tokens a batch after 1,000 of an earlier run; stops as it is told."""

    def __init__(self, raises: BaseException | None = None) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 4)
        self.layer.bias.requires_grad_(False)
        self.num_tokens = 1000
        self.raises = raises

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        if self.raises is not None and self.global_step == 2:
            raise self.raises
        self.num_tokens += 10
        time.sleep(0.01)
        self.log("train/step", float(self.global_step))
        self.log("train/undefined", torch.tensor(float("nan")))
        return self.layer(batch).sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD([self.layer.weight], lr=0.1)


class Steps(Evaluation):
    """Four items, of which half the steps made are solved."""

    def __call__(self, module: LightningModule, split: Split = "test") -> dict[str, Tensor]:
        return {"pass@1": (torch.arange(4) < module.global_step // 2).float()}


def strict(text: str) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    loaded: dict[str, Any] = json.loads(text, parse_constant=refuse)
    return loaded


def fit(folder: Path, module: Module, data: LightningDataModule | None = None) -> dict[str, Any]:
    trainer = Trainer(
        accelerator="cpu",
        max_steps=4,
        logger=False,
        log_every_n_steps=1,
        callbacks=[BeforeAfter([Steps()]), RunRecord()],
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(module, datamodule=data or Data())
    return strict((folder / "summary.json").read_text())


def test_a_finished_run_tells_everything(tmp_path: Path):
    seed_everything(17, verbose=False)
    summary = fit(tmp_path, Module())
    assert summary["status"] == "finished"
    assert (summary["module"], summary["data"]) == ("Module", "Data")
    assert summary["seed"] == 17
    assert summary["data_fingerprints"] == {"train": "abc123"}
    assert summary["data_counts"] == {"train": {"pairs": 8, "problems": 9}}
    assert summary["optimizer_steps"] == 4 and summary["world_size"] == 1
    assert summary["parameters"] == 3 * 4 + 4 and summary["trainable_parameters"] == 3 * 4
    assert (summary["device"], summary["precision"]) == ("cpu", "32-true")
    assert summary["strategy"] == "SingleDeviceStrategy"
    assert {"python", "torch", "lightning", "transformers", "lit_pref"} <= summary["versions"].keys()
    assert "git_commit" in summary and isinstance(summary["command"], list)
    assert summary["peak_memory_bytes"] > 50 * 2**20


def test_figures_before_after_and_their_difference(tmp_path: Path):
    summary = fit(tmp_path, Module())
    # 0 of 4 solved before, 4 // 2 = 2 of 4 after.
    assert summary["before"] == {"pass@1": 0.0} and summary["after"] == {"pass@1": 0.5}
    difference = summary["difference"]["pass@1"]
    assert difference["mean"] == 0.5 and difference["n"] == 4
    assert difference["low"] <= 0.5 <= difference["high"]
    low, high = summary["intervals"]["after"]["pass@1"]
    assert low < 0.5 < high
    assert summary["intervals"].keys() == {"before", "after"}


def test_metrics_are_the_last_and_nan_is_null(tmp_path: Path):
    metrics = fit(tmp_path, Module())["metrics"]
    assert metrics["train/step"] == 3.0
    assert metrics["train/undefined"] is None


def test_seconds_and_tokens_of_this_run(tmp_path: Path):
    summary = fit(tmp_path, Module())
    assert 0 < summary["train_seconds"] <= summary["wall_seconds"]
    # 4 batches of 10 tokens, at least 0.01 s each, in no more than the loop around them; not the 1,000 from before.
    assert 4 * 10 / summary["train_seconds"] <= summary["tokens_per_second"] <= 10 / 0.01


def test_a_module_that_counts_no_tokens_has_no_rate(tmp_path: Path):
    class Uncounted(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 1)

        def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
            return self.layer(batch).sum()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    assert fit(tmp_path, Uncounted())["tokens_per_second"] is None  # type: ignore[arg-type]


def test_a_failed_run(tmp_path: Path):
    with pytest.raises(RuntimeError, match="on purpose"):
        fit(tmp_path, Module(RuntimeError("on purpose")))
    summary = strict((tmp_path / "summary.json").read_text())
    assert summary["status"] == "failed" and summary["optimizer_steps"] == 2
    assert summary["before"] == {"pass@1": 0.0} and summary["after"] == {} and summary["difference"] == {}
    assert summary["train_seconds"] > 0 and summary["tokens_per_second"] > 0


@pytest.mark.filterwarnings("ignore:.*KeyboardInterrupt.*")
def test_an_interrupted_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("signal.signal", lambda *_: None)  # Lightning switches Ctrl-C off for the whole process
    with pytest.raises(SystemExit):
        fit(tmp_path, Module(KeyboardInterrupt()))
    assert strict((tmp_path / "summary.json").read_text())["status"] == "interrupted"


def test_a_run_that_fails_before_training(tmp_path: Path):
    class Broken(Data):
        def prepare_data(self) -> None:
            raise RuntimeError("no data")

    with pytest.raises(RuntimeError, match="no data"):
        fit(tmp_path, Module(), Broken())
    summary = strict((tmp_path / "summary.json").read_text())
    assert summary["status"] == "failed" and summary["train_seconds"] is None and summary["before"] == {}


def test_nothing_else_is_left_in_the_folder(tmp_path: Path):
    fit(tmp_path, Module())
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]
