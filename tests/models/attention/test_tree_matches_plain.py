"""Log-probs and gradients of every layout equal a plain transformers forward pass, one prompt and completion at a time.

Weights are drawn wide (initializer_range 0.3), since near-flat predictions would hide a wrong mask; the negative
control shows by how much a wrong mask is off.
"""

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from lit_pref.data.batches.packing import collate_trees
from lit_pref.errors import UserError
from lit_pref.models.attention import last_layer
from lit_pref.models.attention.last_layer import predictor_hidden_states
from lit_pref.models.attention.tree_attention import sharing_obstacle, tree_hidden_states
from lit_pref.models.heads import lm_head
from lit_pref.types import TokenTree, TreeBatch, TreeSpan

SIZE = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
    "attention_dropout": 0.0,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
MIXED = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 4}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
NO_DROPOUT = {"attn_pdrop": 0.0, "resid_pdrop": 0.0, "embd_pdrop": 0.0}
# Windows of 4 are shorter than every sequence below.
MATRIX = {
    "llama": ("llama", {}),
    "qwen2": ("qwen2", {}),
    "qwen2-mixed-windows": ("qwen2", {"use_sliding_window": True, **MIXED}),
    "qwen3": ("qwen3", {}),
    "qwen3-mixed-windows": ("qwen3", {"use_sliding_window": True, **MIXED}),
    "mistral": ("mistral", {"sliding_window": None}),
    "mistral-window": ("mistral", {"sliding_window": 4}),
    "gemma2": ("gemma2", {**MIXED, "query_pre_attn_scalar": 8, "final_logit_softcapping": 3.0}),
    "gemma3": ("gemma3_text", {**MIXED, "query_pre_attn_scalar": 8}),
    "phi3": ("phi3", {"sliding_window": None}),
    "phi3-window": ("phi3", {"sliding_window": 4}),
    "olmo2": ("olmo2", {}),
    "gpt_neox": ("gpt_neox", {}),
    "gpt2": ("gpt2", NO_DROPOUT),
    "gptj": ("gptj", {**NO_DROPOUT, "rotary_dim": 4}),
    "starcoder2": ("starcoder2", {"sliding_window": None, "residual_dropout": 0.0, "embedding_dropout": 0.0}),
    "starcoder2-window": ("starcoder2", {"sliding_window": 4, "residual_dropout": 0.0, "embedding_dropout": 0.0}),
    "qwen3_moe": ("qwen3_moe", EXPERTS),
    "qwen3_moe-window": ("qwen3_moe", {**EXPERTS, "use_sliding_window": True, "sliding_window": 4}),
    "granite": ("granite", {"logits_scaling": 4.0, "attention_multiplier": 0.35}),
    "cohere": ("cohere", {"logit_scale": 0.25}),
    "phi": ("phi", {"resid_pdrop": 0.0, "embd_pdrop": 0.0}),
}
TREES = [
    TokenTree(tuple(range(3, 12)), ((21, 22, 23), (31, 32, 33, 34, 35))),
    TokenTree((8, 9, 10, 11, 12, 13), ((41,), (42, 43, 44, 45, 46, 47), (41, 42))),
    TokenTree((50,), ((51, 52, 53, 54, 55, 56), (57,))),
]
LAYOUTS = {
    "shared": collate_trees([[tree] for tree in TREES], pad_id=0),
    "packed": collate_trees([TREES[:2], TREES[2:]], pad_id=0),
    "repeated": collate_trees([TREES], pad_id=0, shared=False),
}


def random_model(model_type: str, settings: dict[str, object]) -> PreTrainedModel:
    wanted = {key: value for key, value in {**SIZE, **settings}.items() if value is not None or key == "sliding_window"}
    config = AutoConfig.for_model(model_type, **wanted)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).eval()
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):  # drawn as zeros, which would hide a head that forgets its bias
                torch.nn.init.normal_(parameter, std=0.3)
    return model


def tree_logps(model: PreTrainedModel, batch: TreeBatch) -> Tensor:
    """[N] log-probs of the completion tokens."""
    logits_NV = lm_head(model)(predictor_hidden_states(model, batch))
    return logits_NV.log_softmax(-1).gather(-1, batch.target_N[:, None]).squeeze(-1)


def plain_logps(model: PreTrainedModel, trees: list[TokenTree]) -> Tensor:
    """The same from the model as it comes, one prompt and one completion at a time."""
    pieces = []
    for tree in trees:
        for ids in tree.completion_ids:
            logits_TV = model(input_ids=torch.tensor([[*tree.prompt_ids, *ids]]), use_cache=False).logits[0]
            logps_TV = logits_TV[len(tree.prompt_ids) - 1 : -1].log_softmax(-1)
            pieces.append(logps_TV.gather(-1, torch.tensor(ids)[:, None]).squeeze(-1))
    return torch.cat(pieces)


def embedding_gradient(model: PreTrainedModel, logps_N: Tensor) -> Tensor:
    # Weighted unevenly, so that swapped completions could not cancel; about 1 in sum.
    weights_N = torch.linspace(0.5, 1.5, len(logps_N)) / len(logps_N)
    return torch.autograd.grad((weights_N * logps_N).sum(), model.get_input_embeddings().weight)[0]


@pytest.mark.parametrize("name", MATRIX)
def test_every_layout_equals_a_plain_forward_pass(name: str):
    model = random_model(*MATRIX[name])
    assert sharing_obstacle(model) is None
    plain_N = plain_logps(model, TREES)
    gradient = embedding_gradient(model, plain_N)
    for layout, batch in LAYOUTS.items():
        logps_N = tree_logps(model, batch)
        for ours, theirs in ((logps_N, plain_N), (embedding_gradient(model, logps_N), gradient)):
            off = (ours - theirs).abs().max().item()
            assert off <= 1e-5, f"{layout}: off by {off}"


@pytest.mark.parametrize("name", MATRIX)
def test_a_mask_without_branches_or_trees_is_seen(name: str):
    # The negative control: completions that see their siblings, or trees that see their neighbours, are far off.
    model = random_model(*MATRIX[name])
    with torch.no_grad():
        plain_N = plain_logps(model, TREES)
        shared, packed = LAYOUTS["shared"], LAYOUTS["packed"]
        # Wrong in both descriptions of the layout: what dense masks are made from, and what tree-by-tree kernels read.
        merged = tuple(span._replace(branches=(sum(span.branches),)) for span in shared.spans)
        no_branches = shared._replace(branch_BT=shared.branch_BT.clamp(max=0), spans=merged)
        first, second, third = packed.spans
        joined = TreeSpan(0, 0, first.prompt + sum(first.branches), (second.prompt + sum(second.branches),))
        no_trees = packed._replace(tree_BT=packed.tree_BT.clamp(max=0), spans=(joined, third))
        for wrong in (no_branches, no_trees):
            assert (tree_logps(model, wrong) - plain_N).abs().max() > 1e-2


# What leaves the last layer whole: GPT-J does not take its attention from transformers' interface, Gemma 2 asks for
# capped scores.
WHOLE = {"gemma2", "gptj"}


@pytest.mark.parametrize("name", MATRIX)
def test_some_tokens_are_as_among_all(name: str, monkeypatch: pytest.MonkeyPatch):
    in_two = []
    monkeypatch.setattr(last_layer, "attention_is_over", lambda: in_two.append(True))
    model = random_model(*MATRIX[name])
    # Out of order and some twice, one of them in the padding behind the second row's tree.
    token_n = torch.tensor([0, 30, 16, 21, 5, 21, 31, 35, 40, 2 * LAYOUTS["packed"].input_ids_BT.shape[1] - 1])
    weights_nD = torch.randn(len(token_n), model.config.hidden_size, generator=torch.Generator().manual_seed(0))
    batches = {"packed": LAYOUTS["packed"], "one row": collate_trees([TREES], pad_id=0)}
    for layout, batch in batches.items():
        chosen_n = token_n.clamp(max=batch.input_ids_BT.numel() - 1)
        results = []
        for hidden_nD in (
            last_layer.hidden_states_at(model, batch, chosen_n),
            tree_hidden_states(model, batch).flatten(0, 1)[chosen_n],
        ):
            loss = (weights_nD * hidden_nD).mean()
            results.append([hidden_nD, *torch.autograd.grad(loss, list(model.base_model.parameters()))])
        for ours, theirs in zip(*results, strict=True):
            off = ((ours - theirs).abs().max() / max(theirs.abs().max().item(), 1e-2)).item()
            assert off <= 1e-5, f"{layout}: off by {off}"
    assert len(in_two) == (0 if name in WHOLE else 2)


@pytest.mark.parametrize("name", [name for name, (_, settings) in MATRIX.items() if settings.get("sliding_window")])
def test_windows_are_shorter_than_the_sequences(name: str):
    # The other negative control: the same weights without a window, which is what a ready-made mask makes of a model.
    model = random_model(*MATRIX[name])
    with torch.no_grad():
        plain_N = plain_logps(model, TREES)
        model.config.sliding_window = 64
        assert (tree_logps(model, LAYOUTS["shared"]) - plain_N).abs().max() > 1e-2


def test_one_plain_tree_a_row_is_the_sft_case():
    trees = [TokenTree(tree.prompt_ids, tree.completion_ids[:1]) for tree in TREES]
    model = random_model("llama", {})
    batch = collate_trees([[tree] for tree in trees], pad_id=0)
    assert batch.plain
    torch.testing.assert_close(tree_logps(model, batch), plain_logps(model, trees), rtol=0, atol=1e-5)


def test_eager_attention_gets_an_additive_mask():
    model = random_model("llama", {})
    model.set_attn_implementation("eager")
    torch.testing.assert_close(tree_logps(model, LAYOUTS["packed"]), plain_logps(model, TREES), rtol=0, atol=1e-5)


def test_a_window_that_the_architecture_ignores_is_ignored():
    model = random_model("llama", {})
    model.config.sliding_window = 4  # a stray key: Llama never builds a windowed mask
    torch.testing.assert_close(tree_logps(model, LAYOUTS["packed"]), plain_logps(model, TREES), rtol=0, atol=1e-5)


OBSTACLES = {
    "mamba": ("mamba", {}, "recurrent layers"),
    "lfm2": ("lfm2", {"layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False}, "type conv"),
    "bloom": ("bloom", {"n_layer": 2, "n_head": 4, "hidden_dropout": 0.0}, "no position ids"),
    "falcon-alibi": ("falcon", {"alibi": True, "head_dim": None}, "ALiBi"),
    "gpt_neo": (
        "gpt_neo",
        {
            "num_layers": 2,
            "num_hidden_layers": None,
            "num_heads": 4,
            "num_attention_heads": None,
            "attention_types": [[["global", "local"], 1]],
            "window_size": 4,
            "attention_dropout": 0.0,
            "embed_dropout": 0.0,
            "resid_dropout": 0.0,
        },
        "local attention by column",
    ),
}


@pytest.mark.parametrize("name", OBSTACLES)
def test_models_which_cannot_share_are_refused_by_name_and_exact_when_repeated(name: str):
    model_type, settings, reason = OBSTACLES[name]
    model = random_model(model_type, settings)
    assert sharing_obstacle(model) is not None
    assert reason in (sharing_obstacle(model) or "")
    with pytest.raises(UserError, match=f"{type(model).__name__}.*shared=False"):
        predictor_hidden_states(model, LAYOUTS["shared"])
    with torch.no_grad():
        off = (tree_logps(model, LAYOUTS["repeated"]) - plain_logps(model, TREES)).abs().max()
    assert off <= 1e-5


def test_an_attention_that_takes_no_mask_is_refused_by_name():
    model = random_model("llama", {})
    model.config._attn_implementation = "flash_attention_2"
    assert "flash_attention_2" in (sharing_obstacle(model) or "")


def test_a_model_that_misnames_its_backbone_is_refused(monkeypatch: pytest.MonkeyPatch):
    model = random_model("llama", {})
    monkeypatch.setattr(type(model), "base_model_prefix", "language_model")  # as Llama 4's text model has it
    with pytest.raises(UserError, match="LlamaForCausalLM does not name its backbone"):
        predictor_hidden_states(model, LAYOUTS["repeated"])
