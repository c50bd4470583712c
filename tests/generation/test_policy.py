"""A policy by its name: the samples of the model that it names, wherever it is opened."""

import pickle

import pytest

from lit_pref.data.tokens.tokenize import tokenize_prompt
from lit_pref.errors import UserError
from lit_pref.generation import LocalGenerator
from lit_pref.generation.policy import PolicyGenerator, open_policy
from lit_pref.models import load_causal_lm, load_tokenizer, weights_fingerprint
from lit_pref.types import Sampling

NAME = "embedded:coder-weak"
PROMPTS = [f"# add {i} to x\ndef solve(x):\n" for i in range(5)]
SAMPLING = Sampling(max_new_tokens=8)


def test_it_samples_what_the_named_model_samples_in_batches_of_its_size() -> None:
    model = LocalGenerator(load_causal_lm(NAME), load_tokenizer(NAME), tokenize_prompt, max_tokens_per_batch=40)
    expected = model.generate(PROMPTS, 1, SAMPLING, seed=3)
    assert PolicyGenerator(NAME, max_tokens_per_batch=40).generate(PROMPTS, 1, SAMPLING, 3) == expected
    sent = pickle.loads(pickle.dumps(PolicyGenerator(NAME, max_tokens_per_batch=40)))
    assert sent.generate(PROMPTS, 1, SAMPLING, 3) == expected


def test_its_weights_tell_it_apart() -> None:
    assert PolicyGenerator(NAME).weights == weights_fingerprint(load_causal_lm(NAME))
    assert PolicyGenerator("embedded:coder").weights != PolicyGenerator(NAME).weights


def test_a_policy_that_there_is_not_is_refused_when_it_is_asked() -> None:
    with pytest.raises(UserError, match="embedded:koder"):
        PolicyGenerator("embedded:koder").generate(PROMPTS, 1, SAMPLING, 0)


def test_it_samples_in_the_precision_that_is_asked_for() -> None:
    rounded = load_causal_lm(NAME, dtype="bfloat16")
    expected = LocalGenerator(rounded, load_tokenizer(NAME), tokenize_prompt).generate(PROMPTS, 1, SAMPLING, 3)
    assert PolicyGenerator(NAME, dtype="bfloat16").generate(PROMPTS, 1, SAMPLING, 3) == expected
    trained = open_policy(NAME, load_causal_lm(NAME), dtype="bfloat16")
    assert trained.weights == weights_fingerprint(rounded)
    assert trained.generator().generate(PROMPTS, 1, SAMPLING, 3) == expected
