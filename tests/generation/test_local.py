"""Sampling: its log-probs are the model's, its draws follow the distribution, and shared prefixes change nothing."""

import math
from copy import deepcopy

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lit_pref.errors import UserError
from lit_pref.generation import LocalGenerator, decoding, local
from lit_pref.generation.draws import draw
from lit_pref.generation.slots import SlotRows
from lit_pref.types import Sampling

WORDS = ["<eos>", "<pad>", *(f"w{i}" for i in range(14))]
PROMPTS = ["w1 w2 w3", "w4", "w5 w6 w7 w8 w9", "w2 w3"]


def encode(prompt, tokenizer):
    return tokenizer(prompt)["input_ids"]


@pytest.fixture(scope="module")
def tokenizer():
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<pad>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<eos>", pad_token="<pad>")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        initializer_range=0.6,  # far from uniform, so that a wrong mask or position would show
        eos_token_id=0,
    )
    return LlamaForCausalLM(config).eval()


def plain_logps(model, prompt, completion):
    """Log-prob of each completion token by one forward pass over the whole sequence."""
    logits = model(torch.tensor([[*prompt, *completion]])).logits[0]
    scored = logits.log_softmax(-1)[len(prompt) - 1 : -1]
    return scored.gather(-1, torch.tensor(completion)[:, None]).squeeze(-1)


SIZE = {
    "vocab_size": len(WORDS),
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
    "pad_token_id": 1,
    "eos_token_id": 0,
}
WINDOWS = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 4, "query_pre_attn_scalar": 8}
OTHERS = {
    "llama": {},
    "gpt2": {},  # learned positions
    "mistral": {"sliding_window": 4},  # a cache that forgets, shorter than prompt and completion
    "gemma3_text": WINDOWS,
    "bloom": {},  # positions from columns
    "mamba": {},  # no keys and values at all
}


def of_type(model_type, **settings):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = AutoConfig.for_model(model_type, **SIZE | OTHERS[model_type] | settings)
        return AutoModelForCausalLM.from_config(config).eval()


@pytest.mark.parametrize("model_type", OTHERS)
def test_kept_log_probs_are_right_for_other_architectures(model_type, tokenizer):
    other = of_type(model_type)
    for tokens in (1, 1000):
        completions = LocalGenerator(other, tokenizer, encode, tokens).generate(
            PROMPTS, 5, Sampling(max_new_tokens=8), seed=1
        )
        for prompt, several in zip(PROMPTS, completions, strict=True):
            for completion in several:
                with torch.no_grad():
                    expected = plain_logps(other, encode(prompt, tokenizer), list(completion.token_ids))
                torch.testing.assert_close(torch.tensor(completion.logps), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("tokens", [1, 60, 1024])  # one sample at a time, 4 or 5 of the 24, all of them
def test_kept_log_probs_are_those_of_a_plain_forward_pass(model, tokenizer, tokens):
    generator = LocalGenerator(model, tokenizer, encode, tokens)
    completions = generator.generate(PROMPTS, 6, Sampling(max_new_tokens=8), seed=1)
    for prompt, several in zip(PROMPTS, completions, strict=True):
        assert len(several) == 6
        for completion in several:
            with torch.no_grad():
                expected = plain_logps(model, encode(prompt, tokenizer), list(completion.token_ids))
            torch.testing.assert_close(torch.tensor(completion.logps), expected, atol=1e-5, rtol=0)


def test_greedy_takes_the_likeliest_token_at_every_step(model, tokenizer):
    generator = LocalGenerator(model, tokenizer, encode)
    for prompt, (completion, copy) in zip(
        PROMPTS, generator.generate(PROMPTS, 2, Sampling(temperature=0, max_new_tokens=8), seed=0), strict=True
    ):
        ids = encode(prompt, tokenizer)
        with torch.no_grad():
            for token in completion.token_ids:
                assert token == model(torch.tensor([ids])).logits[0, -1].argmax().item()
                ids = [*ids, token]
        assert copy == completion


def test_completions_end_with_eos_or_at_the_limit(model, tokenizer):
    completions = LocalGenerator(model, tokenizer, encode).generate(PROMPTS, 16, Sampling(max_new_tokens=5), seed=3)
    flat = [completion for several in completions for completion in several]
    assert any(c.finished for c in flat) and any(not c.finished for c in flat)
    for completion in flat:
        assert completion.finished == (completion.token_ids[-1] == 0)
        assert 0 not in completion.token_ids[:-1]
        assert completion.finished or len(completion.token_ids) == 5
        assert "<eos>" not in completion.text
        assert len(completion.text.split()) == sum(token > 1 for token in completion.token_ids)  # 0, 1 are special


def test_samples_of_a_prompt_follow_its_distribution(model, tokenizer):
    # Two tokens deep, so that samples share a prefix and then part: the joint frequency of each first and second token
    # stays within 5 standard deviations of its probability.
    count = 4000
    (several,) = LocalGenerator(model, tokenizer, encode, count).generate(
        ["w1 w2 w3"], count, Sampling(max_new_tokens=2), seed=0
    )
    prompt = encode("w1 w2 w3", tokenizer)
    with torch.no_grad():
        first = model(torch.tensor([prompt])).logits[0, -1].softmax(-1)
        for a in range(1, len(WORDS)):
            second = model(torch.tensor([[*prompt, a]])).logits[0, -1].softmax(-1)
            for b in range(len(WORDS)):
                p = (first[a] * second[b]).item()
                seen = sum(c.token_ids == (a, b) for c in several) / count
                assert abs(seen - p) <= 5 * math.sqrt(p * (1 - p) / count) + 1 / count


def test_the_seed_decides(model, tokenizer):
    generator = LocalGenerator(model, tokenizer, encode)
    first, again, other = (generator.generate(PROMPTS, 4, Sampling(max_new_tokens=6), seed) for seed in (7, 7, 8))
    assert first == again
    assert first != other


def test_temperature_and_top_p_shape_the_draws():
    # p = (0.5, 0.3, 0.2): top_p 0.7 keeps the first two (0.5 < 0.7 is reached only by the second), as 5/8 and 3/8.
    logits = torch.tensor([[0.5, 0.3, 0.2]]).log()
    row, uniform = torch.zeros(8000, dtype=torch.long), torch.rand(8000, dtype=torch.float64)
    token = torch.tensor(draw(logits, row, Sampling(top_p=0.7), uniform).tokens)
    assert token.max() == 1
    assert abs((token == 0).double().mean().item() - 5 / 8) < 5 * math.sqrt(5 / 8 * 3 / 8 / 8000)
    # temperature 1/2 squares: 25 : 9 : 4
    token = torch.tensor(draw(logits, row, Sampling(temperature=0.5), uniform).tokens)
    assert abs((token == 0).double().mean().item() - 25 / 38) < 5 * math.sqrt(25 / 38 * 13 / 38 / 8000)


def test_a_token_without_probability_is_never_drawn():
    logits = torch.tensor([[-math.inf, 0.0, -math.inf], [0.0, -math.inf, -math.inf]])
    row = torch.tensor([0, 1] * 500)
    uniform = torch.linspace(0, 1 - 1e-9, 1000, dtype=torch.float64)  # both ends of it
    assert draw(logits, row, Sampling(), uniform).tokens == [1, 0] * 500
    assert draw(logits, row, Sampling(top_p=0.9), uniform).tokens == [1, 0] * 500


def test_the_model_keeps_its_mode_and_weights(model, tokenizer):
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    LocalGenerator(model, tokenizer, encode).generate(PROMPTS, 1, Sampling(max_new_tokens=2), seed=0)
    assert model.training
    model.eval()
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_progress_is_told(model, tokenizer):
    seen = []
    generator = LocalGenerator(model, tokenizer, encode, on_progress=lambda done, tokens: seen.append((done, tokens)))
    completions = generator.generate(PROMPTS, 2, Sampling(max_new_tokens=2), seed=0)
    tokens = sum(len(each.token_ids) for several in completions for each in several)
    assert seen[-1] == (8, tokens)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen} - {0})  # told where some ended


def test_progress_is_told_now_and_then_while_nothing_ends(model, tokenizer, monkeypatch):
    monkeypatch.setattr(local, "_QUIET", -1.0)  # at every step
    seen = []
    generator = LocalGenerator(model, tokenizer, encode, on_progress=lambda done, tokens: seen.append((done, tokens)))
    generator.generate(["w1"] * 4, 2, Sampling(temperature=0, max_new_tokens=3), seed=0)
    assert [tokens for _, tokens in seen] == [4, 8, 12]  # one a prompt and step: greedy samples are copies


def test_bad_settings_are_refused(model, tokenizer):
    with pytest.raises(ValueError, match="samples must be >= 1, got 0"):
        LocalGenerator(model, tokenizer, encode).generate(PROMPTS, 0, Sampling(), seed=0)
    for temperature in (-1, math.nan, math.inf, 1e-300):
        with pytest.raises(ValueError, match=rf"temperature must be >= 0, got {temperature}"):
            Sampling(temperature=temperature)
    for top_p in (0, math.nan, 1.5):
        with pytest.raises(ValueError, match=rf"top_p must be in \(0, 1\], got {top_p}"):
            Sampling(top_p=top_p)
    with pytest.raises(ValueError, match="max_new_tokens must be >= 1, got 0"):
        Sampling(max_new_tokens=0)


def test_the_coldest_temperature_is_greedy_but_for_ties():
    logits = torch.tensor([[300.0, -4000.0, 299.0], [-math.inf, -5.0, -6.0]])
    uniform = torch.rand(100, dtype=torch.float64)
    assert draw(logits, torch.tensor([0, 1] * 50), Sampling(temperature=1e-5), uniform).tokens == [0, 1] * 50


def test_a_prompt_without_tokens_is_named(model, tokenizer):
    with pytest.raises(UserError, match="prompt 1 has no token"):
        LocalGenerator(model, tokenizer, encode).generate(["w1", "", "w2"], 1, Sampling(), seed=0)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_no_numbers_name_their_prompt(model, tokenizer, value, temperature):
    broken = deepcopy(model)
    broken.get_input_embeddings().weight.data[9] = value  # w7, which only the second prompt holds
    generator = LocalGenerator(broken, tokenizer, encode, max_tokens_per_batch=12)
    with pytest.raises(UserError, match="prompt 1: the model's largest logit is nan"):
        generator.generate(["w1 w2 w3", "w7 w4", "w5"], 2, Sampling(temperature, max_new_tokens=2), seed=0)


def test_a_tokenizer_beyond_the_embedding_is_refused_with_both_sizes(model, tokenizer):
    small = of_type("gpt2", vocab_size=12)
    with pytest.raises(UserError, match=r"16 tokens and GPT2LMHeadModel embeddings for 12.*resize_token_embeddings"):
        LocalGenerator(small, tokenizer, encode).generate(["w1"], 1, Sampling(), seed=0)


class Steps:
    """How many sequences each forward pass of a model decodes or reads."""

    def __init__(self, model):
        self.rows, self.columns = [], []
        self._handle = model.register_forward_pre_hook(self._note, with_kwargs=True)

    def _note(self, model, args, kwargs):
        self.rows.append(kwargs["input_ids"].shape[0])
        self.columns.append(kwargs["input_ids"].shape[1])

    def stop(self):
        self._handle.remove()


def test_what_a_sample_is_depends_on_no_other_one_beside_it(model, tokenizer):
    sampling = Sampling(max_new_tokens=8)
    alone, some, all_of_them = (
        LocalGenerator(model, tokenizer, encode, tokens).generate(PROMPTS, 6, sampling, seed=1)
        for tokens in (1, 60, 999)
    )
    ids = [[[each.token_ids for each in several] for several in found] for found in (alone, some, all_of_them)]
    assert ids[0] == ids[1] == ids[2]
    assert len({each for several in ids[0] for each in several}) > 12  # they are not all alike


def test_a_sample_that_ends_makes_room_for_the_next_prompt(model, tokenizer):
    prompts, sampling = ["w1 w2 w3"] * 12, Sampling(max_new_tokens=30)
    decoding.decoding(model)  # has tried the model
    steps = Steps(model)
    generator = LocalGenerator(model, tokenizer, encode, 4 * (3 + 30))
    lengths = [len(several[0].token_ids) for several in generator.generate(prompts, 1, sampling, seed=0)]
    steps.stop()
    decoded = [rows for rows, columns in zip(steps.rows, steps.columns, strict=True) if columns == 1]
    assert len(set(lengths)) > 4  # they end at different steps
    # Each prompt takes one step a token; with four side by side, nobody waits for the longest of a batch.
    batches = sum(max(lengths[start : start + 4]) for start in range(0, 12, 4))
    assert sum(decoded) == sum(lengths)
    assert len(decoded) < batches
    assert max(decoded) == 4


def test_samples_that_are_done_are_not_drawn_again(model, tokenizer):
    generator, sampling = LocalGenerator(model, tokenizer, encode), Sampling(max_new_tokens=8)
    whole = {each[:2]: each.completion for each in generator.each(PROMPTS, 3, sampling, seed=1)}
    assert set(whole) == {(prompt, sample) for prompt in range(4) for sample in range(3)}
    done = [(0, 0), (0, 2), (1, 0), (1, 1), (1, 2), (3, 1)]
    rest = {each[:2]: each.completion for each in generator.each(PROMPTS, 3, sampling, seed=1, done=done)}
    assert {key: each.token_ids for key, each in rest.items()} == {
        key: each.token_ids for key, each in whole.items() if key not in done
    }


def test_completions_come_as_they_end_and_leave_gradients_on(model, tokenizer):
    generator = LocalGenerator(model, tokenizer, encode)
    stream = generator.each(["w1 w2 w3"] * 8, 1, Sampling(max_new_tokens=30), seed=0)
    lengths = []
    for drawn in stream:
        assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
        lengths.append(len(drawn.completion.token_ids))
    assert lengths == sorted(lengths) and lengths[0] < lengths[-1]


def test_a_prompt_with_more_samples_than_have_room_is_taken_in_parts(model, tokenizer):
    generator, sampling = LocalGenerator(model, tokenizer, encode, 2 * (3 + 8)), Sampling(max_new_tokens=8)
    steps = Steps(model)
    (several,) = generator.generate(["w1 w2 w3"], 7, sampling, seed=1)
    steps.stop()
    assert max(steps.rows) <= 2
    (together,) = LocalGenerator(model, tokenizer, encode).generate(["w1 w2 w3"], 7, sampling, seed=1)
    assert [each.token_ids for each in several] == [each.token_ids for each in together]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_completion_ends_before_the_first_stop_text(model, tokenizer, temperature):
    sampling = Sampling(temperature, max_new_tokens=12)
    free = LocalGenerator(model, tokenizer, encode).generate(PROMPTS, 2, sampling, seed=5)
    words = [each.text.split() for several in free for each in several if len(each.text.split()) > 2]
    stop = (f" {words[0][1]}", "never")  # the second word of some completion, wherever it comes behind another
    stopped = LocalGenerator(model, tokenizer, encode).generate(
        PROMPTS, 2, Sampling(temperature, max_new_tokens=12, stop=stop), seed=5
    )
    cut = 0
    for several, others in zip(free, stopped, strict=True):
        for whole, ended in zip(several, others, strict=True):
            assert ended.text == whole.text.split(stop[0])[0]
            assert ended.token_ids == whole.token_ids[: len(ended.token_ids)]
            if stop[0] in whole.text:
                cut += 1
                assert ended.finished and tokenizer.decode(ended.token_ids).endswith(stop[0])
            else:
                assert (ended.text, ended.token_ids, ended.finished) == (whole.text, whole.token_ids, whole.finished)
    assert cut


def test_a_draw_of_a_large_vocabulary_is_where_its_distribution_puts_it():
    # 1,300 tokens are three blocks; token i has the weight i + 1, so that the first k hold k (k + 1) / (n (n + 1)).
    n = 1300
    logits = torch.arange(1, n + 1).double().log().float()[None]
    uniform = torch.linspace(0, 1 - 1e-12, 5001, dtype=torch.float64)
    tokens = draw(logits, torch.zeros(5001, dtype=torch.long), Sampling(), uniform).tokens
    for token, u in zip(tokens, uniform.tolist(), strict=True):
        assert token * (token + 1) / (n * (n + 1)) - 1e-6 <= u <= (token + 1) * (token + 2) / (n * (n + 1)) + 1e-6


def test_a_nucleus_of_more_tokens_than_are_sorted_at_first():
    logits = torch.zeros(1, 1000)  # all alike: top_p 0.7 keeps 700 of them
    uniform = torch.linspace(0, 1 - 1e-12, 4000, dtype=torch.float64)
    tokens = draw(logits, torch.zeros(4000, dtype=torch.long), Sampling(top_p=0.7), uniform).tokens
    assert len(set(tokens)) == 700


@pytest.mark.parametrize("model_type", ["llama", "bloom"])  # in slots, and side by side with padding
def test_the_head_reads_the_last_tokens_alone_and_as_one_block(model_type, tokenizer):
    # Of last columns that lie apart torch's bf16 product on CPUs makes a copy of the head's weights for each row.
    other = of_type(model_type)
    decoding.decoding(other)
    seen = []
    handle = other.get_output_embeddings().register_forward_hook(lambda head, given, out: seen.append(given[0]))
    LocalGenerator(other, tokenizer, encode).generate(PROMPTS, 2, Sampling(max_new_tokens=3), seed=0)
    handle.remove()
    assert len(seen) <= 3  # a step each: prompts themselves go through no head
    assert all(given.is_contiguous() and given.shape[1] == 1 for given in seen)


def test_samples_of_a_prompt_share_its_keys():
    model = of_type("llama")
    with torch.inference_mode():
        rows = SlotRows(model)
        rows.add([[3, 4, 5, 6, 7], [8, 9]])
        rows.step([2, 3])
        rows.keep([0, 0, 0, 1, 1])
        rows.step([4, 5, 6, 7, 8])
    layer = rows._slots.layers[0]
    assert len(layer.prompts.keys) == 2  # one each, whatever goes on from it
    own = layer.own.keys[:5, :, :3].abs().sum((1, 3)) > 0
    assert own.tolist() == [[True, True, False]] * 5  # the prompt's last token and the new one are the rows' own
