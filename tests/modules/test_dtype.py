"""An adapter over a base of half precision: what is rounded, what is not, and that runs hold together with it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import seed_everything
from torch import Tensor
from transformers import AutoModelForCausalLM

from lit_pref.cli.export import export
from lit_pref.data.batches.packing import collate_rows
from lit_pref.datamodules import PairsDataModule
from lit_pref.errors import UserError
from lit_pref.losses import DPO
from lit_pref.machine import processors
from lit_pref.models import LoRA, adapter_state, load_causal_lm, merged, weights_fingerprint
from lit_pref.modules import DPOModule, KTOModule, PMPretrainModule, RewardFinetuneModule, SFTModule
from lit_pref.types import TokenTree
from tests.tiny import rows_file, trainer_for

ADAPTER = LoRA(r=2, lora_alpha=4)
MODULES: dict[str, Callable[..., Any]] = {
    "sft": SFTModule,
    "dpo": lambda policy, **settings: DPOModule(policy, DPO(0.3), **settings),
    "kto": KTOModule,
    "reward": RewardFinetuneModule,
    "pmp": PMPretrainModule,
}


def made(kind: str, policy: str, **settings: Any) -> Any:
    optimizer = lambda params: torch.optim.AdamW(params, lr=0.02)  # noqa: E731
    defaults = {"adapter": ADAPTER, "dtype": "bfloat16", "optimizer": optimizer, "scheduler": None}
    seed_everything(3, verbose=False)
    return MODULES[kind](policy, **(defaults | settings))


def pairs(folder: Path) -> PairsDataModule:
    rows = [{"prompt": f"# {i}\n", "chosen": f"x = {i}", "rejected": "pass" + "!" * i} for i in range(6)]
    return PairsDataModule(rows_file(folder / "pairs.jsonl", rows), validation_size=0.0, batch_size=2)


def fitted(module: Any, folder: Path, epochs: int = 1, **settings: Any) -> Any:
    trainer = trainer_for(folder, max_epochs=epochs)
    trainer.fit(module, pairs(folder), **settings)
    return trainer


@pytest.mark.parametrize("kind", MODULES)
def test_the_base_is_rounded_and_what_is_trained_is_not(policy: str, kind: str):
    module = made(kind, policy)
    trained = {name: p.dtype for name, p in module.named_parameters() if p.requires_grad}
    frozen = {name: p.dtype for name, p in module.named_parameters() if not p.requires_grad}
    assert set(trained.values()) == {torch.float32} and set(frozen.values()) == {torch.bfloat16}
    assert any("lora_B" in name for name in trained)
    assert ("score_head.weight" in trained) == (kind in ("reward", "pmp"))
    # Frequencies of rope are no weights: rounded, a position of some hundreds would be off by more than a token.
    assert module.model.model.rotary_emb.inv_freq.dtype == torch.float32


@pytest.mark.parametrize("kind", ["sft", "dpo", "reward", "pmp"])
def test_it_trains_the_adapter_over_a_base_that_stays(policy: str, kind: str, tmp_path: Path):
    module = made(kind, policy)
    before = {name: value.clone() for name, value in module.model.state_dict().items()}
    fitted(module, tmp_path)
    ours = adapter_state(module.model)
    for name, value in module.model.state_dict().items():
        assert torch.equal(value, before[name]) is (name not in ours), name


@pytest.mark.parametrize("kind", MODULES)
def test_half_precision_is_refused_for_weights_that_are_trained(policy: str, kind: str):
    with pytest.raises(UserError, match=r"model\.dtype: float16 weights lose .*--trainer\.precision bf16-mixed"):
        made(kind, policy, adapter=None, dtype="float16")


def test_log_probs_are_fp32_and_those_of_the_rounded_model(policy: str):
    draws = torch.Generator().manual_seed(0)
    ids = torch.randint(2, 884, (3, 24), generator=draws).tolist()
    trees = [TokenTree(tuple(row[:8]), (tuple(row[8:16]), tuple(row[16:]))) for row in ids]
    batch = collate_rows("pair", [trees], range(len(trees)), pad_id=1)
    rounded, whole = load_causal_lm(policy, dtype="bfloat16"), load_causal_lm(policy)
    logps_K = made("sft", policy).score_completions(batch).logps_K.detach()
    assert logps_K.dtype == torch.float32
    expected_K, fp32_K = (
        torch.stack([plain_logp(model, tree.prompt_ids, ids) for tree in trees for ids in tree.completion_ids])
        for model in (rounded, whole)
    )
    # Tokens of other rows change the order of sums, and bf16 rounds to 8 bits: 2^-8 of logits up to 8 is 0.03 a token.
    assert (logps_K - expected_K).abs().max() < 8 * 0.03
    assert (logps_K - expected_K).abs().mean() < (logps_K - fp32_K).abs().mean()


def plain_logp(model: Any, prompt: tuple[int, ...], completion: tuple[int, ...]) -> Tensor:
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *completion]])).logits[0].float()
    logps = logits.log_softmax(-1)[len(prompt) - 1 : -1]
    return logps.gather(-1, torch.tensor(completion)[:, None]).sum()


def test_the_policy_starts_as_its_reference_and_its_cache_is_found_again(policy: str, tmp_path: Path):
    cache = tmp_path / "reference"
    first = made("dpo", policy, cache_folder=cache)
    fitted(first, tmp_path)
    kept = {path: path.stat().st_mtime_ns for path in cache.rglob("*.npy")}
    fitted(made("dpo", policy, cache_folder=cache), tmp_path)
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*.npy")} == kept
    fitted(made("dpo", policy, dtype="float32", cache_folder=cache), tmp_path)  # other log-probs, so a file of its own
    assert len(list(cache.rglob("*.npy"))) == 2 * len(kept)


@pytest.mark.parametrize(("dtype", "rounding", "other"), [("float32", 5e-4, 2e-3), ("bfloat16", 0.3, 0.6)])
def test_a_start_is_its_reference_but_for_rounding(
    policy: str, tmp_path: Path, dtype: str, rounding: float, other: float
):
    """Responses of one token and of four; logits of 32 to 64 are rounded to a quarter in bf16, which averages out."""
    module = made("dpo", policy, dtype=dtype)
    module.trainer = trainer_for(tmp_path)
    reference_K, length_K = torch.tensor([-1.0, -8.0]), torch.tensor([1, 4])
    spread_K = length_K if dtype == "float32" else length_K.sqrt()
    module.reference._check(reference_K + rounding * spread_K, reference_K, length_K)
    with pytest.raises(RuntimeError, match="nats a token away from its cached reference"):
        module.reference._check(reference_K + other * spread_K, reference_K, length_K)


def test_a_long_response_over_a_rounded_base_is_held_to_the_bound_of_half_precision(policy: str, tmp_path: Path):
    module = made("dpo", policy, dtype="bfloat16")
    module.trainer = trainer_for(tmp_path)
    reference_K, length_K = torch.tensor([-200.0]), torch.tensor([400])
    module.reference._check(reference_K + 0.04 * length_K, reference_K, length_K)
    with pytest.raises(RuntimeError, match=r"0\.06 nats a token away"):
        module.reference._check(reference_K + 0.06 * length_K, reference_K, length_K)


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(policy: str, tmp_path: Path):
    whole, half, resumed = (made("dpo", policy) for _ in range(3))
    fitted(whole, tmp_path, epochs=2)
    fitted(half, tmp_path).save_checkpoint(tmp_path / "x.ckpt")
    fitted(resumed, tmp_path, epochs=2, ckpt_path=tmp_path / "x.ckpt")
    expected, got = adapter_state(whole.model), adapter_state(resumed.model)
    assert all(torch.equal(got[name], value) for name, value in expected.items())
    line = r"model\.dtype: the checkpoint was trained with bfloat16, this run has float32: give the same"
    with pytest.raises(UserError, match=line):
        fitted(made("dpo", policy, dtype="float32"), tmp_path, epochs=2, ckpt_path=tmp_path / "x.ckpt")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_export_adds_the_adapter_to_the_base_before_it_is_rounded(policy: str, tmp_path: Path, dtype: str):
    module = made("dpo", policy)
    fitted(module, tmp_path).save_checkpoint(tmp_path / "x.ckpt")
    export(tmp_path / "x.ckpt", tmp_path / "exported", dtype=dtype)
    opened = AutoModelForCausalLM.from_pretrained(tmp_path / "exported", dtype="auto")
    assert opened.dtype == getattr(torch, dtype)
    place = "model.layers.0.mlp.down_proj"
    layer = module.model.get_submodule(place)
    added = layer.scaling["default"] * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    expected = (layer.base_layer.weight.float() + added).to(getattr(torch, dtype))
    torch.testing.assert_close(opened.get_submodule(place).weight, expected)


def test_a_merged_copy_over_a_rounded_base_is_fp32(policy: str):
    module = made("sft", policy)
    assert {p.dtype for p in merged(module.model).parameters()} == {torch.float32}
    assert weights_fingerprint(load_causal_lm(policy, dtype="bfloat16")) == module.base_fingerprint


@pytest.mark.parametrize(
    ("settings", "precision", "asked"),
    [
        ({}, "32-true", "--model.dtype bfloat16"),
        ({"dtype": "float32"}, "bf16-mixed", "--trainer.precision bf16-mixed"),
        ({"dtype": "float32"}, "32-true", None),
    ],
)
def test_a_processor_without_bf16_is_told_of_once(
    policy: str, tmp_path: Path, monkeypatch: Any, capsys: Any, settings: Any, precision: str, asked: str | None
):
    processors.tell_slow_bf16.cache_clear()
    monkeypatch.setattr(processors, "multiplies_bf16", lambda: False)
    for _ in range(2):
        trainer_for(tmp_path, precision=precision, max_steps=1).fit(made("sft", policy, **settings), pairs(tmp_path))
    told = [line for line in capsys.readouterr().err.splitlines() if "bf16 instructions" in line]
    assert [line.partition(":")[0] for line in told] == ([] if asked is None else [asked])
    processors.tell_slow_bf16.cache_clear()


@pytest.mark.filterwarnings("ignore:.*bf16-true.*")
def test_a_run_in_true_half_precision_rounds_weights_and_no_positions(policy: str, tmp_path: Path, capsys: Any):
    module = made("dpo", policy, adapter=None, dtype="float32")
    exact = module.model.model.rotary_emb.inv_freq.clone()
    trainer_for(tmp_path, precision="bf16-true", max_steps=1).fit(module, pairs(tmp_path))
    assert (
        "trained weights of half precision lose small updates; bf16-mixed keeps them in fp32" in capsys.readouterr().out
    )
    assert module.model.dtype == torch.bfloat16
    found = module.model.model.rotary_emb.inv_freq
    assert found.dtype == torch.float32 and torch.equal(found, exact)
    assert {name for name in module.state_dict() if "inv_freq" in name} == set()
