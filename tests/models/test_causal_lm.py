import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lit_pref.errors import UserError
from lit_pref.models import causal_lm
from lit_pref.models.causal_lm import load_causal_lm, load_tokenizer, round_weights, weights_fingerprint
from lit_pref.models.export import export_model

WORDS = {"<eos>": 0, "<pad>": 1, "a": 2, "b": 3}


def tiny_model(seed: int = 0, tied: bool = False) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=8,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        tie_word_embeddings=tied,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def tiny_tokenizer(**special_tokens: str) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel(WORDS, unk_token="a")), **special_tokens)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return export_model(tiny_model(), tiny_tokenizer(eos_token="<eos>", pad_token="<pad>"), tmp_path / "model")


def test_a_folder_loads_as_it_was_saved(folder: Path):
    model = load_causal_lm(str(folder))
    assert not model.training  # as from_pretrained leaves it; who trains decides on dropout
    assert model.dtype == torch.float32
    for name, tensor in tiny_model().state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], tensor, rtol=0, atol=0)
    assert load_causal_lm(str(folder), dtype="bfloat16").dtype == torch.bfloat16


def test_loading_prints_nothing(folder: Path, capfd: pytest.CaptureFixture[str]):
    load_causal_lm(str(folder))
    load_tokenizer(str(folder))
    assert capfd.readouterr() == ("", "")


def test_random_init_is_a_function_of_the_seed_and_leaves_the_global_state_alone(folder: Path):
    (folder / "model.safetensors").unlink()  # config.json is enough
    before = torch.random.get_rng_state()
    first, again, other = (load_causal_lm(str(folder), random_init=True, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert weights_fingerprint(first) == weights_fingerprint(again) != weights_fingerprint(other)
    assert not first.training


def test_embedded_names_stand_for_folders_with_one_tokenizer(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    embedded = tmp_path / "embedded"
    export_model(tiny_model(), tiny_tokenizer(eos_token="<eos>"), embedded / "coder")
    tiny_tokenizer(eos_token="<eos>").save_pretrained(embedded / "tokenizer")
    monkeypatch.setattr(causal_lm, "EMBEDDED_FOLDER", embedded)
    assert weights_fingerprint(load_causal_lm("embedded:coder")) == weights_fingerprint(load_causal_lm(str(folder)))
    assert load_tokenizer("embedded:coder").eos_token == "<eos>"
    for load in (load_causal_lm, load_tokenizer):
        with pytest.raises(UserError, match=r"'embedded:codr' \(did you mean 'embedded:coder'\?\).*: embedded:coder$"):
            load("embedded:codr")


def test_a_tokenizer_without_pad_gets_eos_for_it(tmp_path: Path):
    tiny_tokenizer(eos_token="<eos>").save_pretrained(tmp_path / "eos")
    assert load_tokenizer(str(tmp_path / "eos")).pad_token_id == WORDS["<eos>"]
    tiny_tokenizer(eos_token="<eos>", pad_token="<pad>").save_pretrained(tmp_path / "both")
    assert load_tokenizer(str(tmp_path / "both")).pad_token_id == WORDS["<pad>"]
    tiny_tokenizer().save_pretrained(tmp_path / "neither")
    with pytest.raises(UserError, match="neither a pad nor an EOS token"):
        load_tokenizer(str(tmp_path / "neither"))


def test_a_folder_without_a_tokenizer_is_told_with_what_stands_there(folder: Path):
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (folder / file).unlink()
    with pytest.raises(UserError, match=r"holds no tokenizer: expected tokenizer\.json or .*, found config\.json") as e:
        load_tokenizer(str(folder))
    assert repr(str(folder)) in str(e.value)


def test_a_folder_without_config_or_weights_is_told_with_what_stands_there(folder: Path):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"no safetensors weights: expected model\.safetensors .*save them again as"):
        load_causal_lm(str(folder))
    (folder / "config.json").unlink()
    with pytest.raises(UserError, match=r"no model: expected config\.json, found generation_config\.json"):
        load_causal_lm(str(folder))
    (folder / "empty").mkdir()
    with pytest.raises(UserError, match=r"found nothing$"):
        load_causal_lm(str(folder / "empty"))


def test_incomplete_weights_are_refused_not_drawn_at_random(folder: Path):
    weights = load_file(folder / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"leave 1 parameters unset, 'lm_head\.weight' the first"):
        load_causal_lm(str(folder))


@pytest.mark.parametrize("broken", ["truncated", "config", "other size", "no causal LM"])
def test_files_that_cannot_be_read_are_one_line(folder: Path, broken: str):
    weights, config = folder / "model.safetensors", folder / "config.json"
    settings = json.loads(config.read_text())
    if broken == "truncated":
        weights.write_bytes(weights.read_bytes()[:-16])
    elif broken == "config":
        config.write_text(config.read_text()[:-20])
    elif broken == "other size":
        config.write_text(json.dumps({**settings, "hidden_size": 16}))
    else:
        config.write_text(json.dumps({"model_type": "t5"}))
    with pytest.raises(UserError, match=r"cannot be loaded|has no causal LM") as e:
        load_causal_lm(str(folder))
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("name", ["./nothing/here", "/nothing/here", "a/b/c", ""])
def test_a_path_that_is_no_folder_is_not_asked_of_the_hub(name: str):
    with pytest.raises(UserError, match="is no model folder"):
        load_causal_lm(name)


def test_an_unreachable_hub_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for load in (load_causal_lm, load_tokenizer):
        with pytest.raises(UserError, match=r"no folder is called 'nobody/nothing', and as a hub id .*offline") as e:
            load("nobody/nothing")
        assert "\n" not in str(e.value)


def test_a_config_of_a_wrong_kind_is_told_in_one_line(tmp_path: Path):
    export_model(load_causal_lm("embedded:coder-weak"), load_tokenizer("embedded:coder-weak"), tmp_path / "model")
    config = tmp_path / "model" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"hidden_size": "big"}))
    with pytest.raises(UserError, match=r"config\.json: Field 'hidden_size' expected int, got str \(value: 'big'\)$"):
        load_causal_lm(str(tmp_path / "model"))


def test_the_hub_is_not_asked_where_no_connection_opens(monkeypatch: pytest.MonkeyPatch):
    # A port of this machine where nobody listens.
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("urllib.request.getproxies", dict)
    with pytest.raises(UserError, match="offline"):
        load_causal_lm("nobody/nothing")


def test_fingerprints_tell_weights_dtypes_and_configs_apart():
    assert weights_fingerprint(tiny_model(0)) == weights_fingerprint(tiny_model(0))
    windowed, changed = tiny_model(0), tiny_model(0)
    windowed.config.rope_parameters = {"rope_type": "default", "rope_theta": 5.0}
    with torch.no_grad():
        changed.lm_head.weight[0, 0] += 1e-6
    models = [
        tiny_model(0),
        tiny_model(1),
        tiny_model(0).to(torch.bfloat16),
        tiny_model(0, tied=True),
        windowed,
        changed,
    ]
    assert len({weights_fingerprint(model) for model in models}) == len(models)


def test_tied_weights_are_read_once():
    tied = tiny_model(0, tied=True)
    untied = tiny_model(0, tied=True)
    untied.lm_head.weight = torch.nn.Parameter(untied.model.embed_tokens.weight.detach().clone())
    assert weights_fingerprint(tied) != weights_fingerprint(untied)  # the same values, but a parameter more


def test_rounding_weights_gives_what_loading_in_that_precision_gives():
    rounded, loaded = load_causal_lm("embedded:coder"), load_causal_lm("embedded:coder", dtype="bfloat16")
    round_weights(rounded, "bfloat16")
    assert weights_fingerprint(rounded) == weights_fingerprint(loaded)
    ids = torch.arange(2, 30)[None]
    assert torch.equal(rounded(ids).logits, loaded(ids).logits)  # rope frequencies are no weights: not rounded
