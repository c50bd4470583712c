from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lit_pref.errors import UserError
from lit_pref.models.causal_lm import load_causal_lm, weights_fingerprint
from lit_pref.models.export import export_model

CONFIG = LlamaConfig(
    vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, eos_token_id=0
)


@pytest.fixture
def model() -> LlamaForCausalLM:
    return LlamaForCausalLM(CONFIG)


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    words = WordLevel({"<eos>": 0, "a": 1, "b": 2}, unk_token="a")
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(words), eos_token="<eos>")


def test_the_folder_opens_in_transformers(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    folder = export_model(model, tokenizer, tmp_path / "deep" / "model")
    assert capfd.readouterr().err == ""  # no progress bar for a tiny model
    assert (folder / "model.safetensors").is_file()
    assert not list(folder.glob("*.bin"))
    assert [path.name for path in folder.parent.iterdir()] == ["model"]  # nothing temporary is left
    ids = torch.tensor([[1, 2, 1]])
    opened = AutoModelForCausalLM.from_pretrained(folder)
    torch.testing.assert_close(opened(input_ids=ids).logits, model.eval()(input_ids=ids).logits)
    assert AutoTokenizer.from_pretrained(folder).eos_token == "<eos>"
    assert weights_fingerprint(load_causal_lm(str(folder))) == weights_fingerprint(model)


def test_a_folder_that_holds_something_is_left_alone(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
):
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match=r"taken.*is not empty"):
        export_model(model, tokenizer, taken)
    assert [path.name for path in taken.iterdir()] == ["thesis.tex"]
    with pytest.raises(UserError, match="a file stands there"):
        export_model(model, tokenizer, taken / "thesis.tex")
    (tmp_path / "empty").mkdir()
    assert (export_model(model, tokenizer, tmp_path / "empty") / "config.json").is_file()


def test_a_failure_leaves_nothing_behind(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full_disk(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tokenizer, "save_pretrained", full_disk)
    with pytest.raises(UserError, match="model: the disk is full"):
        export_model(model, tokenizer, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []
