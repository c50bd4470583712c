"""A module with an adapter: what its checkpoints hold, exact resuming, refusals, its own dropout."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lit_pref.data.batches.packing import collate_rows
from lit_pref.datamodules import PairsDataModule
from lit_pref.errors import UserError
from lit_pref.losses import DPO
from lit_pref.models import (
    LoRA,
    adapter_state,
    base_fingerprint,
    load_causal_lm,
    weights_fingerprint,
)
from lit_pref.modules import Compute, DPOModule, SFTModule
from lit_pref.types import RowBatch, TokenTree
from tests.tiny import saved, tiny_llama

ADAPTER = LoRA(r=2, lora_alpha=4)


def batches() -> list[RowBatch]:
    draws = torch.Generator().manual_seed(0)
    ids = torch.randint(2, 884, (3, 2, 8), generator=draws).tolist()
    return [
        collate_rows(
            "demonstration",
            [[TokenTree(tuple(row[:3]), (tuple(row[3:]),))] for row in rows],
            range(len(rows)),
            pad_id=1,
        )
        for rows in ids
    ]


def sft(policy: str, **settings: Any) -> SFTModule:
    optimizer = lambda params: torch.optim.AdamW(params, lr=0.02)  # noqa: E731
    return SFTModule(policy, **{"adapter": ADAPTER, "optimizer": optimizer, "scheduler": None, **settings})


def trainer_for(folder: Path, epochs: int, **settings: Any) -> Trainer:
    defaults: dict[str, Any] = {
        "accelerator": "cpu",
        "max_epochs": epochs,
        "logger": False,
        "log_every_n_steps": 1,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "default_root_dir": folder,
    }
    return Trainer(**(defaults | settings))


def fitted(
    module: SFTModule, folder: Path, epochs: int = 1, checkpoint: Path | None = None, **settings: Any
) -> Trainer:
    trainer = trainer_for(folder, epochs, **settings)
    trainer.fit(module, DataLoader(batches(), batch_size=None), ckpt_path=checkpoint)
    return trainer


def checkpoint_of(module: SFTModule, folder: Path) -> Path:
    fitted(module, folder).save_checkpoint(folder / "x.ckpt")
    return folder / "x.ckpt"


# --- checkpoints ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [False, True])
def test_a_checkpoint_holds_the_adapter_alone(tmp_path: Path, tied: bool):
    module = sft(saved(tmp_path / "model", tiny_llama(tie_word_embeddings=tied)))
    content = torch.load(checkpoint_of(module, tmp_path), weights_only=True)
    adapter = adapter_state(module.model)
    assert content["state_dict"].keys() == {f"model.{name}" for name in adapter}
    assert content["lit_pref"]["adapter"]["r"] == 2
    assert len(content["optimizer_states"][0]["state"]) == len(adapter)  # moments of nothing else either
    for name, value in content["state_dict"].items():
        assert torch.equal(value, adapter[name.removeprefix("model.")])
    assert all(bool(value.any()) for value in adapter.values())  # B has left 0


def test_training_leaves_the_base_as_it_was(policy: str, tmp_path: Path):
    module = sft(policy)
    before = weights_fingerprint(load_causal_lm(policy))
    assert module.base_fingerprint == before
    fitted(module, tmp_path, epochs=2)
    assert base_fingerprint(module.model) == before
    with torch.no_grad(), module.adapter_off():
        off = module.score(batches()[0].trees).logps_N
    assert torch.equal(off, sft(policy, adapter=None).score(batches()[0].trees).logps_N.detach())


class Headed(SFTModule):
    """As a method with parts of its own: a head that trains, one that is frozen, and a running mean."""

    def __init__(self, policy: str) -> None:
        super().__init__(policy, adapter=ADAPTER, scheduler=None)
        self.head, self.frozen = nn.Linear(16, 1), nn.Linear(16, 1).requires_grad_(False)
        self.register_buffer("running", torch.zeros(()))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.running += 1
        return super().training_step(batch, batch_idx) + self.head(torch.ones(16)).square().sum()


def test_what_a_method_adds_and_trains_is_kept(policy: str, tmp_path: Path):
    module = Headed(policy)
    path = checkpoint_of(module, tmp_path)
    state = torch.load(path, weights_only=True)["state_dict"]
    assert {name for name in state if not name.startswith("model.")} == {"head.weight", "head.bias", "running"}
    resumed = Headed(policy)
    fitted(resumed, tmp_path, epochs=1, checkpoint=path)  # which has no step left
    assert torch.equal(resumed.head.weight, module.head.weight)
    assert resumed.running == 3


@pytest.mark.parametrize("compute", [Compute(), Compute(gradient_checkpointing=True)], ids=["plain", "checkpointing"])
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(policy: str, tmp_path: Path, compute: Compute):
    def seeded() -> SFTModule:
        seed_everything(3, verbose=False)
        return sft(policy, compute=compute)

    whole, half = seeded(), seeded()
    fitted(whole, tmp_path, epochs=2)
    path = checkpoint_of(half, tmp_path)
    seed_everything(4, verbose=False)  # other draws for A, which the checkpoint replaces
    resumed = sft(policy, compute=compute)
    fitted(resumed, tmp_path, epochs=2, checkpoint=path)
    expected, got = adapter_state(whole.model), adapter_state(resumed.model)
    assert got.keys() == expected.keys()
    assert all(torch.equal(got[name], value) for name, value in expected.items())
    assert not all(torch.equal(value, adapter_state(half.model)[name]) for name, value in expected.items())
    assert resumed.num_tokens == whole.num_tokens


def pairs(folder: Path) -> PairsDataModule:
    rows = [{"prompt": f"# {i}\n", "chosen": f"x = {i}", "rejected": "pass" + "!" * i} for i in range(6)]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return PairsDataModule(str(folder / "pairs.jsonl"), validation_size=0.0, batch_size=2)


class SavesAtStep4(Callback):
    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if trainer.global_step == 4:
            trainer.save_checkpoint(self.path)


def test_dpo_resumes_against_the_same_reference(policy: str, tmp_path: Path):
    def module(seed: int) -> DPOModule:
        seed_everything(seed, verbose=False)
        optimizer = lambda params: torch.optim.AdamW(params, lr=0.02)  # noqa: E731
        return DPOModule(policy, objective=DPO(0.3), adapter=ADAPTER, optimizer=optimizer, scheduler=None)

    whole, resumed = module(3), module(4)
    trainer_for(tmp_path, 2, callbacks=[SavesAtStep4(tmp_path / "x.ckpt")]).fit(whole, pairs(tmp_path))
    trainer = trainer_for(tmp_path, 2)
    trainer.fit(resumed, pairs(tmp_path), ckpt_path=tmp_path / "x.ckpt")
    assert trainer.global_step == 6 and torch.load(tmp_path / "x.ckpt", weights_only=True)["global_step"] == 4
    got = adapter_state(resumed.model)
    assert all(torch.equal(got[name], value) for name, value in adapter_state(whole.model).items())


def test_a_trained_adapter_measures_the_same_after_loading(policy: str, tmp_path: Path):
    module = sft(policy)
    path = checkpoint_of(module, tmp_path)
    before = module.score(batches()[0].trees).logps_N.detach()
    loaded = sft(policy)
    trainer_for(tmp_path, 1).validate(loaded, DataLoader(batches(), batch_size=None), ckpt_path=path, verbose=False)
    assert torch.equal(loaded.score(batches()[0].trees).logps_N.detach(), before)


# --- refusals ---------------------------------------------------------------------------------------------------------


def other_policy(policy: str, folder: Path) -> SFTModule:
    return sft(saved(folder / "other", tiny_llama(seed=1)))


def other_rank(policy: str, folder: Path) -> SFTModule:
    return sft(policy, adapter=LoRA(r=3, lora_alpha=4))


def other_alpha(policy: str, folder: Path) -> SFTModule:
    """Of the same shapes: nothing but the record tells."""
    return sft(policy, adapter=LoRA(r=2, lora_alpha=8))


def no_adapter(policy: str, folder: Path) -> SFTModule:
    return sft(policy, adapter=None)


def further_parts(policy: str, folder: Path) -> SFTModule:
    return Headed(policy)


@pytest.mark.parametrize(
    ("into", "message"),
    [
        (other_policy, [r"on other weights \('.*model' as it was, fingerprint \w{32}\)", r"'.*other' here \(\w{32}"]),
        (other_rank, [r"adapter LoRA\(r=2, lora_alpha=4,", r"this run has LoRA\(r=3, lora_alpha=4,"]),
        (other_alpha, [r"adapter LoRA\(r=2, lora_alpha=4,", r"this run has LoRA\(r=2, lora_alpha=8,"]),
        (no_adapter, [r"adapter LoRA\(r=2, lora_alpha=4,", "this run has None: give the same one, or export"]),
        (further_parts, ["trained with SFTModule, this run has Headed: give the same"]),
    ],
)  # fmt: skip
def test_a_checkpoint_of_something_else_is_refused(
    into: Callable[[str, Path], SFTModule], message: Sequence[str], policy: str, tmp_path: Path
):
    path = checkpoint_of(sft(policy), tmp_path)
    with pytest.raises(UserError, match=".*".join(message)):
        fitted(into(policy, tmp_path), tmp_path, epochs=2, checkpoint=path)


def test_all_weights_are_refused_where_an_adapter_trains(policy: str, tmp_path: Path):
    path = checkpoint_of(sft(policy, adapter=None), tmp_path)
    with pytest.raises(UserError, match=r"trained with adapter None and this run has LoRA\(r=2"):
        fitted(sft(policy), tmp_path, epochs=2, checkpoint=path)


def test_dropout_may_change_between_runs(policy: str, tmp_path: Path):
    path = checkpoint_of(sft(policy), tmp_path)
    module = sft(policy, adapter=LoRA(r=2, lora_alpha=4, lora_dropout=0.1))
    assert fitted(module, tmp_path, epochs=2, checkpoint=path).global_step == 6


def test_an_adapter_on_fresh_weights_is_refused(policy: str):
    with pytest.raises(UserError, match="random_init: an adapter would leave the policy's fresh weights"):
        sft(policy, random_init=True)


# --- dropout ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dropout", [False, True])
def test_the_adapter_s_dropout_is_its_own_argument(policy: str, dropout: bool):
    module = sft(policy, adapter=LoRA(r=2, lora_dropout=0.5), dropout=dropout)
    with torch.no_grad():
        for value in adapter_state(module.model).values():
            value += 0.1
    module.set_modes()
    assert module.model.training is dropout
    draws = [module.score(batches()[0].trees).logps_N.detach() for _ in range(2)]
    assert not torch.equal(*draws)
    module.model.eval()
    assert torch.equal(*(module.score(batches()[0].trees).logps_N.detach() for _ in range(2)))


def test_scoring_all_pairs_leaves_the_modes_of_all_parts(policy: str, tmp_path: Path):
    module = DPOModule(policy, objective=DPO(0.3), adapter=LoRA(r=2, lora_dropout=0.5), scheduler=None)
    data = pairs(tmp_path)
    trainer_for(tmp_path, 1).fit(module, data)
    module.set_modes()
    modes = {name: part.training for name, part in module.model.named_modules()}
    assert set(modes.values()) == {True, False}
    first, second = (module.all_row_figures("train")["logps/chosen"] for _ in range(2))
    assert torch.equal(first, second)  # without dropout
    assert {name: part.training for name, part in module.model.named_modules()} == modes
