"""Learning-rate schedules over the whole run: warm-up with cosine decay, and warm-up, stable, decay (WSD).

They count in shares of the run; the module tells them how many optimizer steps that is. Any other torch scheduler
can stand in their place.
"""

import math

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


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
        super().__init__(optimizer)

    def factor(self, step: int, total_steps: int) -> float:
        warmup_steps, decay_steps = round(self.warmup * total_steps), round(self.decay * total_steps)
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        return min(1.0, (total_steps - step) / decay_steps) if decay_steps else 1.0


def _check_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must be in [0, 1], got {value}")
