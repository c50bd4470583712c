"""A loss that turns bad at a known step, in automatic and in manual optimization."""

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lit_pref.callbacks import FiniteLoss
from lit_pref.errors import UserError


class Batch(NamedTuple):
    values: Tensor
    number: int


class Module(LightningModule):
    """Loss: weight × the batch's value, so that the third batch (`bad`) makes the loss what it is."""

    def __init__(self, manual: bool = False) -> None:
        super().__init__()
        self.automatic_optimization = not manual
        self.weight = nn.Parameter(torch.tensor(1.0))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = self.weight * batch.values.sum()
        if not self.automatic_optimization:
            optimizer = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD([self.weight], lr=0.125)


class NamingModule(Module):
    def non_finite_values(self) -> str:
        return "the score of pair 3 is nan"


def fit(folder: Path, bad: float, manual: bool = False, kind: type[Module] = Module, **settings: Any) -> Module:
    batches = [Batch(torch.tensor([x]), number) for number, x in enumerate([1.0, 1.0, bad, 1.0])]
    module = kind(manual)
    trainer = Trainer(
        **settings,
        accelerator="cpu",
        max_steps=4,
        logger=False,
        callbacks=[FiniteLoss()],
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    try:
        trainer.fit(module, DataLoader(batches, batch_size=None))  # type: ignore[arg-type]
    except UserError as error:
        error.module = module  # type: ignore[attr-defined]
        raise
    return module


@pytest.mark.parametrize("manual", [False, True])
@pytest.mark.parametrize(("bad", "shown"), [(float("nan"), "nan"), (float("inf"), "inf")])
def test_stops_before_the_step_with_the_batch_saved(tmp_path: Path, bad: float, shown: str, manual: bool):
    with pytest.raises(UserError, match=f"the loss is {shown} after 2 optimizer steps") as raised:
        fit(tmp_path, bad, manual)
    message = str(raised.value)
    assert str(tmp_path / "non_finite_batch.pt") in message and "learning rate" in message and "bf16" in message
    # Two good steps of 0.125 each: the weight is finite, and no step followed.
    assert raised.value.module.weight.item() == 1 - 2 * 0.125  # type: ignore[attr-defined]

    saved = torch.load(tmp_path / "non_finite_batch.pt", weights_only=False)
    assert saved["batch"].number == 2 and not saved["batch"].values.isfinite().any()
    assert saved["step"] == 2 and not saved["loss"].isfinite()


def test_the_module_says_which_value_it_is(tmp_path: Path):
    with pytest.raises(UserError, match="in epoch 0, because the score of pair 3 is nan; expected a finite number"):
        fit(tmp_path, float("nan"), kind=NamingModule)


def test_stops_within_an_accumulated_step(tmp_path: Path):
    # Two batches a step: the third is the first one of the second step.
    with pytest.raises(UserError, match="the loss is nan after 1 optimizer steps") as raised:
        fit(tmp_path, float("nan"), accumulate_grad_batches=2)
    assert raised.value.module.weight.item() == 1 - 0.125  # type: ignore[attr-defined]


class OtherIsNaN(SingleDeviceStrategy):
    """As with several processes, of which another one has a loss that is NaN in its second step."""

    looks = 0

    def reduce_boolean_decision(self, decision: bool, all: bool = True) -> bool:
        self.looks += 1
        return decision and self.looks < 2


def test_stops_together_with_another_process(tmp_path: Path):
    strategy = OtherIsNaN("cpu")
    with pytest.raises(UserError, match="the loss of another process is not a finite number"):
        fit(tmp_path, 1.0, strategy=strategy)
    assert strategy.looks == 2 and list(tmp_path.iterdir()) == []


def test_a_finite_run_is_left_alone(tmp_path: Path):
    assert fit(tmp_path, bad=1.0).weight.item() == 1 - 4 * 0.125
    assert list(tmp_path.iterdir()) == []
