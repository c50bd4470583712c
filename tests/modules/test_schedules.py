import math
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from lightning.pytorch import Trainer

from lit_pref.errors import UserError
from lit_pref.modules import WarmupCosine, WarmupStableDecay
from lit_pref.modules.optimization import follow_length


def rates(schedule, total_steps: int, **settings) -> list[float]:
    """The learning rate of each optimizer step of a run, at base rate 1."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = schedule(optimizer, **settings)
    scheduler.set_total_steps(total_steps)
    seen = []
    for _ in range(total_steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return seen


def test_cosine_warms_up_linearly_then_falls_along_half_a_cosine():
    seen = rates(WarmupCosine, 20, warmup=0.2, floor=0.1)
    # 4 warm-up steps climb by fifths; step 4 + k of 16 is at progress k/16.
    assert seen[:4] == pytest.approx([1 / 5, 2 / 5, 3 / 5, 4 / 5])
    expected = [0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * k / 16)) for k in range(16)]
    assert seen[4:] == pytest.approx(expected)


def test_stable_decay_holds_then_falls_linearly():
    seen = rates(WarmupStableDecay, 20, warmup=0.1, decay=0.25)
    assert seen[:2] == pytest.approx([1 / 3, 2 / 3])
    assert seen[2:15] == [1.0] * 13
    # 5 decay steps: from 1 at step 15 down to 1/5 at the last
    assert seen[15:] == pytest.approx([1.0, 4 / 5, 3 / 5, 2 / 5, 1 / 5])


def test_a_resumed_schedule_goes_on():
    whole = rates(WarmupCosine, 10, warmup=0.2)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    first = WarmupCosine(optimizer, warmup=0.2)
    first.set_total_steps(10)
    for _ in range(6):
        optimizer.step()
        first.step()
    resumed_optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    resumed = WarmupCosine(resumed_optimizer, warmup=0.2)
    resumed.set_total_steps(10)
    resumed_optimizer.load_state_dict(optimizer.state_dict())
    resumed.load_state_dict(first.state_dict())
    assert resumed_optimizer.param_groups[0]["lr"] == pytest.approx(whole[6])


def scheduled(schedule, total_steps: int, finished: int, **settings):
    """A schedule of base rate 1 behind so many finished steps."""
    scheduler = schedule(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0), **settings)
    scheduler.set_total_steps(total_steps)
    go_on(scheduler, finished)
    return scheduler


def go_on(scheduler, steps: int) -> list[float]:
    """The rates of the next steps."""
    seen = []
    for _ in range(steps):
        seen.append(scheduler.optimizer.param_groups[0]["lr"])
        scheduler.optimizer.step()
        scheduler.step()
    return seen


@pytest.mark.parametrize(
    ("finished", "decay", "total_steps", "expected"),
    [
        (8, 0.5, 16, [1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]),
        (9, 0.1, 10, [1]),  # 9 / 0.9
        (12, 0.25, 16, [1, 3 / 4, 2 / 4, 1 / 4]),
        (15, 0.25, 20, [1, 4 / 5, 3 / 5, 2 / 5, 1 / 5]),  # where its own decay begins
        (2, 0.1, 3, [1]),  # floor(2 / 0.9) would be no step
    ],
)
def test_an_early_decay_makes_the_whole_a_shorter_run(finished, decay, total_steps, expected):
    schedule = scheduled(WarmupStableDecay, 20, finished, warmup=0.1, decay=0.25)
    schedule.begin_decay(decay)
    assert schedule.total_steps == total_steps == finished + len(expected)
    assert go_on(schedule, len(expected) + 2) == pytest.approx([*expected, 0, 0])


def test_a_resumed_schedule_that_ends_before_its_run_is_told(capsys: pytest.CaptureFixture[str]):
    schedule = scheduled(WarmupCosine, 4, 2)
    for steps, told in ((4, ""), (8, "the checkpoint's schedule ends at step 4 of 8")):
        config = SimpleNamespace(scheduler=schedule)
        run = SimpleNamespace(
            lr_scheduler_configs=[config], estimated_stepping_batches=steps, callbacks=[], is_global_zero=True
        )
        follow_length(cast(Trainer, run))
        assert schedule.total_steps == 4 and told in (out := capsys.readouterr().out) and bool(out) == bool(told)


def test_an_early_decay_goes_on_when_it_is_resumed():
    schedule = scheduled(WarmupStableDecay, 20, 8, warmup=0.1, decay=0.25)
    schedule.begin_decay(0.5)
    go_on(schedule, 3)
    resumed = scheduled(WarmupStableDecay, 20, 0, warmup=0.1, decay=0.25)
    resumed.optimizer.load_state_dict(schedule.optimizer.state_dict())
    resumed.load_state_dict(schedule.state_dict())
    assert resumed.decay_start == 8 and resumed.decay == 0.5
    assert go_on(resumed, 6) == pytest.approx([5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8, 0])


def test_a_decay_can_begin_in_the_stable_phase_alone():
    # 20 steps: 2 warm up, the last 5 decay; without warm-up nothing can decay before the first step
    assert scheduled(WarmupStableDecay, 20, 0, warmup=0.1, decay=0.25).stable_steps == range(2, 16)
    assert scheduled(WarmupStableDecay, 20, 0, warmup=0.0, decay=0.0).stable_steps == range(1, 21)
    for finished in (1, 16):
        schedule = scheduled(WarmupStableDecay, 20, finished, warmup=0.1, decay=0.25)
        with pytest.raises(ValueError, match=f"step {finished} is not in the stable phase, which is 2 to 15 of 20"):
            schedule.begin_decay(0.1)
    schedule = scheduled(WarmupStableDecay, 20, 8)
    schedule.begin_decay(0.5)
    with pytest.raises(ValueError, match="step 8 is not in the stable phase, which is none"):
        schedule.begin_decay(0.5)


@pytest.mark.parametrize("decay", [0.0, 1.0, 1.5, -0.1])
def test_an_early_decay_is_a_share(decay):
    with pytest.raises(ValueError, match=rf"decay must be in \(0, 1\), got {decay}"):
        scheduled(WarmupStableDecay, 20, 8).begin_decay(decay)


def test_the_state_of_another_schedule_is_refused():
    cosine, stable = (scheduled(kind, 20, 8) for kind in (WarmupCosine, WarmupStableDecay))
    with pytest.raises(UserError, match="was trained with WarmupCosine, this run has WarmupStableDecay"):
        stable.load_state_dict(cosine.state_dict())
    # Earlier checkpoints do not say which it was.
    unnamed = {name: value for name, value in cosine.state_dict().items() if name != "schedule"}
    scheduled(WarmupCosine, 20, 0).load_state_dict(unnamed)


@pytest.mark.parametrize(
    ("schedule", "settings", "message"),
    [
        (WarmupCosine, {"warmup": 1.5}, r"warmup must be in \[0, 1\], got 1.5"),
        (WarmupCosine, {"floor": -0.1}, r"floor must be in \[0, 1\], got -0.1"),
        (WarmupStableDecay, {"warmup": 0.6, "decay": 0.5}, "warmup \\+ decay must be <= 1, got 0.6 \\+ 0.5"),
    ],
)
def test_impossible_shares_are_refused(schedule, settings, message):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    with pytest.raises(ValueError, match=message):
        schedule(optimizer, **settings)
