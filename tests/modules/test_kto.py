"""KTOModule on a tiny random Llama, against plain forward passes and the loss written out by hand."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lit_pref.callbacks import BeforeAfter
from lit_pref.data.batches.packing import collate_rows
from lit_pref.datamodules import LabelledDataModule, PairsDataModule
from lit_pref.errors import UserError
from lit_pref.evaluation import PairAccuracy
from lit_pref.losses import DPO, KTO
from lit_pref.modules import DPOModule, KTOModule
from lit_pref.types import StepWeight, TokenTree
from tests.tiny import rows_file, tiny_llama, trainer_for

ROWS = [{"prompt": f"def f{i % 4}(x):\n", "completion": f"    return x + {i}", "label": i % 3 > 0} for i in range(7)]


def kto(policy: str, **settings: Any) -> KTOModule:
    defaults: dict[str, Any] = {"optimizer": lambda params: torch.optim.SGD(params, lr=0.05), "scheduler": None}
    return KTOModule(policy, **(defaults | settings))


def labelled(folder: Path, **settings: Any) -> LabelledDataModule:
    path = rows_file(folder / "rows.jsonl", ROWS)
    return LabelledDataModule(path, validation=path, **({"batch_size": 7} | settings))


class Weights(Callback):
    """What each step starts from, and what it logs."""

    def __init__(self) -> None:
        self.before: list[dict[str, Tensor]] = []
        self.logged: list[dict[str, float]] = []

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, batch: Any, index: int) -> None:
        self.before.append({name: value.detach().clone() for name, value in module.model.state_dict().items()})

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        self.logged.append({name: float(value) for name, value in trainer.logged_metrics.items()})


def plain_logps(weights: dict[str, Tensor], trees: list[TokenTree]) -> Tensor:
    """[rows, 2]: of the own and the mismatched completion, one sequence at a time."""
    model = tiny_llama()
    model.load_state_dict(weights)
    sums = []
    for prompt, completions in trees:
        for ids in completions:
            with torch.no_grad():
                logits = model(torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 : -1]
            sums.append(logits.log_softmax(-1).gather(-1, torch.tensor(ids)[:, None]).double().sum())
    return torch.stack(sums).view(-1, 2)


def test_steps_are_ktos_on_plain_forward_passes(policy: str, tmp_path: Path):
    objective = KTO(beta=0.5, desirable_weight=1.5)
    seen, data = Weights(), labelled(tmp_path)
    trainer_for(tmp_path, seen, max_epochs=3).fit(kto(policy, objective=objective), data)
    trees, desirable = list(data.data["train"].trees), torch.tensor([row["label"] for row in ROWS])
    start = plain_logps(dict(tiny_llama().state_dict()), trees)
    kls = []
    for weights, logged in zip(seen.before, seen.logged, strict=True):
        now = plain_logps(weights, trees)
        own, other = (now - start).T
        kl = other.mean().clamp(min=0)
        kls.append(kl.item())
        gain = torch.where(desirable, own - kl, kl - own)
        loss = (torch.where(desirable, 1.5, 1.0) * (1 - torch.sigmoid(0.5 * gain))).mean()
        expected = {
            "loss": loss,
            "kl": kl,
            "rewards/chosen": 0.5 * own[desirable].mean(),
            "rewards/rejected": 0.5 * own[~desirable].mean(),
            "rewards/margins": 0.5 * (own[desirable].mean() - own[~desirable].mean()),
            "logps/chosen": now[desirable, 0].mean(),
            "logps/rejected": now[~desirable, 0].mean(),
            "desirable": torch.tensor(4 / 7),
        }
        for name, value in expected.items():
            assert logged[f"train/{name}"] == pytest.approx(value.item(), rel=1e-5, abs=2e-5), name
    assert kls[0] == 0 and max(kls) > 0.01  # it moved
    assert seen.logged[0]["train/loss"] == pytest.approx((4 * 1.5 + 3) / 7 / 2, abs=1e-5)  # 1 − σ(0), weighed


def test_a_label_that_a_step_lacks_is_not_logged(policy: str, tmp_path: Path):
    path = rows_file(tmp_path / "rows.jsonl", [row for row in ROWS if row["label"]])
    trainer = trainer_for(tmp_path)
    trainer.fit(kto(policy), LabelledDataModule(path, batch_size=9))
    assert {"train/rewards/chosen", "train/logps/chosen", "train/loss"} <= trainer.callback_metrics.keys()
    assert not any(name.endswith(("rejected", "margins")) for name in trainer.callback_metrics)


def test_the_divergence_is_over_all_processes(policy: str):
    module = kto(policy)
    batch = collate_rows("labelled", [[TokenTree((1,), ((2,), (3,)))]], [0], pad_id=1, values=[1.0])
    other: dict[str, Tensor] = {"sum and count": torch.tensor([4.0, 3.0])}  # what the other process holds
    strategy = SimpleNamespace(reduce=lambda own, reduce_op: own + other["sum and count"])
    module._trainer = SimpleNamespace(world_size=2, strategy=strategy)  # type: ignore[assignment]
    own = torch.tensor([2.0])
    assert module._divergence(batch, own).item() == pytest.approx((2 + 4) / (1 + 3))
    filler = batch._replace(weight=StepWeight(0.0, 0.0))
    assert module._divergence(filler, own).item() == pytest.approx(4 / 3)
    other["sum and count"] = torch.tensor([-4.0, 3.0])
    assert module._divergence(batch, own).item() == 0


def test_rows_without_a_mismatched_completion_need_an_objective_without_kl(policy: str):
    batch = collate_rows("labelled", [[TokenTree((5, 6), ((7,),))]], [0], pad_id=1, values=[1.0])
    with pytest.raises(UserError, match=r"no mismatched completion for the KL term: set model\.objective\.kl to false"):
        kto(policy)._divergence(batch, torch.empty(0))
    assert kto(policy, objective=KTO(kl=False))._divergence(batch, torch.empty(0)) == 0


def test_each_method_refuses_the_other_s_rows(policy: str, tmp_path: Path):
    with pytest.raises(UserError, match="DPOModule takes batches of the kind pair, and is given labelled"):
        trainer_for(tmp_path).fit(DPOModule(policy, DPO()), labelled(tmp_path))
    pairs = rows_file(tmp_path / "pairs.jsonl", [{"prompt": "a", "chosen": "b", "rejected": "c"}])
    with pytest.raises(UserError, match="KTOModule takes batches of the kind labelled, and is given pair"):
        trainer_for(tmp_path).fit(kto(policy), PairsDataModule(pairs, validation_size=0))


def test_pair_accuracy_is_of_pairs(policy: str, tmp_path: Path):
    figures = BeforeAfter([PairAccuracy()])
    with pytest.raises(UserError, match="PairAccuracy measures pairs, and KTOModule is given rows that are none"):
        trainer_for(tmp_path, figures).fit(kto(policy), labelled(tmp_path))


def test_loaders_of_data_without_validation(policy: str, tmp_path: Path):
    data = LabelledDataModule(rows_file(tmp_path / "rows.jsonl", ROWS), validation_size=0, policy=policy)
    data.setup("fit")
    trainer = trainer_for(tmp_path)
    trainer.fit(kto(policy), data.train_dataloader(), data.val_dataloader())
    assert "train/loss" in trainer.callback_metrics and "validation/loss" not in trainer.callback_metrics
    with pytest.raises(UserError, match="no validation data: give data"):
        data.show(split="validation")


def test_validation_and_predictions_are_of_the_rows(policy: str, tmp_path: Path):
    module, data = kto(policy), labelled(tmp_path, batch_size=3)
    trainer = trainer_for(tmp_path)
    trainer.fit(module, data)
    assert {"validation/loss", "validation/kl", "validation/rewards/margins"} <= trainer.callback_metrics.keys()
    batches = trainer.predict(module, data)
    assert batches is not None
    labels = {
        int(row): float(label) for batch in batches for row, label in zip(batch["row"], batch["label"], strict=True)
    }
    assert labels == {row: float(bool(each["label"])) for row, each in enumerate(ROWS)}
