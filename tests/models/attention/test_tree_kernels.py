"""Kernels for trees against dense masks: SDPA branch by branch and side by side, FlexAttention, and what falls back."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.integrations import flex_attention as transformers_flex

from lit_pref.data.batches.packing import collate_trees
from lit_pref.models.attention import tree_attention, tree_by_tree, tree_kernels
from lit_pref.models.attention.tree_attention import tree_attention_mask, tree_hidden_states
from lit_pref.models.attention.tree_kernels import TREES, MaskLostError, SpanMask, can_attend_by_tree, tree_block_mask
from lit_pref.types import TokenTree, TreeBatch

SIZE = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,
    "attention_dropout": 0.0,
    "pad_token_id": 0,
}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "qwen2": ("qwen2", {}),
    "mistral with a window": ("mistral", {"sliding_window": 5}),
    "qwen3 with some windows": (
        "qwen3",
        {"use_sliding_window": True, "sliding_window": 5, "layer_types": ["sliding_attention", "full_attention"]},
    ),
    "granite": ("granite", {"attention_multiplier": 0.35}),
}


def tokens(start: int, count: int) -> tuple[int, ...]:
    return tuple((start + 7 * place) % 96 + 1 for place in range(count))


# Long and short ones in turns, so that both ways are taken within a row, and padding behind the shorter row.
ROWS = [
    [
        TokenTree(tokens(1, 60), (tokens(2, 90), tokens(3, 70))),
        TokenTree(tokens(4, 9), (tokens(5, 4), tokens(6, 12), tokens(7, 1))),
        TokenTree(tokens(8, 1), (tokens(9, 1),)),
        TokenTree(tokens(10, 150), (tokens(11, 30), tokens(12, 45))),
    ],
    [TokenTree(tokens(13, 20), (tokens(14, 3), tokens(15, 30)))],
]
BATCH = collate_trees(ROWS, pad_id=0)


def model_of(name: str) -> PreTrainedModel:
    model_type, settings = MODELS[name]
    config = AutoConfig.for_model(model_type, **{**SIZE, **settings})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config).eval()


def states(model: PreTrainedModel, batch: TreeBatch = BATCH, kernel: Any = "sdpa") -> tuple[Tensor, Tensor]:
    """Hidden states of all tokens but the padding, [M, D], and the embedding's gradient of a weighed sum of them."""
    hidden_MD = tree_hidden_states(model, batch, kernel)[batch.tree_BT >= 0]
    weights_MD = torch.randn(hidden_MD.shape, generator=torch.Generator().manual_seed(0))
    loss = (weights_MD * hidden_MD).sum()
    return hidden_MD, torch.autograd.grad(loss, model.get_input_embeddings().weight)[0]


def dense(model: PreTrainedModel, batch: TreeBatch = BATCH) -> tuple[Tensor, Tensor]:
    model._supports_attention_backend = False
    return states(model, batch)


def assert_close(ours: tuple[Tensor, Tensor], theirs: tuple[Tensor, Tensor]) -> None:
    for mine, other in zip(ours, theirs, strict=True):
        off = (mine - other).abs().max() / other.abs().max()
        assert off < 1e-5, f"off by {off}"


@pytest.mark.parametrize("short", [0, 40, 192, 10_000], ids=lambda short: f"short trees to {short}")
@pytest.mark.parametrize("name", MODELS)
def test_sdpa_tree_by_tree_equals_a_dense_mask(name: str, short: int, monkeypatch: pytest.MonkeyPatch):
    model = model_of(name)
    assert can_attend_by_tree(model)
    theirs = dense(model_of(name))
    for module in (tree_by_tree, tree_attention):
        monkeypatch.setattr(module, "SHORT", short)
    # What runs is the kernel, not the mask that it is compared with.
    monkeypatch.setattr(tree_attention, "_dense_mask", None)
    assert_close(states(model), theirs)
    assert model.config._attn_implementation == TREES


@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize(
    "batch", [BATCH, collate_trees([[tree] for tree in ROWS[0]], pad_id=0)], ids=["packed", "rows"]
)
def test_a_block_mask_allows_what_the_dense_mask_allows(batch: TreeBatch, window: int | None):
    allowed_BTT = tree_attention_mask(batch.tree_BT, batch.branch_BT, batch.position_ids_BT, window)[:, 0]
    mask_mod = tree_block_mask(batch, window).mask_mod
    for row, allowed_TT in enumerate(allowed_BTT):
        q, k = torch.meshgrid(*(torch.arange(len(allowed_TT)),) * 2, indexing="ij")
        assert torch.equal(mask_mod(torch.tensor(row), torch.tensor(0), q, k), allowed_TT)


def test_a_block_mask_skips_blocks_of_other_trees():
    trees = [
        TokenTree(tokens(i, 200), (tokens(i, 90), tokens(i + 1, 94))) for i in range(6)
    ]  # three blocks of 128 each
    mask = tree_block_mask(collate_trees([trees], pad_id=0), None)
    # Of 18 x 18 blocks a tree has at most 3 x 3, and of these the upper triangle is empty.
    assert mask.kv_num_blocks.sum() + mask.full_kv_num_blocks.sum() <= 6 * 6


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile.*")
def test_flex_attention_equals_a_dense_mask(name: str, monkeypatch: pytest.MonkeyPatch):
    # Uncompiled, as reference; on the CPU FlexAttention has no backward pass.
    from torch.nn.attention.flex_attention import flex_attention

    def uncompiled(query: Any, key: Any, value: Any, training: bool = False, **settings: Any) -> Any:
        return flex_attention(query, key, value, **settings)

    monkeypatch.setattr(transformers_flex, "compile_friendly_flex_attention", uncompiled)
    monkeypatch.setattr(tree_attention, "_dense_mask", None)
    with torch.no_grad():
        ours = tree_hidden_states(model_of(name), BATCH, "flex")[BATCH.tree_BT >= 0]
    monkeypatch.undo()
    theirs = dense(model_of(name))[0].detach()
    assert (ours - theirs).abs().max() / theirs.abs().max() < 1e-5


REWORKED = {
    "copied": lambda mask: mask.clone(),
    "cut": lambda mask: mask[..., : mask.shape[-1]],
    "made additive": lambda mask: torch.zeros(mask.shape).masked_fill(~mask, -1e9),
    "dropped": lambda mask: None,
}


@pytest.mark.parametrize("rework", REWORKED.values(), ids=REWORKED)
def test_a_model_that_reworks_its_mask_gets_a_dense_one(rework: Any, monkeypatch: pytest.MonkeyPatch):
    # Where layers drop the mask, no mask helps: only that the kernels' way was left is looked at.
    model, theirs = model_of("llama"), dense(model_of("llama"))
    attention = type(model.model.layers[0].self_attn)
    forward = attention.forward

    def reworking(self: Any, hidden_states: Tensor, attention_mask: Any = None, **settings: Any) -> Any:
        return forward(self, hidden_states, attention_mask=rework(attention_mask), **settings)

    monkeypatch.setattr(attention, "forward", reworking)
    ours = states(model)
    if rework is not REWORKED["dropped"]:
        assert_close(ours, theirs)
    assert model.config._attn_implementation == "sdpa" and not can_attend_by_tree(model)
    assert_close(states(model), ours)  # not tried again


@pytest.mark.parametrize("extra", ["softcap", "s_aux", "position_bias"])
def test_what_the_kernels_lack_is_refused_by_name(extra: str):
    query = torch.randn(2, 4, BATCH.input_ids_BT.shape[1], 8)
    with pytest.raises(MaskLostError, match=f"Identity asks for {extra}"):
        tree_kernels.tree_attention(nn.Identity(), query, query, query, SpanMask.of(BATCH, None), **{extra: 1.0})


def test_the_mask_that_is_handed_on_takes_no_memory():
    mask = SpanMask.of(BATCH, None)
    width = BATCH.input_ids_BT.shape[1]
    assert mask.shape == (1, 1, width, width)
    assert mask.untyped_storage().nbytes() == 1
    assert type(mask.clone()) is Tensor


def test_an_ordinary_mask_goes_the_ordinary_way():
    model = model_of("llama")
    tree_hidden_states(model, BATCH)
    assert model.config._attn_implementation == TREES
    ids = torch.arange(1, 13).view(2, 6)
    padded = torch.tensor([[1, 1, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1]])
    with torch.no_grad():
        ours = model(input_ids=ids, attention_mask=padded).logits
        theirs = model_of("llama")(input_ids=ids, attention_mask=padded).logits
    torch.testing.assert_close(ours, theirs)
