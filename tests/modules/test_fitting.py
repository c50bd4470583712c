"""Checkpoints of other runs, refused by the name of what differs."""

from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule

from lit_pref.errors import UserError
from lit_pref.losses import DPO
from lit_pref.models import LoRA
from lit_pref.modules import DPOModule, WarmupCosine, adamw
from lit_pref.modules.fitting import check_fits


class Pairs(LightningDataModule):
    """Stands for the data of a run; nothing is asked of it."""


def module_of(**settings: Any) -> DPOModule:
    optimizer = settings.pop("optimizer", adamw(1e-4))
    return DPOModule(policy="embedded:coder", objective=DPO(), optimizer=optimizer, **settings)


def content_of(module: DPOModule, /, **saved: Any) -> dict[str, Any]:
    """What a run of the module leaves behind, as far as it is looked at."""
    optimizer = module.make_optimizer([p for p in module.parameters() if p.requires_grad])
    scheduler = None if module.make_scheduler is None else module.make_scheduler(optimizer)
    content: dict[str, Any] = {
        "state_dict": module.state_dict(),
        "optimizer_states": [optimizer.state_dict()],
        "lr_schedulers": [] if scheduler is None else [scheduler.state_dict()],
        "loops": {"fit_loop": {}},
        "pytorch-lightning_version": "2.6.0",
        "Pairs": {"epoch": 0, "batches": 3, "ended": False},
    }
    kept: dict[str, Any] = {"state_dict": content["state_dict"]}
    module.on_save_checkpoint(kept)
    names = {"module": "DPOModule", "data": "Pairs", "optimizer": type(optimizer).__name__}
    names["scheduler"] = None if scheduler is None else type(scheduler).__name__
    return content | kept | {"lit_pref": kept["lit_pref"] | names | saved}


@pytest.fixture(scope="module")
def module() -> DPOModule:
    return module_of()


def test_its_own_checkpoint_fits(module: DPOModule) -> None:
    check_fits(module, content_of(module), Pairs(), resumes=True)
    older = content_of(module)
    older["lit_pref"] = {name: older["lit_pref"][name] for name in ("policy", "num_tokens", "start_fingerprint")}
    check_fits(module, older, Pairs(), resumes=True)


@pytest.mark.parametrize(
    ("saved", "expected"),
    [
        ({"module": "SFTModule"}, "the module: the checkpoint was trained with SFTModule, this run has DPOModule"),
        ({"optimizer": "SGD"}, "model.optimizer: the checkpoint was trained with SGD, this run has AdamW"),
        ({"scheduler": None}, "model.scheduler: the checkpoint was trained with None, this run has WarmupCosine"),
        ({"adapter": {"r": 4}, "base_fingerprint": ""}, "the checkpoint was trained with adapter LoRA"),
    ],
    ids=["module", "optimizer", "scheduler", "adapter"],
)
def test_what_differs_by_name(saved: dict[str, Any], expected: str, module: DPOModule) -> None:
    with pytest.raises(UserError, match=expected):
        check_fits(module, content_of(module, **saved), Pairs(), resumes=True)


def test_an_older_checkpoint_of_another_optimizer(module: DPOModule) -> None:
    older = content_of(module_of(optimizer=lambda params: torch.optim.SGD(params, lr=0.1)))
    older["lit_pref"] = {name: older["lit_pref"][name] for name in ("policy", "num_tokens", "start_fingerprint")}
    with pytest.raises(UserError, match=r"model\.optimizer: the checkpoint's state is not of AdamW"):
        check_fits(module, older, Pairs(), resumes=True)
    check_fits(module, older, Pairs(), resumes=False)  # its weights can be measured


def test_weights_of_another_size_and_weights_only(module: DPOModule) -> None:
    content = content_of(module)
    other = content | {"state_dict": {name: x[:1] for name, x in content["state_dict"].items()}}
    with pytest.raises(UserError, match="the checkpoint's weights are not of this DPOModule of 'embedded:coder'"):
        check_fits(module, other, Pairs(), resumes=False)
    del content["optimizer_states"]
    with pytest.raises(UserError, match="holds weights only"):
        check_fits(module, content, Pairs(), resumes=True)


def test_other_data_within_an_epoch(module: DPOModule) -> None:
    content = content_of(module, data="DemonstrationsDataModule")
    content["DemonstrationsDataModule"] = {"ended": False}
    with pytest.raises(UserError, match="the data module: the checkpoint was trained with DemonstrationsDataModule"):
        check_fits(module, content, Pairs(), resumes=True)
    content["DemonstrationsDataModule"] = {"ended": True}
    check_fits(module, content, Pairs(), resumes=True)


@pytest.mark.filterwarnings("ignore:.*")
def test_another_rank_of_an_adapter(module: DPOModule) -> None:
    adapted = module_of(adapter=LoRA(r=4))
    with pytest.raises(UserError, match="the checkpoint was trained with adapter LoRA"):
        check_fits(module_of(adapter=LoRA(r=2), scheduler=lambda optimizer: WarmupCosine(optimizer)),
                   content_of(adapted), Pairs(), resumes=False)  # fmt: skip
