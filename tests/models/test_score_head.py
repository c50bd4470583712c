"""Score heads: drawn, found among weights, kept in fp32, and written out for transformers."""

import json
import math
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    CohereConfig,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    OPTConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

from lit_pref.data.batches.packing import collate_trees
from lit_pref.errors import UserError
from lit_pref.models.adapters import LoRA, attach
from lit_pref.models.attention.tree_attention import tree_hidden_states
from lit_pref.models.causal_lm import load_causal_lm
from lit_pref.models.score_head import (
    ScoreHead,
    export_reward_model,
    freeze_unused_lm_head,
    fresh_score_head,
    hidden_width,
    saved_score_head,
)
from lit_pref.types import TokenTree

SIZE = {
    "vocab_size": 20,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "initializer_range": 0.3,
    "bos_token_id": None,
    "eos_token_id": 0,
    "pad_token_id": 1,
}
CONFIGS: dict[str, PreTrainedConfig] = {
    "llama": LlamaConfig(**SIZE),
    "qwen2_tied": Qwen2Config(**SIZE, tie_word_embeddings=True),
    "gemma2": Gemma2Config(**SIZE, head_dim=8, sliding_window=64),
    "gpt2": GPT2Config(
        vocab_size=20, n_embd=16, n_layer=2, n_head=2, initializer_range=0.3, eos_token_id=0, bos_token_id=0
    ),
    "opt_projected": OPTConfig(
        vocab_size=20,
        hidden_size=16,
        word_embed_proj_dim=12,
        ffn_dim=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        init_std=0.3,
        eos_token_id=0,
        pad_token_id=1,
    ),
}
TREES = [TokenTree((2, 3, 4), ((5, 6, 0), (7, 8, 9, 10, 0))), TokenTree((11,), ((12, 0), (13, 14, 0)))]


def model_of(name: str) -> PreTrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(CONFIGS[name]).eval()


def tokenizer_with(pad: str) -> PreTrainedTokenizerFast:
    words = WordLevel({"<eos>": 0, "<pad>": 1} | {f"w{i}": i for i in range(2, 20)}, unk_token="w2")
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(words), eos_token="<eos>", pad_token=pad)


def tree_scores(model: PreTrainedModel, head: ScoreHead) -> Tensor:
    batch = collate_trees([TREES], pad_id=1)
    with torch.no_grad():
        return head(tree_hidden_states(model, batch).flatten(0, 1)[batch.last_K])


# --- the head ---------------------------------------------------------------------------------------------------------


def test_a_score_is_a_dot_product():
    head = ScoreHead(torch.tensor([[1.0, -2.0]]))
    assert head(torch.tensor([[3.0, 1.0], [0.5, 0.5]])).tolist() == [1.0, -0.5]


def test_scores_are_fp32_also_under_autocast_and_from_half_precision():
    # 1 + 2^-9 is 1 in bf16: two scores that differ by it would tie
    head, hidden_KD = ScoreHead(torch.tensor([[1.0, 2.0**-9]])), torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    with torch.autocast("cpu", torch.bfloat16):
        assert head(hidden_KD).tolist() == [1 + 2.0**-9, 1.0]
    scores_K = head.bfloat16()(hidden_KD.bfloat16())
    assert scores_K.dtype == torch.float32 and scores_K.tolist() == [1 + 2.0**-9, 1.0]


def test_the_head_s_gradient_is_the_hidden_state():
    head = ScoreHead(torch.zeros(1, 2))
    head(torch.tensor([[3.0, 1.0], [0.5, 0.5]])).sum().backward()
    assert head.weight.grad.tolist() == [[3.5, 1.5]]


# --- fresh ------------------------------------------------------------------------------------------------------------


def test_a_fresh_head_follows_its_seed_and_leaves_the_random_state_alone():
    model, state = model_of("llama"), torch.get_rng_state()
    first, again, other = (fresh_score_head(model, seed=seed).weight for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("std", "expected"), [(None, 0.3), (0.01, 0.01), (0.0, 0.0)])
def test_the_spread_of_a_fresh_head(std: float | None, expected: float):
    model = model_of("llama")
    draws = torch.stack([fresh_score_head(model, std, seed).weight for seed in range(100)])
    # 1,600 draws: their standard deviation is known to 1/√3200 = 1.8%
    assert draws.std().item() == pytest.approx(expected, rel=0.06)
    assert abs(draws.mean().item()) <= 0.1 * expected


def test_a_config_without_a_range_gets_one_from_the_width():
    model = model_of("opt_projected")  # its config has init_std
    draws = torch.stack([fresh_score_head(model, None, seed).weight for seed in range(100)])
    assert draws.std().item() == pytest.approx(1 / math.sqrt(13), rel=0.06)


def test_a_spread_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"std must be >= 0 and finite, got -1"):
        fresh_score_head(model_of("llama"), std=-1.0)


def test_the_width_is_that_of_what_the_lm_head_takes():
    assert hidden_width(model_of("opt_projected")) == 12  # its hidden_size is 16


# --- carried over -----------------------------------------------------------------------------------------------------


def classifier(folder: Path, labels: int = 1, **settings: str) -> tuple[str, PreTrainedModel]:
    config = Qwen2Config(**SIZE, tie_word_embeddings=True, num_labels=labels)
    saved = AutoModelForSequenceClassification.from_config(config)
    saved.save_pretrained(folder, **settings)
    return str(folder), saved


@pytest.mark.parametrize("shards", [{}, {"max_shard_size": "2KB"}])
def test_a_head_is_found_among_a_classifier_s_weights(tmp_path: Path, shards: dict[str, str]):
    name, saved = classifier(tmp_path / "m", **shards)
    assert (tmp_path / "m" / "model.safetensors.index.json").is_file() == bool(shards)
    head = saved_score_head(name, model_of("qwen2_tied"))
    assert head is not None and torch.equal(head.weight, saved.score.weight)
    assert head.weight.requires_grad


def test_a_head_beside_the_language_model_is_nothing_to_be_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    name, _ = classifier(tmp_path / "model")
    capfd.readouterr()  # what saving said
    load_causal_lm(name, needs_lm_head=False)
    assert capfd.readouterr() == ("", "")


def test_a_language_model_holds_none(tmp_path: Path):
    model = model_of("llama")
    for folder, shards in (("whole", {}), ("shards", {"max_shard_size": "2KB"})):
        model.save_pretrained(tmp_path / folder, **shards)
        assert saved_score_head(str(tmp_path / folder), model) is None


def test_a_head_of_other_labels_or_width_is_refused(tmp_path: Path):
    name, _ = classifier(tmp_path / "m", labels=3)
    with pytest.raises(UserError, match=r"score.weight of .* has shape \(3, 16\).*one label, \(1, 16\)"):
        saved_score_head(name, model_of("qwen2_tied"))
    name, _ = classifier(tmp_path / "narrow")
    with pytest.raises(UserError, match=r"has shape \(1, 16\).*\(1, 12\).*fresh_head"):
        saved_score_head(name, model_of("opt_projected"))


# --- the LM head ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "frozen"), [("llama", ["lm_head.weight"]), ("qwen2_tied", [])])
def test_an_lm_head_of_its_own_is_frozen(name: str, frozen: list[str]):
    model = model_of(name)
    freeze_unused_lm_head(model)
    assert [name for name, parameter in model.named_parameters() if not parameter.requires_grad] == frozen


# --- export -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONFIGS)
def test_an_export_scores_the_same_in_transformers(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    model = model_of(name)
    head, tokenizer = fresh_score_head(model, std=1.0), tokenizer_with("<pad>")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    folder = export_reward_model(model, head, tokenizer, tmp_path / "deep" / "model")
    assert [path.name for path in folder.parent.iterdir()] == ["model"]
    assert capfd.readouterr().err == ""
    opened, loading = AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True)
    assert not loading["missing_keys"] and not loading["unexpected_keys"]
    assert AutoTokenizer.from_pretrained(folder).pad_token_id == 1
    # all completions with their prompts in one padded batch
    sequences = [tree.prompt_ids + ids for tree in TREES for ids in tree.completion_ids]
    batch = tokenizer.pad({"input_ids": [list(ids) for ids in sequences]}, return_tensors="pt")
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scores_K = opened(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.squeeze(-1)
    torch.testing.assert_close(tree_scores(model, head), scores_K, rtol=2e-5, atol=1e-5)
    assert scores_K.std() > 0.1  # so that another place of reading would show
    # the model itself is as it was
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_an_end_that_pads_is_no_pad_token_of_the_export(tmp_path: Path):
    model = model_of("llama")
    head = fresh_score_head(model, std=1.0)
    folder = export_reward_model(model, head, tokenizer_with("<eos>"), tmp_path / "model")
    opened = AutoModelForSequenceClassification.from_pretrained(folder)
    assert opened.config.pad_token_id is None and model.config.pad_token_id == 1
    alone = [opened(input_ids=torch.tensor([t.prompt_ids + ids])).logits.item() for t in TREES for ids in t[1]]
    torch.testing.assert_close(tree_scores(model, head), torch.tensor(alone), rtol=2e-5, atol=1e-5)


def test_a_trained_adapter_is_merged(tmp_path: Path):
    pytest.importorskip("peft")
    model = model_of("llama")
    attach(model, LoRA(r=2))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3, generator=torch.Generator().manual_seed(0))
    head = fresh_score_head(model, std=1.0)
    folder = export_reward_model(model, head, tokenizer_with("<pad>"), tmp_path / "model")
    assert not any("lora" in name for name in load_file(folder / "model.safetensors"))
    opened = AutoModelForSequenceClassification.from_pretrained(folder)
    alone = [opened(input_ids=torch.tensor([t.prompt_ids + ids])).logits.item() for t in TREES for ids in t[1]]
    torch.testing.assert_close(tree_scores(model, head), torch.tensor(alone), rtol=2e-5, atol=1e-5)
    assert (tree_scores(model_of("llama"), head) - torch.tensor(alone)).abs().max() > 0.01


def test_an_export_is_carried_over_again(tmp_path: Path):
    model = model_of("qwen2_tied")
    head = fresh_score_head(model)
    folder = export_reward_model(model, head, tokenizer_with("<pad>"), tmp_path / "model")
    found = saved_score_head(str(folder), model)
    assert found is not None and torch.equal(found.weight, head.weight)
    assert json.loads((folder / "config.json").read_text())["architectures"] == ["Qwen2ForSequenceClassification"]


def test_an_architecture_without_a_classifier_is_refused(tmp_path: Path):
    model = AutoModelForCausalLM.from_config(CohereConfig(**SIZE))
    with pytest.raises(UserError, match="no sequence classifier for CohereForCausalLM"):
        export_reward_model(model, fresh_score_head(model), tokenizer_with("<pad>"), tmp_path / "model")
    assert not list(tmp_path.iterdir())
