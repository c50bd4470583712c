"""Pairs and passing samples from execution: once on the real code task with the real sandbox and the shipped policy,
else on a task that runs nothing, with a policy that writes single letters.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from lightning.pytorch import seed_everything
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lit_pref.callbacks import BeforeAfter
from lit_pref.data.formats.pairs import read_pairs
from lit_pref.data.tokens.tokenize import tokenize
from lit_pref.datamodules import ExecutionPairsDataModule, PassingSamplesDataModule, Samples
from lit_pref.errors import UserError
from lit_pref.evaluation import PairAccuracy
from lit_pref.generation import LocalGenerator
from lit_pref.losses import DPO
from lit_pref.models import EMBEDDED_FOLDER, LoRA, load_tokenizer
from lit_pref.modules import DPOModule, SFTModule
from lit_pref.tasks import CodeTask
from lit_pref.types import Drawn, Message, Outcome, Problem, Sampling, Split, Task, TokenTree, Verdict
from tests.tiny import saved, trainer_for

LETTERS = range(66, 80)  # a to n in the embedded tokenizer


class Parity(Task):
    """Passes completions of an even number of characters, and counts the gradings; `only` passes or fails all."""

    name = "parity"

    def __init__(self, only: Outcome | None = None) -> None:
        self.graded, self.only = 0, only

    def problems(self, split: Split, count: int, seed: int) -> list[Problem]:
        return [Problem(f"{split}-{seed}-{i}", f"# {split} {seed} {i}\n", "") for i in range(count)]

    def grade(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[Verdict]:
        self.graded += len(completions)
        even = {True: Outcome.PASSED, False: Outcome.FAILED}
        return [Verdict(self.only or even[len(text) % 2 == 0]) for text in completions]


def brief_llama(seed: int = 0) -> LlamaForCausalLM:
    """One direction of its stream is constant, and only the letters and EOS follow it."""
    config = LlamaConfig(
        vocab_size=884,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        initializer_range=0.3,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=1,
    )
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
        model.model.embed_tokens.weight[:, 0] = 10.0
        model.lm_head.weight[:, 0] = -3.0
        model.lm_head.weight[[0, *LETTERS], 0] = 1.0
    return model


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> str:
    return saved(tmp_path_factory.mktemp("policy") / "model", brief_llama())


@pytest.fixture
def sampled(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of prompts of every call of the generator."""
    calls: list[int] = []
    each = LocalGenerator.each

    def counted(self: LocalGenerator, prompts: Any, *arguments: Any) -> Iterator[Drawn]:
        calls.append(len(prompts))
        return each(self, prompts, *arguments)

    monkeypatch.setattr(LocalGenerator, "each", counted)
    return calls


def pairs_of(task: Task | None = None, **settings: Any) -> ExecutionPairsDataModule:
    sizes = {"train_size": 12, "validation_size": 6, "test_size": 6, "batch_size": 4}
    return ExecutionPairsDataModule(task or Parity(), **(sizes | settings))


def made(data: Any, policy: str, folder: Path) -> Any:
    """Set up through a Trainer, without a step."""
    trainer_for(folder, limit_train_batches=0, limit_val_batches=0).fit(SFTModule(policy), data)
    return data


def decoded(tree: TokenTree) -> tuple[str, ...]:
    """The prompt's text, then those of its completions; each must end with its one EOS."""
    tokenizer = load_tokenizer(str(EMBEDDED_FOLDER / "tokenizer"))
    assert all(ids[-1] == 0 and 0 not in ids[:-1] for ids in tree.completion_ids)
    return tuple(tokenizer.decode(ids, skip_special_tokens=True) for ids in (tree.prompt_ids, *tree.completion_ids))


# --- the real task ----------------------------------------------------------------------------------------------------


def test_pairs_of_the_shipped_policy_hold_what_they_say(tmp_path: Path, sampled: list[int]):
    task = CodeTask()
    data = pairs_of(task, train_size=24, validation_size=12, seed=5)
    made(data, "embedded:coder", tmp_path)
    problems = {problem.prompt: problem for split in ("train", "validation") for problem in task.problems(split, 24, 5)}  # type: ignore[arg-type]
    for stage in ("train", "validation"):
        trees = data.data[stage].trees
        rows = [decoded(tree) for tree in trees]
        assert 0 < len(rows) == data.counts[stage]["pairs"] == len({prompt for prompt, *_ in rows})
        graded = [problems[prompt] for prompt, *_ in rows]
        assert all(verdict.passed for verdict in task.grade(graded, [chosen for _, chosen, _ in rows]))
        assert not any(verdict.passed for verdict in task.grade(graded, [rejected for *_, rejected in rows]))
    prompts, compositions = (
        [
            {getattr(problems[decoded(tree)[0]], what) for tree in data.data[stage].trees}
            for stage in ("train", "validation")
        ]
        for what in ("prompt", "composition")
    )
    assert not prompts[0] & prompts[1] and not compositions[0] & compositions[1]

    # They stand on the disk as pairs, too, for whoever wants to read them.
    kept = [
        read_pairs(file).records for file in (tmp_path / "cache" / "execution").glob("*/pairs-random-1-seed5.parquet")
    ]
    for stage in ("train", "validation"):
        rows = {decoded(tree) for tree in data.data[stage].trees}
        assert rows in [{(pair.prompt, pair.chosen, pair.rejected) for pair in pairs} for pairs in kept]

    # The next run finds the samples of both splits, and pairs them alike.
    assert sorted(sampled) == [12, 24]
    again = made(pairs_of(task, train_size=24, validation_size=12, seed=5), "embedded:coder", tmp_path)
    assert sorted(sampled) == [12, 24]
    assert again.fingerprints == data.fingerprints
    # Its likelihood arm imitates what passed of the very same samples.
    passing = PassingSamplesDataModule(task, train_size=24, validation_size=12, seed=5)
    made(passing, "embedded:coder", tmp_path)
    assert sorted(sampled) == [12, 24]
    rows = [decoded(tree) for tree in passing.data["train"].trees]
    assert len(rows) == len(set(passing.data["train"].trees)) >= len(data.data["train"].trees)
    texts = [completion for _, completion in rows]
    assert all(verdict.passed for verdict in task.grade([problems[prompt] for prompt, _ in rows], texts))
    assert {(prompt, chosen) for prompt, chosen, _ in map(decoded, data.data["train"].trees)} <= set(rows)
    assert passing.fingerprints["validation"] == data.fingerprints["validation"]


# --- a task that runs nothing -----------------------------------------------------------------------------------------


def test_training_and_held_out_problems_come_from_their_splits(policy: str, tmp_path: Path):
    data = made(pairs_of(seed=2), policy, tmp_path)
    for stage, split in (("train", "train"), ("validation", "validation")):
        for prompt, chosen, rejected in map(decoded, data.data[stage].trees):
            assert prompt.startswith(f"# {split} 2 ")
            assert len(chosen) % 2 == 0 and len(rejected) % 2 == 1


def test_a_fit_trains_on_the_pairs(policy: str, tmp_path: Path):
    trainer, data = trainer_for(tmp_path), pairs_of()
    trainer.fit(DPOModule(policy, DPO(0.1), scheduler=None), data)
    assert trainer.global_step == -(-data.counts["train"]["pairs"] // 4)
    assert {"train/loss", "validation/loss"} <= trainer.callback_metrics.keys()


def test_validation_alone_samples_no_training_problem_and_a_fit_adds_them(
    policy: str, tmp_path: Path, sampled: list[int]
):
    module, data = DPOModule(policy, DPO(0.1), scheduler=None), pairs_of()
    trainer_for(tmp_path).validate(module, data, verbose=False)
    assert sampled == [6]
    trainer_for(tmp_path).fit(module, data)
    assert sampled == [6, 12]


def test_samples_are_of_the_start_policy_however_often_it_is_fitted(policy: str, tmp_path: Path, sampled: list[int]):
    optimizer = lambda params: torch.optim.SGD(params, lr=0.1)  # noqa: E731
    module, data = DPOModule(policy, DPO(0.1), optimizer=optimizer, scheduler=None), pairs_of()
    for _ in range(2):
        trainer_for(tmp_path).fit(module, data)
    assert sorted(sampled) == [6, 12]


def test_test_pairs_measured_in_a_resumed_fit_are_of_the_start_policy(policy: str, tmp_path: Path):
    prints = []
    for ckpt, steps in ((None, 1), (tmp_path / "last.ckpt", 2)):
        optimizer = lambda params: torch.optim.SGD(params, lr=1.0)  # noqa: E731
        module, data = DPOModule(policy, DPO(0.1), optimizer=optimizer, scheduler=None), pairs_of()
        table = BeforeAfter([PairAccuracy(split="test")])
        trainer = trainer_for(tmp_path, table, max_steps=steps, max_epochs=-1)
        trainer.fit(module, data, ckpt_path=ckpt, weights_only=True)
        trainer.save_checkpoint(tmp_path / "last.ckpt")
        assert len(table.after["pair_accuracy"]) == len(data.data["test"])
        prints.append(data.fingerprints)
    assert prints[0] == prints[1] and prints[0].keys() == {"train", "validation", "test"}


def test_no_seed_of_its_own_is_the_seed_of_the_run(policy: str, tmp_path: Path):
    prints = []
    for seed in (1, 1, 2):
        seed_everything(seed, verbose=False)
        prints.append(made(pairs_of(), policy, tmp_path).fingerprints)
    assert prints[0] == prints[1]
    assert prints[0]["train"] != prints[2]["train"] and prints[0]["validation"] != prints[2]["validation"]
    assert made(pairs_of(seed=2), policy, tmp_path).fingerprints == prints[2]


def test_samples_with_a_seed_of_their_own_are_shared_by_runs_of_other_seeds(
    policy: str, tmp_path: Path, sampled: list[int]
):
    # Under an adapter, too, whose A each run draws anew: as long as B is 0 the policy is the same.
    kept = Samples(cache_folder=tmp_path / "cache", seed=5)
    pairs = []
    for seed in (1, 2):
        seed_everything(seed, verbose=False)
        data = pairs_of(samples=kept, seed=seed)
        module = DPOModule(policy, DPO(0.1), adapter=LoRA(r=2))
        trainer_for(tmp_path, limit_train_batches=0, limit_val_batches=0).fit(module, data)
        pairs.append(data.data["train"].trees)
    assert sampled == [6, 12]
    prompts = [sorted(tree.prompt_ids for tree in trees) for trees in pairs]
    assert prompts[0] == prompts[1] and list(pairs[0]) != list(pairs[1])


def test_another_sampler_makes_pairs_that_are_off_policy(policy: str, tmp_path: Path):
    other = saved(tmp_path / "other", brief_llama(1))
    own, off, from_other = (
        made(data, start, tmp_path)
        for data, start in (
            (pairs_of(), policy),
            (pairs_of(samples=Samples(sampled_policy=other)), policy),
            (pairs_of(), other),
        )
    )
    assert off.fingerprints["train"] != own.fingerprints["train"]
    assert off.fingerprints["train"] == from_other.fingerprints["train"]


class ByLength(Parity):
    """A failing completion passes as many cases as it has characters."""

    def grade(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[Verdict]:
        verdicts = super().grade(problems, completions)
        return [v if v.passed else Verdict(v.outcome, len(c)) for v, c in zip(verdicts, completions, strict=True)]


def test_best_vs_worst_trains_on_what_came_least_far_and_leaves_held_out_pairs_alone(policy: str, tmp_path: Path):
    at_random, worst = (
        made(pairs_of(ByLength(), strategy=strategy), policy, tmp_path) for strategy in ("random", "best_vs_worst")
    )
    rejected = {prompt: bad for prompt, _, bad in map(decoded, worst.data["train"].trees)}
    (shard,) = [path for path in (tmp_path / "cache").rglob("part-*.parquet") if len(pq.read_table(path)) == 12 * 8]
    failing = [row for row in pq.read_table(shard).to_pylist() if row["outcome"] == "failed" and row["finished"]]
    for prompt, bad in rejected.items():
        assert len(bad) == min(row["case"] for row in failing if row["prompt"] == prompt)
    assert worst.fingerprints["train"] != at_random.fingerprints["train"]
    assert worst.fingerprints["validation"] == at_random.fingerprints["validation"]


def test_several_pairs_a_problem(policy: str, tmp_path: Path):
    one, several = (made(pairs_of(pairs_per_problem=count), policy, tmp_path) for count in (1, 3))
    rows = [decoded(tree) for tree in several.data["train"].trees]
    assert set(map(decoded, one.data["train"].trees)) < set(rows) and len(set(rows)) == len(rows)
    assert max(sum(row[0] == prompt for row in rows) for prompt, *_ in rows) == 3
    assert several.fingerprints["validation"] == one.fingerprints["validation"]
    with pytest.raises(ValueError, match="pairs_per_problem must be >= 1, got 0"):
        pairs_of(pairs_per_problem=0)


class Chat(Parity):
    """The same problems as conversations."""

    name = "chat"

    def problems(self, split: Split, count: int, seed: int) -> list[Problem]:
        told = Message(role="system", content="letters")
        plain = super().problems(split, count, seed)
        return [replace(p, prompt=(told, Message(role="user", content=str(p.prompt)))) for p in plain]


def test_conversations_are_sampled_paired_kept_and_trained_on(tmp_path: Path):
    tokenizer = load_tokenizer(str(EMBEDDED_FOLDER / "tokenizer"))
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    policy = saved(tmp_path / "chat", brief_llama(), tokenizer)
    trainer, data = trainer_for(tmp_path), pairs_of(Chat())
    trainer.fit(DPOModule(policy, DPO(0.1), scheduler=None), data)
    assert trainer.global_step > 0
    for prompt, chosen, rejected in map(decoded, data.data["train"].trees):
        assert prompt.startswith("system: letters\nuser: # train ") and prompt.endswith("\nassistant: ")
        assert len(chosen) % 2 == 0 and len(rejected) % 2 == 1
    # The very tokens stand in the file too, as conversations.
    kept = [read_pairs(file).records for file in (tmp_path / "cache" / "execution").glob("*/pairs-*.parquet")]
    assert all(pair.chosen[0]["role"] == "assistant" for pairs in kept for pair in pairs)
    assert tokenize(max(kept, key=len), load_tokenizer(policy)).trees == data.data["train"].trees
    passing = PassingSamplesDataModule(Chat(), train_size=12, validation_size=6)
    imitated = made(passing, policy, tmp_path).data["train"].trees
    assert {tree.completion_ids[0] for tree in data.data["train"].trees} <= {
        each.completion_ids[0] for each in imitated
    }


def test_a_sampler_with_other_tokens_is_read_as_text(policy: str, tmp_path: Path):
    # In its tokenizer a and b have changed places.
    state = json.loads(load_tokenizer(policy).backend_tokenizer.to_str())
    vocabulary = state["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    backend = Tokenizer.from_str(json.dumps(state))
    other_tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>", pad_token="<pad>")
    assert other_tokenizer.decode([66, 67]) == "ba"
    other_policy = saved(tmp_path / "other", brief_llama(), other_tokenizer)
    data = made(pairs_of(samples=Samples(sampled_policy=other_policy)), policy, tmp_path)
    written = made(pairs_of(), other_policy, tmp_path)
    texts = [decoded(tree)[1:] for tree in data.data["train"].trees]
    by_sampler = [
        tuple(other_tokenizer.decode(ids, skip_special_tokens=True) for ids in tree.completion_ids)
        for tree in written.data["train"].trees
    ]
    assert texts == by_sampler and any("a" in text for pair in texts for text in pair)
    passing = PassingSamplesDataModule(
        Parity(), train_size=12, validation_size=6, samples=Samples(sampled_policy=other_policy)
    )
    imitated = {decoded(tree)[1] for tree in made(passing, policy, tmp_path).data["train"].trees}
    assert {chosen for chosen, _ in texts} <= imitated


@pytest.mark.parametrize(
    ("only", "reason"), [(Outcome.PASSED, "6 problems all passed"), (Outcome.FAILED, "6 problems all failed")]
)
def test_no_pair_at_all_is_an_error_with_the_mend(policy: str, tmp_path: Path, only: Outcome, reason: str):
    with pytest.raises(
        UserError, match=f"no validation pairs: 6 problems, {reason}, .*; raise samples.each, validation_size"
    ):
        made(pairs_of(Parity(only)), policy, tmp_path)


def test_no_passing_sample_is_an_error_with_the_mend(policy: str, tmp_path: Path):
    class HeldOutParity(Parity):
        """Nothing passes in training."""

        def grade(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[Verdict]:
            failing = problems[0].id.startswith("train")
            return [Verdict(Outcome.FAILED)] * len(completions) if failing else super().grade(problems, completions)

    data = PassingSamplesDataModule(HeldOutParity(), train_size=12, validation_size=6)
    with pytest.raises(UserError, match=r"no sample of 12 problems passed: raise samples.each or train_size"):
        made(data, policy, tmp_path)


def test_passing_samples_are_distinct(policy: str, tmp_path: Path):
    data = made(
        PassingSamplesDataModule(Parity(), train_size=12, validation_size=6, samples=Samples(16)), policy, tmp_path
    )
    trees = data.data["train"].trees
    assert len(set(trees)) == len(trees) == data.counts["train"]["passing samples"] > 0
    assert all(len(decoded(tree)[1]) % 2 == 0 for tree in trees)


def test_at_most_so_many_passing_samples_a_problem_are_imitated(policy: str, tmp_path: Path):
    def trees(most: int | None, seed: int = 1) -> list[TokenTree]:
        samples = Samples(16, cache_folder=tmp_path / "cache", seed=0)
        data = PassingSamplesDataModule(Parity(), 12, 6, 0, samples, most, seed=seed)
        return list(made(data, policy, tmp_path).data["train"].trees)

    every, prompts = trees(None), Counter(tree.prompt_ids for tree in trees(None))
    capped = trees(2)
    assert Counter(tree.prompt_ids for tree in capped) == {ids: min(2, n) for ids, n in prompts.items()}
    assert max(prompts.values()) > 2 and set(capped) < set(every)
    assert capped == trees(2) and set(capped) != set(trees(2, seed=2))
    with pytest.raises(ValueError, match="samples_per_problem must be >= 1, got 0"):
        PassingSamplesDataModule(Parity(), samples_per_problem=0)


def test_one_sample_cannot_make_a_pair():
    with pytest.raises(ValueError, match="seed must be >= 0, got -1"):
        Samples(seed=-1)
    with pytest.raises(ValueError, match=r"each must be >= 2 .* got 1"):
        Samples(1)
    with pytest.raises(ValueError, match="8 greedy samples are all alike"):
        Samples(sampling=Sampling(temperature=0.0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train_size": 0}, "train_size must be >= 1, got 0"),
        ({"test_size": -1}, "test_size must be >= 0, got -1"),
    ],
    ids=["train", "test"],
)
def test_settings_that_can_give_no_pair(settings, message):
    with pytest.raises(ValueError, match=message):
        ExecutionPairsDataModule(Parity(), **settings)
