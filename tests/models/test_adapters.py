"""LoRA put into tiny random models, against the matrices written out by hand, merged weights and peft's own folder."""

import copy
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

from lit_pref.data.tokens.tokenize import tokenize_prompt
from lit_pref.errors import UserError
from lit_pref.generation import LocalGenerator
from lit_pref.models import (
    LoRA,
    adapter_off,
    adapter_state,
    adds_nothing,
    attach,
    base_fingerprint,
    computed_fingerprint,
    export_model,
    load_adapter,
    load_causal_lm,
    load_tokenizer,
    merged,
    weights_fingerprint,
)
from lit_pref.types import Sampling

IDS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])


def llama(tied: bool = False) -> PreTrainedModel:
    config = LlamaConfig(
        vocab_size=20,
        hidden_size=8,
        intermediate_size=12,
        num_hidden_layers=2,
        num_attention_heads=2,
        initializer_range=0.3,
        tie_word_embeddings=tied,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LlamaForCausalLM(config).eval()


def gpt2() -> PreTrainedModel:
    """Its layers keep their weights transposed, and its LM head is its embedding."""
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    config = GPT2Config(vocab_size=20, n_embd=8, n_layer=2, n_head=2, n_positions=16, initializer_range=0.3, **ends)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return GPT2LMHeadModel(config).eval()


MODELS = pytest.mark.parametrize("make", [llama, lambda: llama(tied=True), gpt2], ids=["llama", "tied", "gpt2"])


def trained(model: PreTrainedModel, lora: LoRA = LoRA(r=2, lora_alpha=6)) -> PreTrainedModel:  # noqa: B008 - frozen
    """The model with an adapter that is no longer at its start."""
    attach(model, lora)
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in adapter_state(model).values():
            value += 0.2 * torch.randn(value.shape, generator=noise)
    return model


def logits(model: PreTrainedModel) -> Tensor:
    with torch.no_grad():
        out: Tensor = model(input_ids=IDS).logits
    return out


# --- attaching --------------------------------------------------------------------------------------------------------


@MODELS
def test_the_start_is_the_base_and_what_tools_look_at_stays(make: Any):
    model, bare = make(), make()
    backbone, mode = model.base_model, model.training
    attach(model, LoRA())
    assert torch.equal(logits(model), logits(bare))
    assert type(model) is type(bare) and model.base_model is backbone
    assert model.config.to_dict() == bare.config.to_dict()
    assert {part.training for part in model.modules()} == {mode}


def test_only_the_adapter_trains_in_all_linear_layers_but_the_head():
    model = llama()
    attach(model, LoRA(r=2))
    names = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert names == adapter_state(model).keys()
    layers = {name.rsplit(".lora_")[0].split(".")[-1] for name in names}
    assert layers == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    # 2 layers, each with 4 attention matrices [8, 8] and 3 of the MLP [8, 12], at rank 2
    assert sum(value.numel() for value in adapter_state(model).values()) == 2 * 2 * (4 * (8 + 8) + 3 * (8 + 12))


@pytest.mark.parametrize("rslora", [False, True])
def test_it_adds_alpha_over_r_times_b_a(rslora: bool):
    model = trained(llama(), LoRA(r=4, lora_alpha=6, target_modules=["o_proj"], use_rslora=rslora))
    by_hand, weights = llama(), adapter_state(model)
    scale = 6 / math.sqrt(4) if rslora else 6 / 4
    for i in range(2):
        place = f"model.layers.{i}.self_attn.o_proj"
        added = weights[f"{place}.lora_B.default.weight"] @ weights[f"{place}.lora_A.default.weight"]
        with torch.no_grad():
            by_hand.get_parameter(f"{place}.weight").add_(scale * added)
    torch.testing.assert_close(logits(model), logits(by_hand), rtol=0, atol=1e-5)
    assert (logits(model) - logits(llama())).abs().max() > 0.1


def test_draws_follow_the_seed_and_leave_the_random_state_alone():
    def drawn(seed: int) -> Tensor:
        model = llama()
        attach(model, LoRA(r=2), seed=seed)
        return torch.cat([value.flatten() for value in adapter_state(model).values()])

    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first = drawn(1)
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(first, drawn(1)) and not torch.equal(first, drawn(2))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"r": 0}, "r must be >= 1, got 0"),
        ({"lora_alpha": 0.0}, r"lora_alpha must be > 0, got 0\.0"),
        ({"lora_dropout": 1.0}, r"lora_dropout must be in \[0, 1\), got 1\.0"),
        ({"target_modules": []}, r"target_modules must name a layer, got \[\]"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        LoRA(**settings)


def test_a_misspelt_layer_is_named_with_those_there_are():
    # peft itself would adapt v_proj and pass over the other.
    with pytest.raises(UserError, match=r"LlamaForCausalLM is called 'q_prj'; its linear layers are down_proj, .* q_p"):
        attach(llama(), LoRA(target_modules=["v_proj", "q_prj"]))


def test_layers_that_cannot_be_adapted_are_refused():
    with pytest.raises(UserError, match="'lm_head' shares its weight with another layer"):
        attach(llama(tied=True), LoRA(target_modules=["lm_head"]))
    with pytest.raises(UserError, match="adapter: Target module LlamaMLP"):
        attach(llama(), LoRA(target_modules=["mlp"]))
    model = llama()
    attach(model, LoRA())
    with pytest.raises(ValueError, match="has an adapter already"):
        attach(model, LoRA())


def test_a_head_of_its_own_can_be_adapted():
    model = trained(llama(), LoRA(r=2, target_modules=["lm_head"]))
    assert not torch.equal(logits(model), logits(llama()))
    torch.testing.assert_close(logits(merged(model)), logits(model), rtol=0, atol=1e-5)


def test_without_peft_the_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UserError, match=r"pip install 'lit-pref\[lora\]'"):
        attach(llama(), LoRA())
    # and nothing else asks for it
    assert base_fingerprint(llama()) == weights_fingerprint(llama())
    with adapter_off(llama()):
        pass


# --- off, and what belongs to whom ------------------------------------------------------------------------------------


@MODELS
def test_off_is_the_base_to_the_bit(make: Any):
    model, base = trained(make()), logits(make())
    on = logits(model)
    with adapter_off(model):
        assert torch.equal(logits(model), base)
    assert torch.equal(logits(model), on) and not torch.equal(on, base)


def test_off_ends_with_an_error_and_leaves_what_trains_as_it_was():
    model = trained(llama())
    frozen = next(iter(adapter_state(model)))
    model.get_parameter(frozen).requires_grad_(False)
    before, on = {name: p.requires_grad for name, p in model.named_parameters()}, logits(model)
    with pytest.raises(RuntimeError, match="in between"), adapter_off(model):
        raise RuntimeError("in between")
    assert torch.equal(logits(model), on)
    assert {name: p.requires_grad for name, p in model.named_parameters()} == before


@MODELS
def test_the_base_keeps_its_fingerprint(make: Any):
    model = trained(make())
    assert base_fingerprint(model) == weights_fingerprint(make()) == base_fingerprint(make())
    assert weights_fingerprint(model) != weights_fingerprint(make())
    with torch.no_grad():
        next(model.base_model.parameters()).add_(1e-3)
    assert base_fingerprint(model) != weights_fingerprint(make())


def test_an_adapter_counts_once_it_adds_something():
    fresh, other = llama(), llama()
    attach(fresh, LoRA(r=2), seed=1)
    attach(other, LoRA(r=2), seed=2)
    assert adds_nothing(llama()) and adds_nothing(fresh)
    assert computed_fingerprint(fresh) == computed_fingerprint(other) == weights_fingerprint(llama())
    assert not adds_nothing(trained(llama())) and computed_fingerprint(trained(llama())) != weights_fingerprint(llama())


def test_weights_of_another_adapter_are_not_loaded():
    model, other = trained(llama()), llama()
    attach(other, LoRA(r=3))
    before = logits(model)
    name = r"'model\.layers\.0\.mlp\.down_proj\.lora_A\.default\.weight' should be \[2, 12\], is "
    with pytest.raises(UserError, match=rf"{name}\[3, 12\]"):
        load_adapter(model, adapter_state(other))
    with pytest.raises(UserError, match=rf"{name}absent"):
        load_adapter(model, {})
    with pytest.raises(UserError, match=r"'extra' should be absent, is \[1\]"):
        load_adapter(model, adapter_state(model) | {"extra": torch.zeros(1)})
    assert torch.equal(logits(model), before)
    same = llama()
    attach(same, LoRA(r=2, lora_alpha=6))
    load_adapter(same, adapter_state(model))
    assert torch.equal(logits(same), before)


# --- export -----------------------------------------------------------------------------------------------------------


@MODELS
def test_merged_computes_the_same_and_leaves_the_model_alone(make: Any):
    model = trained(make())
    on, whole = logits(model), merged(model)
    torch.testing.assert_close(logits(whole), on, rtol=0, atol=1e-5)
    assert whole.state_dict().keys() == make().state_dict().keys()
    assert all(parameter.requires_grad for parameter in whole.parameters())
    assert torch.equal(logits(model), on) and base_fingerprint(model) == weights_fingerprint(make())


@pytest.mark.parametrize("adapter_only", [False, True])
@MODELS
def test_exported_folders_open_with_the_same_logits(make: Any, adapter_only: bool, tmp_path: Path):
    model = trained(make())
    folder = export_model(model, load_tokenizer("embedded:coder"), tmp_path / "model", adapter_only)
    if adapter_only:
        assert not (folder / "model.safetensors").exists()
        opened = PeftModel.from_pretrained(make(), folder).eval()
    else:
        opened = AutoModelForCausalLM.from_pretrained(folder)
        assert not list(folder.glob("adapter*"))
    torch.testing.assert_close(logits(opened), logits(model), rtol=0, atol=1e-5)
    assert (folder / "tokenizer.json").is_file()


def test_adapter_only_needs_an_adapter(tmp_path: Path):
    with pytest.raises(UserError, match="LlamaForCausalLM has no adapter"):
        export_model(llama(), load_tokenizer("embedded:coder"), tmp_path / "model", adapter_only=True)
    assert not list(tmp_path.iterdir())


# --- sampling ---------------------------------------------------------------------------------------------------------


def test_samples_are_those_of_merged_weights():
    model, tokenizer = trained(load_causal_lm("embedded:coder"), LoRA(r=2)), load_tokenizer("embedded:coder")
    prompts, sampling = ["def f(x):\n    return", "x = "], Sampling(temperature=1.0, max_new_tokens=12)
    adapted, whole, base = (
        LocalGenerator(which, tokenizer, tokenize_prompt).generate(prompts, 4, sampling, seed=0)
        for which in (model, merged(model), load_causal_lm("embedded:coder"))
    )
    assert [[x.text for x in row] for row in adapted] == [[x.text for x in row] for row in whole]
    assert adapted != base


def test_a_copy_has_weights_of_its_own():
    model = trained(llama())
    before, other = logits(model), copy.deepcopy(model)
    with torch.no_grad():
        for value in adapter_state(other).values():
            value.zero_()
    assert torch.equal(logits(model), before)
    assert torch.equal(logits(other), logits(llama()))
