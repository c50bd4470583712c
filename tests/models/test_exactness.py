"""What a model computes in our layouts is tried where it is opened: what is off runs apart, or is refused by name."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, LlamaForCausalLM, LlamaModel, PreTrainedModel

from lit_pref.data.batches.packing import collate_trees
from lit_pref.errors import UserError
from lit_pref.models import apart_obstacle, check_scoring, exactness, lm_head, predictor_hidden_states, sharing_obstacle
from lit_pref.types import TokenTree

SIZE = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "eos_token_id": 2,
}
TREES = [
    TokenTree((3, 4, 5, 6), ((21, 22), (31, 32, 33, 34, 35))),
    TokenTree((8, 9), ((41,), (42, 43, 44, 45))),
]


class ByWidth(LlamaModel):
    """Counts the columns of its batch."""

    def forward(self, input_ids, attention_mask=None, position_ids=None, **others):
        out = super().forward(input_ids, attention_mask, position_ids, **others)
        out.last_hidden_state = out.last_hidden_state * (1 + 0.1 * out.last_hidden_state.shape[1])
        return out


class ByRows(LlamaModel):
    """Counts the rows of its batch."""

    def forward(self, input_ids, attention_mask=None, position_ids=None, **others):
        out = super().forward(input_ids, attention_mask, position_ids, **others)
        out.last_hidden_state = out.last_hidden_state * (1 + 0.1 * len(out.last_hidden_state))
        return out


def tiny(model_type: str = "llama", backbone: type[LlamaModel] | None = None, **settings: object) -> PreTrainedModel:
    wanted = {key: value for key, value in (SIZE | settings).items() if value is not None}
    config = AutoConfig.for_model(model_type, **wanted)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if backbone is None:
            return AutoModelForCausalLM.from_config(config).eval()
        model = type(f"{backbone.__name__}ForCausalLM", (LlamaForCausalLM,), {})(config)
        model.model = backbone(config)
        return model.eval()


def assert_exact_when_repeated(model: PreTrainedModel) -> None:
    batch = collate_trees([TREES], pad_id=0, shared=False)
    expected = []
    with torch.no_grad():
        logps_NV = lm_head(model)(predictor_hidden_states(model, batch)).log_softmax(-1)
        for tree in TREES:
            for ids in tree.completion_ids:
                logits_TV = model(input_ids=torch.tensor([[*tree.prompt_ids, *ids]])).logits[0]
                logps_TV = logits_TV[len(tree.prompt_ids) - 1 : -1].log_softmax(-1)
                expected.append(logps_TV.gather(-1, torch.tensor(ids)[:, None]).squeeze(-1))
    ours_N = logps_NV.gather(-1, batch.target_N[:, None]).squeeze(-1)
    torch.testing.assert_close(ours_N, torch.cat(expected), rtol=0, atol=1e-5)


@pytest.mark.parametrize("backbone", [ByWidth, ByRows])
def test_an_unknown_architecture_runs_as_is_exact(backbone: type[LlamaModel]):
    model = tiny(backbone=backbone)
    name = type(model).__name__
    assert (apart_obstacle(model) or "").startswith(f"{name} makes something else of a sequence that is padded")
    assert f"{name} is not exact where completions share a prompt" in (sharing_obstacle(model) or "")
    assert_exact_when_repeated(model)


@pytest.mark.parametrize(
    ("model_type", "settings"),
    [("bert", {"is_decoder": False}), ("xlnet", {"d_inner": 48, "d_head": 8, "max_position_embeddings": None})],
)
def test_a_model_that_sees_later_tokens_is_refused_by_name(model_type: str, settings: dict[str, object]):
    model = tiny(model_type, **settings)
    with pytest.raises(UserError, match=rf"{type(model).__name__} sees later tokens.*cannot be scored"):
        check_scoring(model, opened=True)


def test_a_bidirectional_config_of_a_known_architecture_is_refused_when_opened():
    model = tiny(is_causal=False)
    with pytest.raises(UserError, match="LlamaForCausalLM sees later tokens"):
        check_scoring(model, opened=True)


def test_logits_that_are_made_of_something_else_are_refused_by_name():
    model = tiny(
        "prophetnet", num_hidden_layers=None, num_decoder_layers=2, num_decoder_attention_heads=4, decoder_ffn_dim=48
    )
    check_scoring(model, opened=True)  # a reward model reads hidden states
    with pytest.raises(UserError, match=r"ProphetNetForCausalLM makes its logits from something else.*no log-probs"):
        check_scoring(model, logps=True, opened=True)


def test_a_tried_model_is_as_it_was_and_is_tried_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(exactness, "_known", {})
    model, passes = tiny("stablelm"), []
    model.base_model.register_forward_hook(lambda *_: passes.append(1))
    model.train()
    model.lm_head.eval()
    state, modes = torch.get_rng_state(), [part.training for part in model.modules()]
    check_scoring(model, logps=True, opened=True)
    assert 4 <= len(passes) <= 10
    assert torch.equal(torch.get_rng_state(), state)
    assert [part.training for part in model.modules()] == modes
    assert all(parameter.grad is None for parameter in model.parameters())
    check_scoring(model, logps=True, opened=True)
    check_scoring(tiny("stablelm"), logps=True, opened=True)
    assert len(passes) <= 10


def test_a_model_without_weights_is_not_tried():
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **SIZE))
    check_scoring(model, logps=True, opened=True)


def test_broken_weights_are_not_blamed_on_the_architecture(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(exactness, "_known", {})
    model = tiny()
    model.get_input_embeddings().weight.data.fill_(torch.nan)
    check_scoring(model, logps=True, opened=True)
