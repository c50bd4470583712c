"""What a module says of a model when it opens it: the layout that is exact, or a refusal by name."""

from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from lit_pref.errors import UserError
from lit_pref.losses import DPO
from lit_pref.models import load_tokenizer
from lit_pref.modules import Compute, DPOModule

SIZE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}


def saved(folder: Path, model_type: str = "llama", **settings: object) -> str:
    """A tiny random model with the embedded tokenizer, in a folder."""
    tokenizer = load_tokenizer("embedded:coder")
    config = AutoConfig.for_model(model_type, **{"vocab_size": len(tokenizer), **SIZE, **settings})
    with torch.random.fork_rng():
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_a_rope_that_follows_the_length_repeats_prompts(tmp_path: Path):
    policy = saved(tmp_path, rope_parameters=DYNAMIC, max_position_embeddings=16)
    assert DPOModule(policy, DPO()).row_layout == "repeated"
    with pytest.raises(UserError, match=r"compute.layout: LlamaForCausalLM has a rope whose frequencies follow"):
        DPOModule(policy, DPO(), compute=Compute(layout="packed"))


def test_a_model_that_sees_later_tokens_does_not_train(tmp_path: Path):
    with pytest.raises(UserError, match="BertLMHeadModel sees later tokens"):
        DPOModule(saved(tmp_path, "bert", is_decoder=False), DPO())


def test_a_tokenizer_beyond_the_embedding_does_not_train(tmp_path: Path):
    with pytest.raises(UserError, match="the tokenizer has 884 tokens and LlamaForCausalLM embeddings for 800"):
        DPOModule(saved(tmp_path, vocab_size=800), DPO())
