"""The file is read back with the csv module, as a notebook would."""

import csv
from pathlib import Path

import pytest
import torch

from lit_pref.callbacks import MetricsCSV


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_row_a_call_and_a_column_a_metric(tmp_path: Path):
    logger = MetricsCSV(tmp_path / "run")
    logger.log_metrics({"train/loss": 0.5, "epoch": 0}, step=1)
    logger.log_metrics({"validation/loss": torch.tensor(0.25)}, step=1)  # type: ignore[dict-item]
    assert rows(tmp_path / "run") == [
        {"step": "1", "epoch": "0", "train/loss": "0.5", "validation/loss": ""},
        {"step": "1", "epoch": "", "train/loss": "", "validation/loss": "0.25"},
    ]


def test_each_row_is_on_disk_at_once(tmp_path: Path):
    logger = MetricsCSV(tmp_path)
    for step in range(3):
        logger.log_metrics({"loss": 1.0}, step)
        assert len(rows(tmp_path)) == step + 1


def test_a_resumed_run_goes_on_below_earlier_rows(tmp_path: Path):
    MetricsCSV(tmp_path).log_metrics({"b": 1.0, "a": 2.0}, step=1)
    resumed = MetricsCSV(tmp_path)
    resumed.log_metrics({"a": 3.0}, step=2)
    resumed.log_metrics({"c": 4.0}, step=3)
    assert [(r["step"], r["a"], r["b"], r["c"]) for r in rows(tmp_path)] == [
        ("1", "2.0", "1.0", ""),
        ("2", "3.0", "", ""),
        ("3", "", "", "4.0"),
    ]


def test_a_crash_while_widening_keeps_the_earlier_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    logger = MetricsCSV(tmp_path)
    logger.log_metrics({"a": 1.0}, step=1)

    def crash(self: Path, target: Path) -> Path:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", crash)
        with pytest.raises(KeyboardInterrupt):
            logger.log_metrics({"b": 2.0}, step=2)
    assert rows(tmp_path) == [{"step": "1", "a": "1.0"}]
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]
    logger.log_metrics({"b": 2.0}, step=2)
    assert [r["b"] for r in rows(tmp_path)] == ["", "2.0"]
