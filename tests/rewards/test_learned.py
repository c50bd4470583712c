"""Scores of any completions, against plain forward passes of single sequences."""

from typing import Any

import pytest
import torch
from torch import Tensor

from lit_pref.data.batches.packing import collate_trees
from lit_pref.errors import UserError
from lit_pref.modules import Compute, RewardFinetuneModule
from lit_pref.rewards import learned as scoring
from lit_pref.rewards.learned import Candidates, score
from tests.tiny import saved, tiny_llama

PROMPTS = [
    Candidates("def add(a, b):\n", ["    return a + b", "    return a - b", "    return a + b", "    pass"]),
    Candidates("x = 1\n", ["y = x"]),
    Candidates("# the largest of two numbers\n", ["max(a, b)", "    c = a\n    return c"]),
]


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> str:
    return saved(tmp_path_factory.mktemp("policy") / "model", tiny_llama(attention_dropout=0.5))


def reward(policy: str, **settings: Any) -> RewardFinetuneModule:
    return RewardFinetuneModule(policy, **{"head_std": 1.0, **settings})


def plain(module: RewardFinetuneModule, prompt: str, completion: str, end: tuple[int, ...] = (0,)) -> float:
    """One unpadded sequence, read at its last token."""
    ids = [*module.tokenizer(prompt).input_ids, *module.tokenizer(completion).input_ids, *end]
    module.model.eval()
    with torch.no_grad():
        hidden = module.model.base_model(torch.tensor([ids])).last_hidden_state[0, -1]
    return float(hidden @ module.score_head.weight[0].detach())


def check(found: list[Tensor], module: RewardFinetuneModule, **settings: Any) -> None:
    expected = [[plain(module, each.prompt, text, **settings) for text in each.completions] for each in PROMPTS]
    assert [values.dtype for values in found] == [torch.float32] * 3
    for values, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(values, torch.tensor(wanted), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layout", ["packed", "shared", "repeated"])
@pytest.mark.parametrize("max_tokens", [1, 40, 10_000])
def test_scores_equal_plain_forwards_in_the_order_given(policy: str, layout: Any, max_tokens: int) -> None:
    module = reward(policy, compute=Compute(layout=layout))
    check(score(module, PROMPTS, max_tokens), module)


def test_without_an_eos_the_last_token_of_the_text_is_read(policy: str) -> None:
    module = reward(policy, append_eos=False)
    check(score(module, PROMPTS), module, end=())


def test_dropout_is_off_and_the_mode_stays(policy: str) -> None:
    module = reward(policy)
    module.model.train()
    found = score(module, PROMPTS)
    assert module.model.training
    check(found, module)


def test_equal_completions_have_equal_scores_and_are_scored_once(
    policy: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(scoring, "_LONG", 6)
    found = score(reward(policy), PROMPTS, max_tokens=1)
    assert found[0][0] == found[0][2] and len({*found[0].tolist()}) == 3
    assert capsys.readouterr().out.startswith("Scoring (6) ...")  # of 7


@pytest.mark.parametrize(("append_eos", "end"), [(True, (0,)), (False, ())])
def test_sampled_tokens_are_taken_as_they_are_but_for_an_eos_that_is_not_scored(
    policy: str, append_eos: bool, end: tuple[int, ...]
) -> None:
    module = reward(policy, append_eos=append_eos)
    split = tuple(token for letter in "y = x" for token in module.tokenizer(letter).input_ids)
    whole = tuple(module.tokenizer("y = x").input_ids)
    assert split != whole  # another way to the same text
    (found,) = score(module, [Candidates("x = 1\n", ["y = x"] * 3, [(*split, 0), None, split])])
    prompt = module.tokenizer("x = 1\n").input_ids
    for value, ids in zip(found.tolist(), [(*split, *end), (*whole, *end), split], strict=True):
        with torch.no_grad():
            hidden = module.model.base_model(torch.tensor([[*prompt, *ids]])).last_hidden_state[0, -1]
        assert value == pytest.approx(float(hidden @ module.score_head.weight[0].detach()), abs=1e-5)


def test_a_conversation_is_answered_by_an_assistant_s_turn(policy: str) -> None:
    module = reward(policy)
    module.tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    turns = ({"role": "user", "content": "add"},)
    answers = ["a + b", ({"role": "assistant", "content": "a - b"},)]
    (found,) = score(module, [Candidates(turns, answers)])
    for value, text in zip(found.tolist(), ("a + b\n", "a - b\n"), strict=True):
        assert value == pytest.approx(plain(module, "user: add\nassistant: ", text), abs=1e-5)


def test_an_empty_completion_without_an_eos_is_the_last_of_all(policy: str) -> None:
    prompts = [Candidates("x", ["", "y"]), Candidates("y", [""])]
    first, second = score(reward(policy, append_eos=False), prompts)
    assert first[0] == second[0] == -torch.inf and first[1].isfinite()
    assert all(values.isfinite().all() for values in score(reward(policy), prompts))


def test_what_cannot_be_scored(policy: str) -> None:
    with pytest.raises(UserError, match="a prompt has no token and the tokenizer no BOS"):
        score(reward(policy), [Candidates("", ["y"])])
    with pytest.raises(ValueError, match="max_tokens must be >= 1, got 0"):
        score(reward(policy), PROMPTS, max_tokens=0)
    assert score(reward(policy), []) == []


@pytest.mark.parametrize("layout", ["packed", "shared", "repeated"])
@pytest.mark.parametrize("max_tokens", [7, 12, 30, 64])
def test_no_batch_takes_more_than_its_budget(
    policy: str, layout: Any, max_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    def collate(rows: Any, pad: int, shared: bool) -> Any:
        batch = collate_trees(rows, pad, shared)
        sizes.append((batch.input_ids_BT.numel(), len(batch.length_K)))
        return batch

    monkeypatch.setattr(scoring, "collate_trees", collate)
    score(reward(policy, compute=Compute(layout=layout)), PROMPTS, max_tokens)
    assert all(tokens <= max_tokens or completions == 1 for tokens, completions in sizes)
    assert sum(completions for _, completions in sizes) == 6  # distinct ones
    if max_tokens == 64:
        assert len(sizes) < 4
