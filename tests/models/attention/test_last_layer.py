"""The last layer at some tokens alone against all of them: long and short trees, adapters, autocast; what falls back.

Architectures stand in `test_tree_matches_plain`.
"""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from lit_pref.data.batches.packing import collate_trees
from lit_pref.models import LoRA, attach
from lit_pref.models.attention import last_layer, tree_attention, tree_by_tree
from lit_pref.models.attention.last_layer import hidden_states_at
from lit_pref.models.attention.tree_attention import tree_hidden_states
from lit_pref.models.compute import prepare_layers
from lit_pref.modules import Compute
from lit_pref.types import TokenTree, TreeBatch

SIZE = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
    "attention_dropout": 0.0,
    "pad_token_id": 0,
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
CHOSEN = {
    "last tokens": BATCH.last_K,
    "predictors": BATCH.predictor_N,
    "one token": torch.tensor([225]),  # no other tree, and no other branch, has a token that looks
    "a tree without any": torch.arange(250, 472),
}


def model_of(model_type: str = "llama", **settings: Any) -> PreTrainedModel:
    config = AutoConfig.for_model(model_type, **{**SIZE, **settings})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config).eval()


@pytest.fixture
def in_two(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """One entry for each forward pass whose last layer was taken in two."""
    calls: list[bool] = []
    over = last_layer.attention_is_over
    monkeypatch.setattr(last_layer, "attention_is_over", lambda: (calls.append(True), over()))
    return calls


def among_all(model: PreTrainedModel, batch: TreeBatch, token_n: Tensor) -> Tensor:
    return tree_hidden_states(model, batch).flatten(0, 1)[token_n]


def both(model: PreTrainedModel, token_n: Tensor, batch: TreeBatch = BATCH) -> Iterator[tuple[Tensor, Tensor]]:
    """Hidden states of some tokens and all gradients of a weighed sum of them, ours beside those of the whole layer."""
    weights = torch.randn(len(token_n), SIZE["hidden_size"], generator=torch.Generator().manual_seed(0))
    trained = [p for p in model.base_model.parameters() if p.requires_grad]
    results = []
    for way in (
        hidden_states_at,
        lambda model, batch, token_n: tree_hidden_states(model, batch).flatten(0, 1)[token_n],
    ):
        hidden_nD = way(model, batch, token_n)
        results.append([hidden_nD, *torch.autograd.grad((weights * hidden_nD).sum(), trained)])
    return zip(*results, strict=True)


def assert_equal(pairs: Iterator[tuple[Tensor, Tensor]], tolerance: float = 1e-5) -> None:
    for ours, theirs in pairs:
        off = ((ours - theirs).abs().max() / max(theirs.abs().max().item(), 1e-2)).item()
        assert off < tolerance, f"off by {off}"


@pytest.mark.parametrize("short", [0, 192, 10_000], ids=lambda short: f"short trees to {short}")
@pytest.mark.parametrize("window", [None, 5], ids=["full", "window"])
@pytest.mark.parametrize("name", CHOSEN)
def test_long_and_short_trees(
    name: str, window: int | None, short: int, in_two: list[bool], monkeypatch: pytest.MonkeyPatch
):
    for module in (tree_by_tree, tree_attention):
        monkeypatch.setattr(module, "SHORT", short)
    assert_equal(both(model_of("mistral", sliding_window=window), CHOSEN[name]))
    assert in_two


def test_all_other_parts_run_at_the_chosen_tokens_alone(monkeypatch: pytest.MonkeyPatch):
    model, seen = model_of(), []
    feed_forward = type(model.model.layers[0].mlp)
    forward = feed_forward.forward

    def counted(self: nn.Module, x: Tensor) -> Tensor:
        seen.append(x.shape[:-1].numel())
        return forward(self, x)

    monkeypatch.setattr(feed_forward, "forward", counted)
    hidden_states_at(model, BATCH, BATCH.last_K)
    assert seen == [BATCH.input_ids_BT.numel(), len(BATCH.last_K)]
    assert "forward" not in vars(model.model.layers[1])  # as it came


def test_an_adapter_trains_as_it_would(in_two: list[bool]):
    pytest.importorskip("peft")
    model = model_of()
    attach(model, LoRA(r=2), seed=0)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # 0 at the start, which would keep A's gradients at 0
            nn.init.normal_(parameter, std=0.05, generator=generator)
    assert_equal(both(model, BATCH.last_K))
    assert in_two


def test_autocast_rounds_no_more_than_else(in_two: list[bool]):
    with torch.autocast("cpu", torch.bfloat16):
        assert_equal(both(model_of(), BATCH.last_K), tolerance=2**-5)  # a few roundings of 2^-8
    assert in_two


def test_without_gradients(in_two: list[bool]):
    model = model_of()
    with torch.no_grad():
        ours = hidden_states_at(model, BATCH, BATCH.last_K)
        torch.testing.assert_close(ours, among_all(model, BATCH, BATCH.last_K))
    assert in_two


class Replaced:
    """A forward in place of a layer's own, as `Compute` compiles and checkpoints."""

    def __init__(self, plain: Any) -> None:
        self.plain, self.calls = plain, 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        return self.plain(*args, **kwargs)


@pytest.mark.parametrize(("name", "whole"), [("last tokens", False), ("predictors", True)])
def test_a_replaced_forward_is_left_out_where_few_tokens_are_chosen(name: str, whole: bool, in_two: list[bool]):
    # Of 473 tokens 8 are last ones, and 249 predict others: more than half.
    model = model_of()
    layer = model.model.layers[1]
    layer.forward = replaced = Replaced(layer.forward)
    batch = collate_trees(ROWS[:1], pad_id=0)
    hidden_states_at(model, batch, batch.last_K if name == "last tokens" else batch.predictor_N)
    assert replaced.calls == whole and bool(in_two) != whole
    assert layer.forward is replaced


@pytest.mark.parametrize(
    "compute",
    [Compute(gradient_checkpointing=True), pytest.param(Compute(compile=True), marks=pytest.mark.slow)],
    ids=["checkpointed", "compiled"],
)
def test_a_layer_as_the_engine_runs_it(compute: Compute, in_two: list[bool]):
    model = model_of()
    prepare_layers(model, compute)
    prepared = model.model.layers[1].forward
    assert_equal(both(model, BATCH.last_K))
    assert in_two and model.model.layers[1].forward is prepared


# --- what falls back --------------------------------------------------------------------------------------------------


def with_dropout() -> PreTrainedModel:
    return model_of(attention_dropout=0.5).train()


def with_a_hook() -> PreTrainedModel:
    model = model_of()
    model.model.layers[1].mlp.register_forward_hook(lambda *_: None)
    return model


def with_a_forward_of_its_own() -> PreTrainedModel:
    model = model_of()
    layer = model.model.layers[1]
    layer.forward = layer.forward
    return model


def under_a_dense_mask() -> PreTrainedModel:
    model = model_of()
    model._supports_attention_backend = False
    return model


@pytest.mark.parametrize("make", [with_dropout, with_a_hook, with_a_forward_of_its_own, under_a_dense_mask])
def test_the_whole_layer_runs(make: Any, in_two: list[bool]):
    model = make()
    own = vars(model.model.layers[1]).get("forward")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        ours = hidden_states_at(model, BATCH, BATCH.last_K)
        torch.manual_seed(0)
        assert torch.equal(ours, among_all(model, BATCH, BATCH.last_K))
    assert not in_two
    assert vars(model.model.layers[1]).get("forward") is own


def test_a_plain_batch_goes_as_it_comes(in_two: list[bool]):
    batch = collate_trees([[TokenTree(tokens(1, 5), (tokens(2, 3),))]], pad_id=0)
    assert batch.plain
    assert_equal(both(model_of(), batch.last_K, batch))
    assert not in_two


def twice(forward: Any) -> Any:
    """Attention that attends a second time."""

    def attending_twice(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        output, _ = forward(self, *args, **kwargs)
        return output + forward(self, *args, **kwargs)[0], None

    return attending_twice


def test_a_layer_that_attends_twice_is_not_parted(in_two: list[bool], monkeypatch: pytest.MonkeyPatch):
    model = model_of()
    attention = type(model.model.layers[0].self_attn)
    monkeypatch.setattr(attention, "forward", twice(attention.forward))
    assert_equal(both(model, BATCH.last_K))
    assert not in_two


def test_a_layer_that_is_passed_twice_is_found_out(in_two: list[bool]):
    model = model_of()
    model.model.layers[1] = model.model.layers[0]
    assert_equal(both(model, BATCH.last_K))
    assert in_two == [True]  # where it was passed for the first time
    assert_equal(both(model, BATCH.last_K))
    assert in_two == [True]  # not tried again


@pytest.mark.parametrize(
    "given", [torch.ones(3, 2, 473, 8), torch.ones(2, 4, 7)], ids=["positions of 3 kinds", "heads"]
)
def test_what_is_not_one_row_a_token_is_not_cut(given: Tensor, in_two: list[bool], monkeypatch: pytest.MonkeyPatch):
    model = model_of()
    layer = type(model.model.layers[0])
    forward = layer.forward

    def ignoring(self: nn.Module, *args: Any, unknown: Any = None, **kwargs: Any) -> Any:
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(layer, "forward", ignoring)
    call = type(model.model.layers[1]).__call__
    monkeypatch.setattr(layer, "__call__", lambda self, *args, **kwargs: call(self, *args, unknown=given, **kwargs))
    assert_equal(both(model, BATCH.last_K))
    assert not in_two
