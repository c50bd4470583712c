"""Learning-rate schedules over the whole run: warm-up with cosine decay, and warm-up, stable, decay (WSD).

They count in shares of the run; the module gives them the number of optimizer steps. Any other torch scheduler can be
used instead. A resumed schedule follows its checkpoint, not the shares that it was built with.
"""

import math
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lit_pref.errors import UserError


class _WholeRunSchedule(LRScheduler):
    """A factor on the base learning rate as a function of the step and the number of steps in all."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.total_steps = 0
        super().__init__(optimizer)

    def factor(self, step: int, total_steps: int) -> float:
        raise NotImplementedError

    def set_total_steps(self, total_steps: int) -> None:
        """Give the length of the run, in optimizer steps; before the first step."""
        self.total_steps = total_steps
        for group, rate in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
            group["lr"] = rate
        self._last_lr = self.get_lr()

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "schedule": type(self).__name__}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Raise UserError for the state of another of these schedules, which would otherwise load silently."""
        state = dict(state_dict)
        saved, own = state.pop("schedule", type(self).__name__), type(self).__name__
        if saved != own:
            raise UserError(f"model.scheduler: the checkpoint was trained with {saved}, this run has {own}: give that")
        super().load_state_dict(state)

    def get_lr(self) -> list[float | Tensor]:
        factor = self.factor(min(self.last_epoch, self.total_steps), self.total_steps) if self.total_steps else 1.0
        return [base * factor for base in self.base_lrs]


class WarmupCosine(_WholeRunSchedule):
    """Linear warm-up, then half a cosine down.

    Args:
        optimizer: whose learning rates are scaled.
        warmup: share of the optimizer steps that warm up.
        floor: share of the base rate that it ends at.
    """

    def __init__(self, optimizer: Optimizer, warmup: float = 0.1, floor: float = 0.0) -> None:
        _check_share("warmup", warmup)
        _check_share("floor", floor)
        self.warmup, self.floor = warmup, floor
        super().__init__(optimizer)

    def factor(self, step: int, total_steps: int) -> float:
        warmup_steps = round(self.warmup * total_steps)
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
        return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * progress))


class WarmupStableDecay(_WholeRunSchedule):
    """Linear warm-up, a constant rate, and a linear decay to 0 at the end (WSD).

    The defaults are those of the released CodePMP code: 3% warm-up, last 10% decay.

    Args:
        optimizer: whose learning rates are scaled.
        warmup: share of the optimizer steps that warm up.
        decay: share of the optimizer steps, the last ones, that decay.
    """

    def __init__(self, optimizer: Optimizer, warmup: float = 0.03, decay: float = 0.1) -> None:
        _check_share("warmup", warmup)
        _check_share("decay", decay)
        if warmup + decay > 1:
            raise ValueError(f"warmup + decay must be <= 1, got {warmup} + {decay}")
        self.warmup, self.decay = warmup, decay
        self.decay_start: int | None = None  # where `begin_decay` was called
        super().__init__(optimizer)

    def factor(self, step: int, total_steps: int) -> float:
        warmup_steps = round(self.warmup * total_steps)
        if step < warmup_steps and self.decay_start is None:
            return (step + 1) / (warmup_steps + 1)
        start = total_steps - round(self.decay * total_steps) if self.decay_start is None else self.decay_start
        return min(1.0, (total_steps - step) / (total_steps - start)) if start < total_steps else 1.0

    @property
    def stable_steps(self) -> range:
        """Numbers of finished steps after which a decay can begin, its own start included; none once it has begun."""
        if self.decay_start is not None:
            return range(0)
        last = self.total_steps - round(self.decay * self.total_steps)
        return range(max(1, round(self.warmup * self.total_steps)), last + 1)

    def begin_decay(self, decay: float) -> None:
        """Decay from the next step on, so that in the end the share `decay` of all steps has decayed.

        After s steps the decay takes s · decay / (1 − decay) more steps, at least one. Started where the schedule's own
        decay starts, with its own share, the run is unchanged up to rounding. Raises ValueError outside of the stable
        phase.
        """
        if not 0 < decay < 1:
            raise ValueError(f"decay must be in (0, 1), got {decay}")
        step, stable = self.last_epoch, self.stable_steps
        if step not in stable:
            phase = f"{stable.start} to {stable.stop - 1} of {self.total_steps}" if stable else "none"
            raise ValueError(f"step {step} is not in the stable phase, which is {phase}")
        total_steps = math.floor(round(step / (1 - decay), 6))  # rounded: 9 / 0.9 must not fall below 10
        self.decay_start, self.decay, self.total_steps = step, decay, max(total_steps, step + 1)


def _check_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must be in [0, 1], got {value}")
