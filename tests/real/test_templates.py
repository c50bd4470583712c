"""Tokens, templates and ends of pretrained models, against transformers' own rendering and its `generate`."""

import shutil
from pathlib import Path

import pytest
import torch

from lit_pref.data.tokens.tokenize import tokenize, tokenize_prompt
from lit_pref.errors import UserError
from lit_pref.generation import LocalGenerator
from lit_pref.machine.processors import multiplies_bf16
from lit_pref.models import load_causal_lm, load_tokenizer
from lit_pref.types import Message, PreferencePair, Sampling

pytestmark = pytest.mark.real


def turns(*contents: str, system: str = "") -> tuple[Message, ...]:
    """A user's turn first, then by turns."""
    said = [{"role": "user" if i % 2 == 0 else "assistant", "content": text} for i, text in enumerate(contents)]
    return tuple([{"role": "system", "content": system}] * bool(system) + said)  # type: ignore[arg-type]


PROMPTS = [
    turns("Say hello."),
    turns("Say hello.", system="Be brief."),
    turns("Count.", "1, 2", "Go on."),
    turns("Go", "1,"),
]


def test_prompts_are_the_tokens_of_transformers_own_rendering(model: str):
    tokenizer = load_tokenizer(model)
    for prompt in PROMPTS:
        goes_on = prompt[-1]["role"] == "assistant"
        ways = {"add_generation_prompt": not goes_on, "continue_final_message": goes_on, "return_dict": False}
        assert list(tokenize_prompt(prompt, tokenizer)) == tokenizer.apply_chat_template(list(prompt), **ways)


def test_a_response_ends_in_one_end_of_turn_and_a_text_too(model: str):
    tokenizer = load_tokenizer(model)
    assert tokenizer.eos_token == "<|im_end|>" and tokenizer.pad_token_id is not None
    chat = PreferencePair(PROMPTS[0], turns("", "Hello!")[1:], turns("", "Bye.\n")[1:])
    text = PreferencePair("def f(x):\n", "    return x", "    pass")
    for tree in tokenize([chat, text], tokenizer).trees:
        assert [ids.count(tokenizer.eos_token_id) for ids in tree.completion_ids] == [1, 1]
        assert all(ids[-1] == tokenizer.eos_token_id for ids in tree.completion_ids)
        prompt = PROMPTS[0] if "<|im_start|>" in tokenizer.decode(tree.prompt_ids) else "def f(x):\n"
        assert tree.prompt_ids == tokenize_prompt(prompt, tokenizer)


def test_greedy_samples_are_those_of_transformers_generate(smollm2: str):
    opened, tokenizer = load_causal_lm(smollm2), load_tokenizer(smollm2)
    drawn = LocalGenerator(opened, tokenizer, tokenize_prompt).generate(PROMPTS, 1, Sampling(0.0, max_new_tokens=16), 0)
    for prompt, (completion,) in zip(PROMPTS, drawn, strict=True):
        ids = torch.tensor([tokenize_prompt(prompt, tokenizer)])
        whole = opened.generate(ids, max_new_tokens=16, do_sample=False, attention_mask=torch.ones_like(ids))
        assert completion.token_ids == tuple(whole[0, ids.shape[1] :].tolist())


def test_a_conversation_without_a_template_is_refused_with_what_to_do(smollm2: str, tmp_path: Path):
    for file in Path(smollm2).glob("tokenizer*"):
        shutil.copy(file, tmp_path)
    tokenizer = load_tokenizer(str(tmp_path))
    with pytest.raises(UserError, match=r"needs a chat template and this tokenizer has none.*--task\.style completion"):
        tokenize_prompt(PROMPTS[0], tokenizer)
    assert tokenize_prompt("def f(x):\n", tokenizer)


def test_a_gguf_file_is_the_model_of_its_folder(gguf_file: str, smollm2: str):
    """The folder is expected to be made of the file: its weights, rounded to bf16."""
    unpacked, folder = (load_causal_lm(name, dtype="bfloat16") for name in (gguf_file, smollm2))
    theirs = folder.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in unpacked.state_dict().items())
    ours, other = load_tokenizer(gguf_file), load_tokenizer(smollm2)
    assert ours.chat_template == other.chat_template and ours.eos_token_id == other.eos_token_id
    text = "def f(x):\n\treturn  'ä' + 12345 # <|im_end|>\r\n\n  …"
    assert ours(text).input_ids == other(text).input_ids


@pytest.mark.skipif(not multiplies_bf16(), reason="this processor has no bf16 instructions")
def test_half_precision_says_nearly_the_same(model: str):
    ids = torch.tensor([tokenize_prompt(PROMPTS[0], load_tokenizer(model))])
    with torch.no_grad():
        half, whole = (
            load_causal_lm(model, dtype=dtype)(ids).logits[0, -1].float().softmax(-1)
            for dtype in ("bfloat16", "float32")
        )
    assert half.argmax() == whole.argmax()
    assert (half - whole).abs().sum() / 2 < 0.05  # total variation
