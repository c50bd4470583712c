import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

from lit_pref.data.tokens.tokenize import tokenize_prompt
from lit_pref.errors import UserError
from lit_pref.models import LoRA, attach, export_model, load_causal_lm, load_tokenizer, saved_score_head
from lit_pref.models import gguf as unpacking
from tests.tiny import tiny_llama

pytest.importorskip("gguf", reason="needs the extra gguf: pip install 'lit-pref[gguf]'")
pytest.importorskip("accelerate", reason="needs the extra gguf: pip install 'lit-pref[gguf]'")
from tests.models.tiny_gguf import TEMPLATE, TOKENS, write_gguf

HI = ({"role": "user", "content": "hi"},)


def llama() -> LlamaForCausalLM:
    """Two query heads a key head, so that permuting the one as the other shows."""
    settings = {"num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0, "eos_token_id": 2}
    return tiny_llama(vocab_size=len(TOKENS), **settings)


@pytest.fixture
def file(tmp_path: Path) -> str:
    return write_gguf(tmp_path / "model.gguf", llama())


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.arange(3, 40)[None]).logits


def test_a_file_is_the_model_that_was_written_to_it(file: str):
    model = load_causal_lm(file)
    for name, value in llama().state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=0, atol=0)
    torch.testing.assert_close(logits(model), logits(llama()), rtol=0, atol=1e-6)
    rounded = load_causal_lm(file, dtype="bfloat16")
    assert rounded.dtype == torch.bfloat16
    assert torch.equal(rounded.lm_head.weight, llama().lm_head.weight.bfloat16())
    assert load_causal_lm(file, random_init=True).config.vocab_size == len(TOKENS)
    assert saved_score_head(file, model) is None


def test_tokenizer_template_and_end_are_those_of_the_file_whatever_lies_beside_it(file: str):
    load_tokenizer("embedded:coder").save_pretrained(Path(file).parent)
    (Path(file).parent / "chat_template.jinja").write_text("another")
    tokenizer = load_tokenizer(file)
    assert tokenizer.get_vocab() == {token: place for place, token in enumerate(TOKENS)}
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")
    assert tokenizer.chat_template == TEMPLATE
    # <|im_start|> user \n hi <|im_end|> \n <|im_start|> assistant \n; "hi" is merged, other letters are bytes
    ids = tokenize_prompt(HI, tokenizer)
    turns = ["<|im_start|>", *"user", "Ċ", "hi", "<|im_end|>", "Ċ", "<|im_start|>", *"assistant", "Ċ"]
    assert [TOKENS[token] for token in ids] == turns
    assert load_causal_lm(file).generation_config.eos_token_id == [2]


def test_all_ends_that_a_file_names_end_a_completion(tmp_path: Path):
    named = {"tokenizer.ggml.eot_token_id": 0, "tokenizer.ggml.eom_token_id": 2}
    model = load_causal_lm(write_gguf(tmp_path / "ends.gguf", llama(), fields=named))
    assert model.generation_config.eos_token_id == [2, 0]


def test_the_rope_scaling_of_llama_3_is_found_again_in_its_factors(tmp_path: Path):
    scaling = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0, "low_freq_factor": 1.0}
    scaling |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
    sizes = {"hidden_size": 128, "num_attention_heads": 2, "max_position_embeddings": 131072}
    model = tiny_llama(vocab_size=len(TOKENS), **sizes, rope_parameters=scaling)
    # llama.cpp divides the frequency theta^(-2i/d) of pair i by its factor. A wavelength of more than 8192 tokens is
    # stretched 32 times, one of less than 8192 / 4 not at all, those between by a share s of the whole:
    # 1 / ((1 - s) / 32 + s), s = (8192 / wavelength - 1) / (4 - 1).
    wavelength = 2 * np.pi * 500000.0 ** (np.arange(32) / 32)
    share = np.clip((8192 / wavelength - 1) / 3, 0, 1)
    factors = (1 / ((1 - share) / 32 + share)).astype(np.float32)
    assert 0 < ((share > 0) & (share < 1)).sum() < 32
    read = load_causal_lm(write_gguf(tmp_path / "llama3.gguf", model, tensors={"rope_freqs.weight": factors}))
    assert read.config.rope_parameters == scaling
    torch.testing.assert_close(logits(read), logits(model), rtol=0, atol=1e-5)


def test_it_is_an_ordinary_model_afterwards(file: str, tmp_path: Path):
    model = load_causal_lm(file)
    attach(model, LoRA(r=2))
    folder = export_model(model, load_tokenizer(file), tmp_path / "exported")
    torch.testing.assert_close(logits(load_causal_lm(str(folder))), logits(model))


def test_it_is_unpacked_once_and_anew_where_the_file_changes(file: str, capsys: pytest.CaptureFixture[str]):
    load_tokenizer(file)
    load_causal_lm(file)
    tokenizer, weights = capsys.readouterr().err.splitlines()
    assert tokenizer.startswith("model.gguf: unpacking its tokenizer, once, to ")
    assert weights.startswith("model.gguf: unpacking its weights in float32, once, to ")
    load_causal_lm(file)
    load_tokenizer(file)
    load_causal_lm(file, random_init=True)
    assert capsys.readouterr().err == ""
    os.utime(file, ns=(0, 0))
    load_tokenizer(file)
    assert "unpacking its tokenizer" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"architecture": "rwkv9"}, r"cannot read the architecture 'rwkv9' from a \.gguf file .*a transformers folder"),
        ({"kind": "bert-like"}, r"cannot read a tokenizer of the kind 'bert-like' from a \.gguf file"),
        ({"tensors": {"rope_freqs.weight": np.full(2, 3, np.float32)}}, r"states rope scaling \(rope_freqs\.weight\)"),
        ({"fields": {"llama.rope.scaling.type": "yarn"}}, r"states rope scaling \(rope\.scaling\.type 'yarn'\)"),
        ({"fields": {"split.count": 3}}, r"one of 3 parts: join them with llama\.cpp's llama-gguf-split --merge"),
    ],
)
def test_what_transformers_cannot_read_is_named(tmp_path: Path, changed: dict[str, Any], line: str):
    file = write_gguf(tmp_path / "odd.gguf", llama(), **changed)
    for load in (load_tokenizer, load_causal_lm):
        with pytest.raises(UserError, match=line) as error:
            load(file)
        assert file in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.99])
def test_a_file_that_was_cut_short_is_told(file: str, share: float):
    content = Path(file).read_bytes()
    Path(file).write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match=rf"was cut short, at {int(share * len(content)):,} bytes .*download it again"):
        load_causal_lm(file)


def test_a_file_that_is_no_gguf_and_one_that_is_not_there_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "page.gguf").write_text("<html>")
    with pytest.raises(UserError, match=r"is no GGUF file: it begins with b'<htm', expected b'GGUF'"):
        load_tokenizer(str(tmp_path / "page.gguf"))
    with pytest.raises(UserError, match=r"no file '.*/none\.gguf'; expected a \.gguf file, or OWNER/REPOSITORY/FILE"):
        load_causal_lm(str(tmp_path / "none.gguf"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"'file\.gguf' of the hub's nobody/nothing could not be fetched \(offline"):
        load_causal_lm("nobody/nothing/file.gguf")


def test_a_file_of_the_hub_is_fetched_by_its_name(file: str, monkeypatch: pytest.MonkeyPatch):
    def fetched(repository: str, name: str, **_: Any) -> str:
        assert (repository, name) == ("owner/models", "small/model.gguf")
        return file

    monkeypatch.setattr("transformers.utils.hub.cached_file", fetched)
    assert load_tokenizer("owner/models/small/model.gguf").get_vocab()["hi"] == TOKENS.index("hi")


def test_without_the_extra_one_line_says_how_to_get_it(file: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(unpacking, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs two more packages: pip install 'lit-pref\[gguf\]'$"):
        load_tokenizer(file)


def test_a_cache_folder_that_cannot_be_written_is_told(file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "blocked").write_text("")
    monkeypatch.setenv("LIT_PREF_CACHE", str(tmp_path / "blocked"))
    with pytest.raises(UserError, match=r"cannot be unpacked to .*name another cache folder by LIT_PREF_CACHE"):
        load_tokenizer(file)


def test_a_conversation_needs_a_template_in_the_file(tmp_path: Path):
    tokenizer = load_tokenizer(write_gguf(tmp_path / "base.gguf", llama(), template=None))
    with pytest.raises(UserError, match="a conversation needs a chat template and this tokenizer has none"):
        tokenize_prompt(HI, tokenizer)
