"""Logits equal those of each model's own forward, on top of the log-probs of test_tree_matches_plain.py."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from lit_pref.errors import UserError
from lit_pref.models.heads import lm_head

SIZE = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def random_model(model_type: str, settings: dict[str, object]) -> PreTrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **{**SIZE, **settings})).eval()
        for parameter in model.parameters():
            if parameter.dim() == 2 or parameter.shape == (61,):  # the head's bias too, which is drawn as zeros
                torch.nn.init.normal_(parameter, std=0.5)
    return model


CASES = {
    "nothing": ("llama", {}),
    "softcapping": ("gemma2", {"head_dim": 8, "final_logit_softcapping": 2.0}),
    "no softcapping": ("gemma2", {"head_dim": 8, "final_logit_softcapping": None}),
    "scale": ("cohere", {"logit_scale": 0.25}),
    "divisor": ("granite", {"logits_scaling": 4.0}),
    "multiplier of the same name": ("hyperclovax", {"logits_scaling": 4.0}),
    "bias": ("phi", {}),
    "bias beside rotary": ("gptj", {"rotary_dim": 4}),
    "another name": ("biogpt", {}),
    "a key that the forward ignores": ("mpt", {"n_layers": 2, "n_heads": 4, "d_model": 32, "logit_scale": 0.25}),
    "a head called head": ("rwkv", {"attention_hidden_size": 32}),
}


@pytest.mark.parametrize("case", CASES)
def test_logits_equal_the_models_own(case: str):
    model = random_model(*CASES[case])
    input_ids = torch.arange(3, 20)[None]
    with torch.no_grad():
        hidden_TD = model.base_model(input_ids=input_ids, use_cache=False).last_hidden_state[0]
        torch.testing.assert_close(lm_head(model)(hidden_TD), model(input_ids=input_ids, use_cache=False).logits[0])


def test_gemma_2_caps_by_tanh():
    # A cap of 2: a raw score z becomes 2 tanh(z / 2), so scores of any size stay between -2 and 2.
    model = random_model(*CASES["softcapping"])
    hidden_ND = 10 * torch.ones(3, 32)
    raw_NV = hidden_ND @ model.get_output_embeddings().weight.T
    assert raw_NV.abs().max() > 20
    torch.testing.assert_close(lm_head(model)(hidden_ND), 2 * torch.tanh(raw_NV / 2))


@pytest.mark.parametrize(
    ("model_type", "settings", "what"),
    [
        ("xlstm", {"num_heads": 4, "num_key_value_heads": None}, "output_logit_soft_cap"),
        ("modernbert-decoder", {}, "several parts"),
    ],
)
def test_unknown_ways_to_make_logits_are_refused_by_name(model_type: str, settings: dict[str, object], what: str):
    with pytest.raises(UserError, match=what):
        lm_head(random_model(model_type, settings))
