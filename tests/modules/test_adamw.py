"""One optimizer is every method's default, in Python as in a config without one."""

import inspect

import pytest
import torch

from lit_pref.modules import DPOModule, KTOModule, PMPretrainModule, RewardFinetuneModule, SFTModule, adamw


@pytest.mark.parametrize("method", [DPOModule, KTOModule, PMPretrainModule, RewardFinetuneModule, SFTModule])
def test_it_is_the_same_for_all_methods_but_for_rates(method: type):
    make = inspect.signature(method).parameters["optimizer"].default
    of_method, ours = (each([torch.nn.Parameter(torch.zeros(1))]) for each in (make, adamw(1.0)))
    assert type(of_method) is type(ours) is torch.optim.AdamW
    own = {"lr"} | ({"weight_decay"} if method is PMPretrainModule else set())  # CodePMP's own weight decay
    assert {name: value for name, value in of_method.defaults.items() if name not in own} == {
        name: value for name, value in ours.defaults.items() if name not in own
    }
    assert ours.defaults["betas"] == (0.9, 0.999) and ours.defaults["weight_decay"] == 0
