"""Ropes that follow a sequence's length: exact for each sequence, whatever else is in its batch or came before it."""

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from lit_pref.data.batches.packing import collate_trees
from lit_pref.errors import UserError
from lit_pref.models import apart_obstacle, hidden_states_at, lm_head, predictor_hidden_states, sharing_obstacle
from lit_pref.models.rope import rope_regime
from lit_pref.types import TokenTree, TreeBatch

LIMIT = 16
SIZE = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "eos_token_id": 2,
}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0, 1.1, 1.2, 1.3],
    "long_factor": [4.0, 8.0, 16.0, 32.0],
    "original_max_position_embeddings": LIMIT,
}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}
LONG = {"max_position_embeddings": 64, "original_max_position_embeddings": LIMIT, "sliding_window": None}
MODELS = {
    "phi3": ("phi3", {"rope_parameters": LONGROPE, **LONG}),
    "llama": ("llama", {"rope_parameters": DYNAMIC, "max_position_embeddings": LIMIT}),
}
# Sequences of 5, 30, 16 (the limit), 17 and 40 tokens.
TREES = [
    TokenTree((3, 4, 5), ((21, 22), tuple(range(30, 57)))),
    TokenTree(tuple(range(5, 20)), ((41,), (42, 43), tuple(range(20, 45)))),
]


def fresh(name: str) -> PreTrainedModel:
    model_type, settings = MODELS[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **SIZE, **settings)).eval()


def logps_of(model: PreTrainedModel, batch: TreeBatch) -> Tensor:
    logps_NV = lm_head(model)(predictor_hidden_states(model, batch)).log_softmax(-1)
    return logps_NV.gather(-1, batch.target_N[:, None]).squeeze(-1)


def alone(name: str) -> list[Tensor]:
    """Log-probs of each completion from a model that has seen nothing else."""
    found = []
    for tree in TREES:
        for ids in tree.completion_ids:
            logits_TV = fresh(name)(input_ids=torch.tensor([[*tree.prompt_ids, *ids]])).logits[0]
            logps_TV = logits_TV[len(tree.prompt_ids) - 1 : -1].log_softmax(-1)
            found.append(logps_TV.gather(-1, torch.tensor(ids)[:, None]).squeeze(-1))
    return found


@pytest.mark.parametrize("name", MODELS)
def test_log_probs_and_rewards_are_those_of_each_sequence_alone(name: str):
    model, batch = fresh(name), collate_trees([TREES], pad_id=0, shared=False)
    expected_N = torch.cat(alone(name))
    for _ in range(2):  # dynamic NTK keeps the frequencies of the longest sequence that it has seen
        torch.testing.assert_close(logps_of(model, batch), expected_N, rtol=0, atol=1e-5)
    last_KD = hidden_states_at(model, batch, batch.last_K)
    one_by_one = [TokenTree(tree.prompt_ids, (ids,)) for tree in TREES for ids in tree.completion_ids]
    for hidden_D, tree in zip(last_KD, one_by_one, strict=True):
        ids = torch.tensor([[*tree.prompt_ids, *tree.completion_ids[0]]])
        plain_D = fresh(name).base_model(input_ids=ids).last_hidden_state[0, -1]
        torch.testing.assert_close(hidden_D, plain_D, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_gradients_are_those_of_each_sequence_alone(name: str):
    model, batch = fresh(name), collate_trees([TREES], pad_id=0, shared=False)
    logps_of(model, batch).mean().backward()
    other = fresh(name)
    total, tokens = torch.zeros(()), int(batch.length_K.sum())
    for tree in TREES:
        for ids in tree.completion_ids:
            own = collate_trees([[TokenTree(tree.prompt_ids, (ids,))]], pad_id=0)
            total = total + logps_of(other, own).sum() / tokens
    total.backward()
    ours, theirs = (each.get_input_embeddings().weight.grad for each in (model, other))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_beside_a_long_sequence_a_short_one_would_be_off(name: str):
    # The negative control: what transformers gives for the padded batch.
    batch = collate_trees([TREES], pad_id=0, shared=False)
    hidden_BTD = fresh(name).base_model(input_ids=batch.input_ids_BT, use_cache=False).last_hidden_state
    logps_NV = lm_head(fresh(name))(hidden_BTD.flatten(0, 1)[batch.predictor_N]).log_softmax(-1)
    logps_N = logps_NV.gather(-1, batch.target_N[:, None]).squeeze(-1)
    assert (logps_N - torch.cat(alone(name))).abs().max() > 0.1


@pytest.mark.parametrize("name", MODELS)
def test_such_completions_share_no_prompt(name: str):
    model = fresh(name)
    reason = rf"{type(model).__name__} has a rope whose frequencies follow the length \(\w+, beyond 16 tokens\)"
    assert sharing_obstacle(model) == apart_obstacle(model)
    with pytest.raises(UserError, match=reason):
        predictor_hidden_states(model, collate_trees([[tree] for tree in TREES], pad_id=0))


def test_which_lengths_may_run_together():
    assert [rope_regime(fresh("phi3"), length) for length in (1, 16, 17, 40)] == [(0,), (0,), (1,), (1,)]
    assert [rope_regime(fresh("llama"), length) for length in (1, 16, 17, 40)] == [(0,), (0,), (17,), (40,)]
