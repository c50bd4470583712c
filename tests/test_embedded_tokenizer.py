import runpy
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from lit_pref.tasks import CodeTask

SCRIPT = Path(__file__).parents[1] / "configs" / "embedded" / "tokenizer.py"
train_tokenizer = runpy.run_path(str(SCRIPT))["train_tokenizer"]


@pytest.fixture(scope="module")
def samples():
    return [(one.prompt, one.completion) for one in CodeTask(bug_rate=0.5).demonstrations("train", 2000, seed=0)]


@pytest.fixture(scope="module")
def tokenizer(samples):
    return train_tokenizer(prompt + completion for prompt, completion in samples)


def test_size_and_special_tokens(tokenizer):
    # 2 special tokens and 256 bytes are always there; the rest is learned
    assert 2 + 256 < len(tokenizer) <= 1024
    assert (tokenizer.eos_token, tokenizer.pad_token, tokenizer.bos_token) == ("<eos>", "<pad>", None)
    assert tokenizer.eos_token_id != tokenizer.pad_token_id
    assert tokenizer.encode("<eos>") == [tokenizer.eos_token_id]


def test_nothing_is_added_to_a_text(tokenizer):
    ids = tokenizer.encode("return x")
    assert ids == tokenizer.encode("return x", add_special_tokens=False)
    assert not {tokenizer.eos_token_id, tokenizer.pad_token_id} & set(ids)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "\n",
        "a  b",
        " a , b ( c ) .",
        "don 't",
        "\tif x:\r\n\t\ty\n\n\n  z ",
        "naïve – 試 🙂",
        "1234.50",
        "x:\n\n  y: \n",
    ],
)
def test_decoding_gives_any_text_back(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_samples_survive_and_prompt_and_completion_can_be_tokenized_apart(tokenizer, samples):
    for prompt, completion in samples:
        together = tokenizer.encode(prompt + completion)
        assert tokenizer.decode(together) == prompt + completion
        assert tokenizer.encode(prompt) + tokenizer.encode(completion) == together


@pytest.mark.parametrize("completion", ["", "return x", "\n    x", " x", "     x", "1"])
def test_after_a_header_even_a_wrong_completion_gives_the_same_tokens_apart(tokenizer, completion):
    prompt = "# add 1\ndef solve(n):\n"
    assert tokenizer.encode(prompt) + tokenizer.encode(completion) == tokenizer.encode(prompt + completion)


def test_digits_stand_alone(tokenizer):
    pieces = [tokenizer.decode([token]) for token in tokenizer.encode("x = 2024 + 7")]
    assert [piece for piece in pieces if any(map(str.isdigit, piece))] == ["2", "0", "2", "4", "7"]


def test_a_newline_and_its_indentation_are_one_token_except_after_a_colon(tokenizer):
    body = "    if n > 3:\n        return n\n    return n\n"
    pieces = [tokenizer.decode([token]) for token in tokenizer.encode(body)]
    assert [piece for piece in pieces if piece.isspace() and piece != " "] == [
        "    ",
        "\n",
        "        ",
        "\n    ",
        "\n",
    ]


def test_samples_are_short(tokenizer, samples):
    # the embedded models are sized for about 57 tokens a sample with EOS
    lengths = [len(tokenizer.encode(prompt + completion)) + 1 for prompt, completion in samples]
    assert sum(lengths) / len(lengths) < 60
    assert max(lengths) < 128


def test_training_twice_gives_the_same_tokenizer(samples):
    first, second = (train_tokenizer((p + c for p, c in samples[:300]), vocab_size=400) for _ in range(2))
    assert len(first) == 400
    assert first.get_vocab() == second.get_vocab()


def test_a_saved_tokenizer_opens_the_same(tokenizer, samples, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    opened = AutoTokenizer.from_pretrained(tmp_path)
    assert (opened.eos_token_id, opened.pad_token_id) == (tokenizer.eos_token_id, tokenizer.pad_token_id)
    for prompt, completion in samples[:50]:
        assert opened.encode(prompt + completion) == tokenizer.encode(prompt + completion)
        assert opened.decode(opened.encode(prompt + completion)) == prompt + completion
