import math

import pytest
import torch

from lit_pref.modules import WarmupCosine, WarmupStableDecay


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
