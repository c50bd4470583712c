"""Each architecture is sampled in the fastest way that is exact for it, or refused by name."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from lit_pref.errors import UserError
from lit_pref.generation import LocalGenerator, decoding
from lit_pref.generation.decoding import decoding as way_of
from lit_pref.types import Sampling

SIZE = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
    "init_std": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
BART = {"d_model": 32, "decoder_layers": 2, "decoder_attention_heads": 4, "decoder_ffn_dim": 48, "hidden_size": None}
GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4}
CHUNKS = {"layer_types": ["chunked_attention", "full_attention"], "attention_chunk_size": 4}
LLAMA4 = {"intermediate_size_mlp": 48, "num_local_experts": 2, "head_dim": 8, "floor_scale": 4, "attn_scale": 0.5}
ROPE = {
    "longrope": {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "short_factor": [1.0, 1.1, 1.2, 1.3],
        "long_factor": [4.0, 8.0, 16.0, 32.0],
        "original_max_position_embeddings": 8,
    },
    "dynamic": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0},
}
# Its rows, and whether prompts of unlike length are decoded side by side.
WAYS = {
    "llama": ({}, "SlotRows", True),
    "bart": (BART, "CachedRows", False),  # counts positions from the left end of a row
    "roberta": ({"is_decoder": True}, "UnplacedRows", False),  # its positions start at 2
    "lfm2": ({"layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False}, "RecomputedRows", False),
    "openai-gpt": (GPT, "RecomputedRows", False),  # has no cache
    "llama4_text": (LLAMA4 | CHUNKS, "CachedRows", False),  # chunks and temperatures by column
    "phi3": (
        {"rope_parameters": ROPE["longrope"], "original_max_position_embeddings": 8, "sliding_window": None},
        "SlotRows",
        True,
    ),
    "qwen2": ({"rope_parameters": ROPE["dynamic"], "max_position_embeddings": 8}, "SlotRows", True),
}
PROMPTS = ["5 6 7 8 9 10", "20", "40 41 42", "3 4 5 6 7 8 9 10 11 12"]


class Ids:
    """A tokenizer of numbers."""

    eos_token_id, pad_token_id = 2, 0

    def __len__(self) -> int:
        return 61

    def batch_decode(self, rows: list[list[int]], **_: object) -> list[str]:
        return [" ".join(map(str, ids)) for ids in rows]


def encode(prompt: str, tokenizer: Ids) -> tuple[int, ...]:
    return tuple(map(int, prompt.split()))


def tiny(model_type: str, settings: dict[str, object]) -> PreTrainedModel:
    wanted = {key: value for key, value in (SIZE | settings).items() if value is not None or key == "sliding_window"}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **wanted)).eval()


@pytest.mark.parametrize("model_type", WAYS)
def test_kept_log_probs_are_those_of_each_prompt_alone(model_type: str):
    settings, rows, padded = WAYS[model_type]
    model = tiny(model_type, settings)
    way = way_of(model)
    assert (way.rows.__name__, way.padded) == (rows, padded)
    for sampling in (Sampling(0.0, max_new_tokens=4), Sampling(max_new_tokens=4)):
        found = LocalGenerator(model, Ids(), encode).generate(PROMPTS, 1, sampling, seed=0)
        for prompt, (completion,) in zip(PROMPTS, found, strict=True):
            logps_TV = plain_logps(model_type, model, encode(prompt, Ids()), completion.token_ids)
            for token, logp, logps_V in zip(completion.token_ids, completion.logps, logps_TV, strict=True):
                assert abs(logps_V[token] - logp) < 1e-5
                assert sampling.temperature or logps_V[token] > logps_V.max() - 1e-5


@torch.no_grad()
def plain_logps(model_type: str, model: PreTrainedModel, prompt: tuple[int, ...], ids: tuple[int, ...]) -> torch.Tensor:
    """Of all tokens at each step. A rope that follows the length tells a prefix otherwise than a longer sequence."""
    whole = [*prompt, *ids]
    if "rope_parameters" not in WAYS[model_type][0]:
        return model(input_ids=torch.tensor([whole[:-1]])).logits[0, len(prompt) - 1 :].log_softmax(-1)
    steps = []
    for end in range(len(prompt), len(whole)):
        fresh = tiny(model_type, WAYS[model_type][0])  # has seen no longer sequence
        steps.append(fresh(input_ids=torch.tensor([whole[:end]])).logits[0, -1].log_softmax(-1))
    return torch.stack(steps)


def test_a_model_that_sees_later_tokens_is_refused_by_name():
    model = tiny("bert", {"is_decoder": False})
    with pytest.raises(UserError, match=r"BertLMHeadModel sees later tokens.*cannot be sampled"):
        LocalGenerator(model, Ids(), encode).generate(["5 6"], 1, Sampling(), seed=0)


def test_a_model_that_crashes_is_refused_with_its_reason():
    model = tiny("llama", {})
    model.model.layers[0].register_forward_hook(lambda *_: 1 / 0)
    decoding._known.clear()
    with pytest.raises(UserError, match=r"LlamaForCausalLM does not run on token ids alone \(ZeroDivisionError"):
        LocalGenerator(model, Ids(), encode).generate(["5 6"], 1, Sampling(), seed=0)
    decoding._known.clear()


def test_prompts_of_unlike_length_go_together_where_no_rope_changes_on_the_way():
    model = tiny("phi3", WAYS["phi3"][0])
    together = way_of(model).groups(model, {0: 3, 1: 5, 2: 2}, new=3)  # 5 + 3 tokens are within the limit of 8
    assert [(group.rows.__name__, group.prompts) for group in together] == [("SlotRows", [2, 0, 1])]
    apart = way_of(model).groups(model, {0: 3, 1: 5, 2: 2, 3: 5}, new=4)
    assert [(group.rows.__name__, group.prompts) for group in apart] == [("SlotRows", [2, 0]), ("CachedRows", [1, 3])]
    bart = tiny("bart", BART)
    assert [group.prompts for group in way_of(bart).groups(bart, {0: 3, 1: 5, 2: 3}, new=1)] == [[0, 2], [1]]
