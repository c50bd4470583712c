"""Where a run stands: at its last optimizer step, also where it is saved or interrupted in the middle of the next one.

Weights change at optimizer steps only, so a checkpoint is of its last one, whatever batches were looked at since; a
resumed run sees those again. Lightning's own counters go on inside of a step, and depending on the hook that saved,
what is logged shifts by a step or a validation is left out; here they are put to what a run that goes on would have.
Not covered: manual optimization, data without a length, validation by the clock.
"""

from typing import Any, NamedTuple

from lightning.pytorch import Trainer


class DataPosition(NamedTuple):
    """How far a run has come: batches of an epoch that a rank has trained on."""

    epoch: int
    batches: int


def last_step(trainer: Trainer) -> DataPosition:
    """What the weights have seen; at an epoch's end all of its batches."""
    epoch: Any = trainer.fit_loop.epoch_progress.current
    seen = _seen(trainer)
    if seen < trainer.num_training_batches:
        seen -= seen % trainer.accumulate_grad_batches
    return DataPosition(epoch.started - 1 if epoch.started == epoch.ready > 0 else epoch.started, seen)


def is_at_step(trainer: Trainer) -> bool:
    """Whether no batch was looked at since the last optimizer step."""
    return _seen(trainer) == last_step(trainer).batches


def _seen(trainer: Trainer) -> int:
    """Batches of this epoch that went through the model, those of an unfinished step included."""
    loop = trainer.fit_loop
    epoch: Any = loop.epoch_progress.current
    batches: Any = loop.epoch_loop.batch_progress.current
    # Until the epoch has started they are those of the one before.
    return int(batches.processed) if epoch.started == epoch.ready > 0 else 0


def rewind(trainer: Trainer, fit_loop: dict[str, Any]) -> None:
    """Put a fit's counters, as a checkpoint holds them, to its last optimizer step, in place; see `go_on`."""
    epoch, batches = last_step(trainer)
    seen, progress = _seen(trainer), fit_loop["epoch_loop.batch_progress"]
    ended, over = batches >= trainer.num_training_batches, fit_loop["epoch_progress"]["current"]["processed"] > epoch
    due, to_validate = not over and _validates_after(trainer, epoch, batches), validation_to_come(trainer)
    total, stepped = progress["total"]["processed"] - (seen - batches), trainer.global_step
    if not batches or (ended and not due):
        # Between two epochs.
        epochs = _counts(epoch + ended, epoch + ended, epoch + ended)
        current, total = _counts(0, 0, 0), _counts(total, total, total)
    else:
        # One batch short of completed says that all that follows on it is done, its validation too.
        short = 0 if ended or to_validate else 1
        epochs = _counts(epoch + 1, epoch, epoch)
        current, total = _counts(batches, batches, batches - short), _counts(total, total, total - short)
        stepped -= 1  # Lightning counts it once more when it goes on
    # A validation that was begun is run anew.
    validation = _counts(1, 0, 0) if to_validate else _counts(0, 0, 0)
    fit_loop["epoch_progress"] = {"total": dict(epochs), "current": epochs}
    fit_loop["epoch_loop.batch_progress"] = {"total": total, "current": current, "is_last_batch": ended and due}
    fit_loop["epoch_loop.val_loop.batch_progress"] = {
        "total": dict(validation),
        "current": validation,
        "is_last_batch": False,
    }
    fit_loop["epoch_loop.state_dict"]["_batches_that_stepped"] = stepped


def validation_to_come(trainer: Trainer) -> bool:
    """Whether the last optimizer step's validation is still to be run, or to be run anew since it is not over."""
    epoch, batches = last_step(trainer)
    current: Any = trainer.fit_loop.epoch_progress.current
    at_step = _seen(trainer) == batches and current.processed == epoch
    return at_step and _validates_after(trainer, epoch, batches) and not _is_validated(trainer)


def go_on(trainer: Trainer) -> None:
    """At the start of training: a run that was saved between two epochs begins the next one as any other."""
    epoch_loop = trainer.fit_loop.epoch_loop
    if epoch_loop.restarting and not epoch_loop.batch_progress.current.ready:
        epoch_loop.restarting = False


def _counts(started: int, processed: int, completed: int) -> dict[str, int]:
    return {"ready": started, "started": started, "processed": processed, "completed": completed}


def _validates_after(trainer: Trainer, epoch: int, batches: int) -> bool:
    """Whether a validation follows on so many batches of an epoch."""
    every, interval = trainer.check_val_every_n_epoch, trainer.val_check_batch
    if not trainer.enable_validation or not batches or interval is None or interval == float("inf"):
        return False
    if every is None:  # the interval counts over epochs
        batches += epoch * int(trainer.num_training_batches)
    return batches % int(interval) == 0 and (every is None or (epoch + 1) % every == 0)


def _is_validated(trainer: Trainer) -> bool:
    """Whether the validation that follows on the last batch is over, or so much as the batch's own hooks are."""
    loop = trainer.fit_loop.epoch_loop
    if trainer.validating:
        return bool(loop.val_loop.batch_progress.current.completed >= sum(loop.val_loop.max_batches))
    batches: Any = loop.batch_progress.current
    return bool(batches.completed == batches.processed)
