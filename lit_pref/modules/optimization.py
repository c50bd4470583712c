"""Optimizers and learning-rate schedules as the modules hand them to Lightning."""

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from lightning.pytorch.cli import LRSchedulerCallable, ReduceLROnPlateau
from torch.optim import Optimizer

from lit_pref.errors import UserError
from lit_pref.modules.schedules import _WholeRunSchedule


def adamw(
    lr: float, weight_decay: float = 0.0, betas: tuple[float, float] = (0.9, 0.999)
) -> Callable[[Any], Optimizer]:
    """AdamW as in every method's default: torch's betas, no weight decay. `optimizer=adamw(2e-4)`."""
    return lambda params: torch.optim.AdamW(params, lr=lr, weight_decay=weight_decay, betas=betas)


def with_schedule(optimizer: Optimizer, make_scheduler: LRSchedulerCallable | None, trainer: Trainer) -> Any:
    """What `configure_optimizers` returns."""
    if trainer.precision == "bf16-mixed":
        # Fused optimizers say that they undo a gradient scale themselves, and Lightning then refuses to clip; bf16 has
        # no such scale.
        optimizer._step_supports_amp_scaling = False  # type: ignore[attr-defined]
    if make_scheduler is None:
        return optimizer
    scheduler = make_scheduler(optimizer)
    if isinstance(scheduler, _WholeRunSchedule):
        scheduler.set_total_steps(_steps_of_run(trainer))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, **_when_to_step(scheduler)}}


def follow_length(trainer: Trainer) -> None:
    """Tell the schedule anew how long the run is; a callback may have changed it, as BatchSizeFinder does.

    A resumed schedule is that of its checkpoint; where the run is longer now, a line says so.
    """
    for config in trainer.lr_scheduler_configs:
        schedule, steps = config.scheduler, _steps_of_run(trainer)
        if not isinstance(schedule, _WholeRunSchedule):
            continue
        if schedule.last_epoch == 0:
            schedule.set_total_steps(steps)
        elif schedule.total_steps < steps and trainer.is_global_zero:
            print(
                f"the checkpoint's schedule ends at step {schedule.total_steps:,} of {steps:,}: from there on the "
                "learning rate stays as it is then; for a longer schedule, start a new run",
                flush=True,
            )


def _steps_of_run(trainer: Trainer) -> int:
    """Optimizer steps of the whole run; Lightning's own estimate uses the first epoch's accumulation for all epochs."""
    estimated = int(trainer.estimated_stepping_batches)
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    changing = [each for each in callbacks if isinstance(each, GradientAccumulationScheduler)]
    if not changing or trainer.max_epochs is None or trainer.max_epochs < 0:
        return estimated
    batches = int(trainer.num_training_batches)
    several = (changing[0].get_accumulate_grad_batches(epoch) for epoch in range(trainer.max_epochs))
    steps = sum(-(-batches // accumulate) for accumulate in several)
    return steps if trainer.max_steps < 0 else min(steps, trainer.max_steps)


def _when_to_step(scheduler: Any) -> dict[str, Any]:
    """Every optimizer step; ReduceLROnPlateau whenever its figure was measured."""
    if not isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
        return {"interval": "step"}
    if not isinstance(scheduler, ReduceLROnPlateau):
        raise UserError(
            "model.scheduler: torch's ReduceLROnPlateau does not say which figure it looks at: give "
            "lightning.pytorch.cli.ReduceLROnPlateau with monitor, as validation/loss"
        )
    return {"interval": "epoch", "monitor": scheduler.monitor}
