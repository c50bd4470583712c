import torch
from my_objectives import CappedDPO

from lit_pref.losses import DPO
from lit_pref.types import PairLogps


def logps(chosen: list[float], rejected: list[float]) -> PairLogps:
    lengths = torch.full((len(chosen),), 3.0)
    return PairLogps(torch.tensor(chosen, requires_grad=True), torch.tensor(rejected), lengths, lengths)


def test_capped_dpo_is_dpo_up_to_its_cap() -> None:
    # log-ratios of chosen minus rejected: 4 and 40 nats; with beta 0.1 reward gaps of 0.4, below the cap of 1, and 4
    policy, reference = logps([-2.0, -2.0], [-9.0, -45.0]), logps([-5.0, -5.0], [-8.0, -8.0])
    loss_P = CappedDPO(beta=0.1, cap=1.0)(policy, reference)
    expected = torch.stack([DPO(beta=0.1)(policy, reference)[0], -torch.tensor(1.0).sigmoid().log()])
    torch.testing.assert_close(loss_P, expected)
    loss_P.sum().backward()
    assert policy.chosen.grad is not None
    assert policy.chosen.grad[0] < 0 and policy.chosen.grad[1] == 0
