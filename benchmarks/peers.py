"""One epoch of a method as it is timed: a Lightning `fit` of ours, and a trainer of TRL's on the very same batches.

Both train with AdamW (fused), clipping and a constant rate, log every step, and save nothing.
"""

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from benchmarks.paired import Timing, peak_bytes
from lit_pref.data.reading.files import file_rows
from lit_pref.datamodules import PairsDataModule

LEARNING_RATE = 1e-4
LOGPS = ("logps/chosen", "logps/rejected")
optimizer = partial(torch.optim.AdamW, lr=LEARNING_RATE, weight_decay=0.0, fused=True)


class _Steps(Callback):
    """When steps start and end, what they hold, and what they log."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self.starts: list[float] = []
        self.ends: list[float] = []
        self.tokens: list[int] = []
        self.losses: list[float] = []
        self.batches: list[list[int]] = []
        self.first: dict[str, float] = {}

    def on_train_batch_start(self, trainer, module, batch, batch_idx) -> None:
        self.starts.append(now(module.device, self._clock))

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        self.ends.append(now(module.device, self._clock))
        self.tokens.append(batch.trees.num_tokens)
        self.losses.append(float(trainer.callback_metrics["train/loss"]))
        self.batches.append(batch.row_R.tolist())
        if batch_idx == 0:
            self.first = {name: float(value) for name, value in trainer.callback_metrics.items()}


def now(device: torch.device, clock: Callable[[], float] = time.perf_counter) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return clock()


def lightning_epoch(
    make: Callable[[], LightningModule],
    pairs: Path,
    batch_size: int,
    precision: str,
    device: str = "cpu",
    clock: Callable[[], float] = time.perf_counter,
) -> Timing:
    """make: the module, which takes no part in the time; what it caches is made anew. clock: that times the steps."""
    steps = _Steps(clock)
    with tempfile.TemporaryDirectory() as scratch, patch.dict(os.environ, LIT_PREF_CACHE=scratch):
        module = make()
        trainer = Trainer(
            max_epochs=1,
            precision="bf16-mixed" if precision == "bf16" else "32-true",
            gradient_clip_val=1.0,
            accelerator=device,
            devices=1,
            logger=False,
            log_every_n_steps=1,
            callbacks=[steps],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=scratch,
        )
        start = time.perf_counter()
        trainer.fit(module, PairsDataModule(str(pairs), validation_size=0.0, batch_size=batch_size, seed=0))
        whole = time.perf_counter() - start
    logps = [steps.first[f"train/{name}"] for name in LOGPS if f"train/{name}" in steps.first]
    tokens = sum(steps.tokens)
    held = steps.losses, logps, steps.batches, peak_bytes(device)
    return Timing(tokens - steps.tokens[0], steps.ends[-1] - steps.starts[1], tokens, whole, *held)


def trl_epoch(
    make: Callable[[Any, dict[str, Any], Any], Any],
    pairs: Path,
    batches: Sequence[Sequence[int]],
    precision: str,
    device: str = "cpu",
) -> Timing:
    """make: the trainer of (rows, what all of TRL's configurations take, callback), timed but for the import.

    batches: rows of each step, so that TRL profits from their like lengths too.
    """
    import datasets
    from transformers import TrainerCallback

    datasets.disable_progress_bars()

    class Clock(TrainerCallback):
        def __init__(self) -> None:
            self.starts: list[float] = []
            self.ends: list[float] = []
            self.logs: list[dict[str, float]] = []

        def on_step_begin(self, *arguments, **others) -> None:
            self.starts.append(now(torch.device(device)))

        def on_step_end(self, *arguments, **others) -> None:
            self.ends.append(now(torch.device(device)))

        def on_log(self, arguments, state, control, logs=None, **others) -> None:
            if logs and "loss" in logs:
                self.logs.append(logs)

    clock = Clock()
    with tempfile.TemporaryDirectory() as scratch:
        settings = {
            "output_dir": scratch,
            "per_device_train_batch_size": len(batches[0]),
            "num_train_epochs": 1,
            "learning_rate": LEARNING_RATE,
            "lr_scheduler_type": "constant",
            "weight_decay": 0.0,
            "max_grad_norm": 1.0,
            "max_length": None,
            "train_sampling_strategy": "sequential",
            "gradient_checkpointing": False,
            "bf16": precision == "bf16",
            "use_cpu": device == "cpu",
            "report_to": "none",
            "save_strategy": "no",
            "logging_steps": 1,
            "disable_tqdm": True,
        }
        start = time.perf_counter()
        rows = [row.values for row in file_rows(pairs)]
        keys = ("prompt", "chosen", "rejected")
        data = datasets.Dataset.from_list([{key: rows[i][key] for key in keys} for batch in batches for i in batch])
        trainer = make(data, settings, clock)
        trainer.train()
        whole = time.perf_counter() - start
    tokens = [_tokens(row) for row in trainer.train_dataset]
    logps = [float(clock.logs[0][name]) for name in LOGPS if name in clock.logs[0]]
    held = [float(log["loss"]) for log in clock.logs], logps, list(map(list, batches)), peak_bytes(device)
    return Timing(sum(tokens[len(batches[0]) :]), clock.ends[-1] - clock.starts[1], sum(tokens), whole, *held)


def _tokens(row: dict[str, Any]) -> int:
    """Prompt + chosen + prompt + rejected; RewardTrainer keeps prompts within the sides."""
    return 2 * len(row.get("prompt_ids", ())) + len(row["chosen_ids"]) + len(row["rejected_ids"])
