"""A run's newest state, always as `checkpoints/last.ckpt` in its folder, every few minutes and whenever it stops.

Not covered: the best of several states (Lightning's ModelCheckpoint, beside this); an error in one of several
processes, after which the others cannot save.
"""

import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.trainer.states import TrainerFn
from torch.optim import Optimizer

from lit_pref.callbacks.stop_signals import STOP
from lit_pref.data.batches.position import is_at_step

_SHARE = 0.05  # of the time that saving may take


class LastCheckpoint(Checkpoint):
    """Saves the whole training state of the last optimizer step.

    It does so after an optimizer step when the time has come, at each epoch's end, and where a run is interrupted or
    fails. A run that is asked to stop does so at its next batch, several processes after the same one.

    Args:
        minutes: from one save within an epoch to the next; it takes longer where saving would take more than a
            twentieth of the time.
    """

    def __init__(self, minutes: float = 5.0) -> None:
        if not minutes > 0:
            raise ValueError(f"minutes must be > 0, got {minutes}")
        self.minutes = minutes
        self._trains = False
        self._stepping = False  # weights may be those of no step
        self._step = 0  # that was saved
        self._at, self._seconds = 0.0, 0.0  # when that was, and how long it took

    def path(self, trainer: Trainer) -> Path:
        return Path(trainer.default_root_dir) / "checkpoints" / "last.ckpt"

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._trains, self._stepping = True, False
        self._step, self._at = trainer.global_step, time.monotonic()
        STOP.take_back()
        STOP.waits = True

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        # Here all that follows on the last batch is done: what it logs, its validation.
        if trainer.global_step > self._step and is_at_step(trainer):
            due = time.monotonic() - self._at >= max(60 * self.minutes, self._seconds / _SHARE)
            due, STOP.received = _anywhere(trainer, due, STOP.received)
            if due or STOP.received:
                self._save(trainer)
            STOP.stop_here()
        elif trainer.world_size == 1:
            STOP.stop_here()
        STOP.waits = trainer.world_size > 1

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        self._stepping = STOP.waits = True

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._stepping = False

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._trains and trainer.world_size == 1:
            STOP.stop_here()
            STOP.waits = False

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        STOP.waits = self._trains  # what it has measured is logged

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_step > self._step:
            self._save(trainer)
        self._stop_together(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._trains = False
        self._stop_together(trainer)
        STOP.waits = False

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        STOP.waits = True
        untorn = self._trains and not self._stepping and trainer.world_size == 1
        if untorn and trainer.global_step > self._step:
            self._save(trainer)

    def _stop_together(self, trainer: Trainer) -> None:
        """Where nothing is left to be saved."""
        _, STOP.received = _anywhere(trainer, False, STOP.received)
        STOP.stop_here()
        STOP.waits = trainer.world_size > 1

    def _save(self, trainer: Trainer) -> None:
        if trainer.fast_dev_run or trainer.state.fn != TrainerFn.FITTING:  # type: ignore[attr-defined]
            return
        start = time.monotonic()
        trainer.save_checkpoint(self.path(trainer), weights_only=False)
        self._step, self._at = trainer.global_step, time.monotonic()
        self._seconds = self._at - start


def _anywhere(trainer: Trainer, due: bool, received: int) -> tuple[bool, int]:
    """Whether it is time by the first process, and the signal that any process has received."""
    if trainer.world_size == 1:
        return due, received
    first = due if trainer.is_global_zero else False
    asked = torch.tensor([int(first), received], device=trainer.strategy.root_device)
    torch.distributed.all_reduce(asked, torch.distributed.ReduceOp.MAX)
    return bool(asked[0]), int(asked[1])
