"""`summary.json`: what a run was, what it changed, and what it cost, in the run folder.

Written at the end of a fit, and also where it is interrupted or fails. Not covered: validate, test and predict, which
leave the record of the fit as it is; data-loading time in `tokens_per_second`.
"""

import os
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lit_pref.callbacks.before_after import BeforeAfter
from lit_pref.callbacks.metrics_csv import MetricsCSV
from lit_pref.data.batches.position import validation_to_come
from lit_pref.machine.provenance import GitState, git_state, json_number, peak_memory_bytes
from lit_pref.reports.closing_table import changes
from lit_pref.reports.record import circumstances, interval_json
from lit_pref.storage.files import JsonValue, write_json


@runtime_checkable
class CountsTokens(Protocol):
    """A module that counts the training tokens this process has seen."""

    num_tokens: int


@runtime_checkable
class HasFingerprints(Protocol):
    """A data module that can tell whether two runs saw the same data: a hash for each part, by its name."""

    @property
    def fingerprints(self) -> Mapping[str, str]: ...


@runtime_checkable
class CountsRows(Protocol):
    """A data module that counts what became of each split's rows."""

    @property
    def counts(self) -> Mapping[str, Mapping[str, int]]: ...


@dataclass
class _Spent:
    """What a run has taken, of one part of it or of all."""

    wall_seconds: float = 0.0
    train_seconds: float = 0.0
    batch_seconds: float = 0.0
    tokens: float = 0.0
    peak_memory_bytes: int = 0

    def plus(self, other: "_Spent") -> "_Spent":
        sums = {name: value + getattr(other, name) for name, value in asdict(self).items()}
        return _Spent(**sums | {"peak_memory_bytes": max(self.peak_memory_bytes, other.peak_memory_bytes)})


class RunRecord(Callback):
    """Writes `<default_root_dir>/summary.json`, whole or not at all, on the first process.

    `wall_seconds` runs from the making of this object, which the command line does after its imports;
    `train_seconds` over the training loop, validation included; `tokens_per_second` over training batches only. Of a
    resumed run they count all parts, as far as each was saved.
    """

    def __init__(self) -> None:
        self._made = time.monotonic()
        self._train_start: float | None = None
        self._batch_start = 0.0
        self._spent = _Spent()  # in this process
        self._before = _Spent()  # by the parts of the run that this one resumes
        self._metrics: dict[str, float] = {}  # the last ones of those parts
        self._restored: dict[str, Any] = {}
        self._accepted = False
        self._tokens_at_start = 0
        self._git = GitState(None, None)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        # At the start: the code may be edited while the run goes on.
        if stage == "fit" and trainer.is_global_zero:
            self._git = git_state()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._accepted = True
        if trainer.ckpt_path is None or not self._restored:
            return
        self._before, self._metrics = _Spent(**self._restored["spent"]), dict(self._restored["metrics"])
        for logger in trainer.loggers:
            if isinstance(logger, MetricsCSV):
                logger.go_on_from(self._restored["step"], self._restored["rows"])

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._train_start = time.monotonic()
        self._spent = _Spent()
        self._tokens_at_start = pl_module.num_tokens if isinstance(pl_module, CountsTokens) else 0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._batch_start = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._spent.batch_seconds += time.perf_counter() - self._batch_start

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._count(trainer, pl_module, together=True)
        self._train_start = None

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if trainer.state.fn != "fit":
            return
        self._count(trainer, pl_module, together=True)
        files = [logger for logger in trainer.loggers if isinstance(logger, MetricsCSV)]
        checkpoint["callbacks"][self.state_key] = {
            "spent": asdict(self._spent.plus(self._before)),
            "metrics": {**self._metrics, **_metrics(trainer)},
            "step": trainer.global_step,
            # A validation that is run anew is logged anew.
            "rows": files[0].rows() if files and validation_to_come(trainer) else None,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._restored = state_dict

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(trainer, pl_module, "finished")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if trainer.state.fn != "fit" or trainer.strategy.lightning_module is None:
            return
        if trainer.ckpt_path is not None and not self._accepted:
            return  # the record of the run that could not be resumed stays
        # Other processes cannot be asked any more; one process knows its own count.
        self._count(trainer, pl_module, together=trainer.world_size == 1)
        # SIGTERM reaches callbacks as a SystemExit.
        stopped = isinstance(exception, KeyboardInterrupt | SystemExit)
        self._write(trainer, pl_module, "interrupted" if stopped else "failed")

    def _count(self, trainer: Trainer, module: LightningModule, together: bool) -> None:
        """Bring the figures of this part up to now; together: all processes are here, to be summed over."""
        self._spent.wall_seconds = time.monotonic() - self._made
        if self._train_start is not None:
            self._spent.train_seconds = time.monotonic() - self._train_start
        if together and isinstance(module, CountsTokens):
            seen = torch.tensor(float(module.num_tokens - self._tokens_at_start), device=module.device)
            self._spent.tokens = float(trainer.strategy.reduce(seen, reduce_op="sum"))

    def _write(self, trainer: Trainer, module: LightningModule, status: str) -> None:
        if not trainer.is_global_zero:
            return
        run = {**circumstances(self._git), **_run(trainer, module)}
        summary: dict[str, JsonValue] = {"status": status, **run, **_figures(trainer)}
        self._spent.wall_seconds = time.monotonic() - self._made
        self._spent.peak_memory_bytes = peak_memory_bytes(trainer.strategy.root_device)
        spent = self._spent.plus(self._before)
        metrics = {**self._metrics, **_metrics(trainer)}
        summary |= {
            "metrics": {name: json_number(value) for name, value in sorted(metrics.items())},
            "wall_seconds": spent.wall_seconds,
            "train_seconds": spent.train_seconds or None,
            "tokens_per_second": spent.tokens / spent.batch_seconds if spent.tokens and spent.batch_seconds else None,
            "peak_memory_bytes": spent.peak_memory_bytes,
        }
        write_json(Path(trainer.default_root_dir) / "summary.json", summary)


def _run(trainer: Trainer, module: LightningModule) -> dict[str, JsonValue]:
    """What ran on what."""
    data = trainer.datamodule  # type: ignore[attr-defined]
    device = trainer.strategy.root_device
    seed = os.environ.get("PL_GLOBAL_SEED")
    return {
        "command": list(sys.argv),
        "module": type(module).__name__,
        "data": None if data is None else type(data).__name__,
        "data_fingerprints": dict(data.fingerprints) if isinstance(data, HasFingerprints) else {},
        "data_counts": {split: dict(counts) for split, counts in data.counts.items()}
        if isinstance(data, CountsRows)
        else {},
        "seed": None if seed is None else int(seed),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "precision": str(trainer.precision),
        "strategy": type(trainer.strategy).__name__,
        "world_size": trainer.world_size,
        "optimizer_steps": trainer.global_step,
        "parameters": sum(p.numel() for p in module.parameters()),
        "trainable_parameters": sum(p.numel() for p in module.parameters() if p.requires_grad),
    }


def _figures(trainer: Trainer) -> dict[str, JsonValue]:
    """Held-out figures before and after, where the run has taken them."""
    taken = [callback for callback in trainer.callbacks if isinstance(callback, BeforeAfter)]  # type: ignore[attr-defined]
    rows = [change for callback in taken for change in changes(callback.before, callback.after)]
    before = {row.name: row.before for row in rows if row.before is not None}
    after = {row.name: row.after for row in rows if row.after is not None}
    difference = {row.name: row.difference for row in rows if row.difference is not None}
    return {
        "before": {name: json_number(interval.mean) for name, interval in before.items()},
        "after": {name: json_number(interval.mean) for name, interval in after.items()},
        "difference": {name: interval_json(interval) for name, interval in difference.items()},
        "intervals": {
            taken: {name: [json_number(each.low), json_number(each.high)] for name, each in intervals.items()}
            for taken, intervals in (("before", before), ("after", after))
        },
        "splits": {name: split for callback in taken for name, split in callback.splits.items()},
        "left_out": {name: why for callback in taken for name, why in callback.left_out.items()},
    }


def _metrics(trainer: Trainer) -> dict[str, float]:
    """The last value of everything logged."""
    logged: dict[str, Tensor | float] = {**trainer.callback_metrics, **trainer.logged_metrics}
    return {name: float(value) for name, value in logged.items()}
