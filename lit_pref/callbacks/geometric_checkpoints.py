"""A data-scaling curve from one run: checkpoints at geometric steps of the stable phase, each decayed apart.

After the released CodePMP code (arXiv 2410.02229): a warm-up, stable, decay run keeps its state at steps × 2^(1/4), and
each state becomes a model of its own by its decay, so that a curve of k points costs one run and k decays [C].
Not covered: other schedules than `WarmupStableDecay`, whose rate is not constant; removing states that were decayed.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lit_pref.callbacks.checkpoint_io import read_checkpoint
from lit_pref.errors import UserError
from lit_pref.modules import WarmupStableDecay

FOLDER = "stable_checkpoints"  # apart from `checkpoints/`: what is resumed from there goes on in its run's own folder


class GeometricCheckpoints(Callback):
    """Saves the whole training state (weights, optimizer, schedule, place in the data) at geometric steps.

    They lie in the run folder as `stable_checkpoints/step=000128-pairs=4096.ckpt`, of the optimizer steps and the pairs
    that all devices have seen. Each is as large as `last.ckpt`: 12 bytes a parameter with AdamW in fp32.

    Args:
        ratio: of one step to the one before; 2^(1/4) in the released CodePMP code.
        first: the first step; none is the end of warm-up. Steps before that or in the decay are left out.
    """

    def __init__(self, ratio: float = 2**0.25, first: int | None = None) -> None:
        if not 1 < ratio < float("inf"):
            raise ValueError(f"ratio must be > 1 and finite, got {ratio}")
        if first is not None and first < 1:
            raise ValueError(f"first must be >= 1, got {first}")
        self.ratio, self.first = ratio, first
        self._pairs = 0  # that this device had seen at its last step; of a checkpoint's, that the first one had
        self._since = 0  # and in the batches of an unfinished one
        self._steps: frozenset[int] = frozenset()
        self._last = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        schedule = _schedule(trainer, "GeometricCheckpoints")
        self._steps = frozenset(geometric_steps(schedule.stable_steps, self.ratio, self.first))
        self._last = trainer.global_step  # where it was resumed
        self._since = 0
        if not self._last:
            self._pairs = 0
        if not self._steps and schedule.decay_start is None:
            start = "the end of warm-up" if self.first is None else self.first
            raise UserError(
                f"GeometricCheckpoints: no step from {start} on lies in the stable phase of this run of "
                f"{schedule.total_steps} steps: lower first, or leave the schedule a stable phase"
            )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if batch.kind != "pair":
            raise UserError(f"GeometricCheckpoints counts preference pairs, the data gives {batch.kind}s")
        self._since += len(batch.row_R)
        step = trainer.global_step
        if step == self._last:  # inside of an accumulated step
            return
        self._last = step
        self._pairs, self._since = self._pairs + self._since, 0
        # Asked now: a decay may have begun since the start, by another callback.
        if step in self._steps and step in _schedule(trainer, "GeometricCheckpoints").stable_steps:
            pairs = int(trainer.strategy.reduce(batch.row_R.new_tensor(self._pairs), reduce_op="sum"))
            path = Path(trainer.default_root_dir) / FOLDER / f"step={step:06d}-pairs={pairs}.ckpt"
            trainer.save_checkpoint(path, weights_only=False)

    def state_dict(self) -> dict[str, Any]:
        return {"pairs": self._pairs}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._pairs = state_dict["pairs"]


class DecayFromCheckpoint(Callback):
    """Begins the decay where a checkpoint of the stable phase stands, and ends the run with it.

    The run is one of its own, in its own folder; the checkpoint and its run stay as they are. It takes the very next
    batches of the checkpoint's data. Interrupted, it goes on from its own `last.ckpt`.

    Args:
        decay: share of all steps, those before the checkpoint included, that decay; none is the schedule's own, so
            that the whole is a shorter run of the same shape.
    """

    def __init__(self, decay: float | None = None) -> None:
        if decay is not None and not 0 < decay < 1:
            raise ValueError(f"decay must be in (0, 1), got {decay}")
        self.decay = decay

    def branches_off(self, checkpoint: Path) -> bool:
        """Whether a checkpoint file is to be decayed, in a run of its own.

        False for one of a decay that was begun, and for a folder of shards, which is looked at no further.
        """
        if not checkpoint.is_file():
            return False
        schedules = read_checkpoint(checkpoint).get("lr_schedulers")
        return not schedules or schedules[0].get("decay_start") is None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.ckpt_path is None:
            raise UserError(f"DecayFromCheckpoint: give --ckpt_path a checkpoint of the stable phase, from {FOLDER}/")
        checkpoint = Path(trainer.ckpt_path)
        if not self.branches_off(checkpoint):
            return
        if checkpoint.resolve().is_relative_to(Path(trainer.default_root_dir).resolve() / "checkpoints"):
            raise UserError(
                f"DecayFromCheckpoint: {checkpoint} is of the run in {trainer.default_root_dir}, where the decay would "
                f"overwrite it: take another folder for the run, or a state from {FOLDER}/"
            )
        step, end = read_checkpoint(checkpoint)["global_step"], int(trainer.estimated_stepping_batches)
        if step >= end:  # Lightning would not so much as start to train
            raise UserError(f"DecayFromCheckpoint: {checkpoint} stands at step {step}, the end of a run of {end}")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        schedule = _schedule(trainer, "DecayFromCheckpoint")
        if schedule.last_epoch != trainer.global_step:
            raise UserError("DecayFromCheckpoint: the checkpoint was trained without a schedule; expected one of WSD")
        if schedule.decay_start is None:
            try:
                schedule.begin_decay(schedule.decay if self.decay is None else self.decay)
            except ValueError as error:
                raise UserError(f"DecayFromCheckpoint: {error}") from error
        elif self.decay not in (None, schedule.decay):
            raise UserError(f"DecayFromCheckpoint: this run decays by {schedule.decay} already, got {self.decay}")
        end, possible = schedule.total_steps, int(trainer.estimated_stepping_batches)
        if end > possible:
            raise UserError(
                f"DecayFromCheckpoint: the decay would end at step {end}, but the run ends at step {possible}: take a "
                "smaller decay or an earlier checkpoint, or raise trainer.max_epochs"
            )
        trainer.fit_loop.epoch_loop.max_steps = end  # as Lightning's own LR finder ends its run
        if trainer.is_global_zero:
            print(f"the learning rate decays from step {schedule.decay_start} on, to 0 at step {end}", flush=True)


def geometric_steps(stable: range, ratio: float, first: int | None = None) -> Sequence[int]:
    """Whole numbers next to first · ratio^k within `stable`, ascending; first is by default where that starts."""
    step, found = float(stable.start if first is None else first), list[int]()
    while stable and step < stable.stop - 0.5:
        if (rounded := round(step)) in stable and rounded not in found[-1:]:
            found.append(rounded)
        step *= ratio
    return found


def _schedule(trainer: Trainer, asking: str) -> WarmupStableDecay:
    scheduler = trainer.lr_scheduler_configs[0].scheduler if trainer.lr_scheduler_configs else None
    if not isinstance(scheduler, WarmupStableDecay):
        has = "none" if scheduler is None else type(scheduler).__name__
        raise UserError(
            f"{asking} needs model.scheduler: WarmupStableDecay, whose rate stands still; this run has {has}"
        )
    return scheduler
