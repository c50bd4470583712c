"""What a run's Trainer gets beside its configuration, and what the configuration may not ask of it."""

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import Namespace
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.accelerators import XLAAccelerator
from lightning.pytorch.callbacks import ModelCheckpoint, ProgressBar
from lightning.pytorch.callbacks.timer import Interval
from lightning.pytorch.cli import SaveConfigCallback

from lit_pref.callbacks import (
    CheckedCheckpointIO,
    FiniteLoss,
    LastCheckpoint,
    PredictionsFile,
    RunRecord,
    TrainingProgress,
)
from lit_pref.cli.errors import BY_CONSTRUCTORS
from lit_pref.cli.old_names import LOGGED
from lit_pref.errors import UserError
from lit_pref.modules.language_model import _LanguageModule

# Else the Timer's interval could not stand in a run's config.yaml.
yaml.SafeDumper.add_multi_representer(Interval, lambda dumper, value: dumper.represent_str(value.value))


class SaveConfig(SaveConfigCallback):
    """Writes the resolved `config.yaml` into the run folder, where it meets no other file of that name, and logs it."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        # Processes that know no more than the command have made up another folder.
        folder = trainer.strategy.broadcast(trainer.default_root_dir)
        trainer._default_root_dir = folder  # type: ignore[attr-defined]
        if trainer.ckpt_path is None or stage != "fit":
            self._write(trainer)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.ckpt_path is not None:  # by now the run that it resumes has been accepted
            self._write(trainer)

    def _write(self, trainer: Trainer) -> None:
        folder = Path(trainer.default_root_dir)
        if trainer.is_global_zero:
            folder.mkdir(parents=True, exist_ok=True)
            self.parser.save(
                self.config, folder / self.config_filename, skip_none=False, overwrite=True, multifile=False
            )
            resolved = yaml.safe_load((folder / self.config_filename).read_text())
            for logger in trainer.loggers:
                logger.log_hyperparams(resolved)  # what runs are compared by


def all_callbacks(given: Sequence[Callback], trainer: Namespace, folder: Path) -> list[Callback]:
    """Those of the configuration, and what every run has unless it brings its own of the kind; in order."""
    checkpoints = trainer.enable_checkpointing is not False
    bars: list[Callback] = [] if trainer.enable_progress_bar is False else [TrainingProgress()]
    others = [FiniteLoss(), RunRecord(), PredictionsFile(), *([LastCheckpoint()] if checkpoints else [])]
    kinds = (ProgressBar, FiniteLoss, RunRecord, PredictionsFile, LastCheckpoint)
    present = tuple(kind for kind in kinds if any(isinstance(callback, kind) for callback in given))
    first, last = ([each for each in group if not isinstance(each, present)] for group in (bars, others))
    # The bar ends before others print; the record is written when they have measured.
    callbacks = [*first, *(_beside_last(each, folder) if checkpoints else each for each in given), *last]
    # The newest state holds what other checkpoint callbacks have saved.
    return sorted(callbacks, key=lambda callback: isinstance(callback, LastCheckpoint))


def _beside_last(callback: Callback, folder: Path) -> Callback:
    """A ModelCheckpoint of the configuration, which must leave the run's `last.ckpt` to `LastCheckpoint`."""
    if isinstance(callback, ModelCheckpoint):
        there = folder / "checkpoints"
        if callback.dirpath is None or Path(callback.dirpath).resolve() == there.resolve():
            callback.save_last = None  # it is there, and the newest
            if callback.filename == "last":
                raise UserError(
                    f"trainer.callbacks: ModelCheckpoint(filename='last') would write over the run's own "
                    f"{there / 'last.ckpt'}, which is kept in any case: leave it out, or give another filename"
                )
    return callback


def with_checked_checkpoints(plugins: Any) -> list[Any]:
    """The configuration's plugins, and ours for checkpoints unless it brings its own."""
    given = [] if plugins is None else plugins if isinstance(plugins, list) else [plugins]
    # XLA's strategies take no other than their own.
    own = any(isinstance(plugin, CheckpointIO) for plugin in given) or XLAAccelerator.is_available()
    return given if own else [*given, CheckedCheckpointIO()]


# --- mistakes ---------------------------------------------------------------------------------------------------------

# Bounds of the Trainer's arguments that Lightning does not look at; inclusive.
_AT_LEAST = {
    "accumulate_grad_batches": 1,
    "check_val_every_n_epoch": 1,
    "num_nodes": 1,
    "gradient_clip_val": 0,
    "log_every_n_steps": 0,
    "val_check_interval": 1e-9,
}


# Callbacks of Lightning that would break on the way, and what to do.
_CANNOT = {
    "BackboneFinetuning": "a policy has no backbone apart; take --model.adapter LoRA to train few weights",
}


def check_trainer(trainer: Namespace) -> None:
    for name, least in _AT_LEAST.items():
        value = trainer[name]
        if isinstance(value, int | float) and not least <= value < math.inf:
            bound = f">= {least}" if least != 1e-9 else "> 0"
            raise UserError(f"trainer.{name}: must be {bound} and finite, got {value}")


def check_callbacks(given: Sequence[Callback]) -> None:
    for callback in given:
        if refused := _CANNOT.get(type(callback).__name__):
            raise UserError(f"trainer.callbacks: {type(callback).__name__} cannot work here: {refused}")
        given_name = named = str(getattr(callback, "monitor", ""))
        for old, new in LOGGED.items():
            named = named.replace(old, new)
        if named != given_name:
            raise UserError(f"trainer.callbacks: monitor: {given_name} is now {named}")


def check_optimizer(module: _LanguageModule) -> None:
    """Make optimizer and schedule once, of nothing: else what is wrong with them would show after all data is made."""
    if module.make_optimizer is None:
        raise UserError("model.optimizer: expected a class such as torch.optim.AdamW, got null")
    try:
        optimizer = module.make_optimizer([torch.nn.Parameter(torch.zeros(1))])
    except BY_CONSTRUCTORS as error:
        raise UserError(f"model.optimizer: {error}") from error
    for name, value in optimizer.defaults.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"model.optimizer: {name} must be finite, got {value}")
    if module.make_scheduler is None:
        return
    try:
        scheduler = module.make_scheduler(optimizer)
        if not isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that the optimizer has not stepped
                scheduler.step()
    except BY_CONSTRUCTORS as error:
        raise UserError(f"model.scheduler: {error}") from error
