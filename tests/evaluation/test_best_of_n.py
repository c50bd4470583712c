"""BestOfN: a fixed sampler's samples, drawn and graded once, and what a reward model picks of them."""

from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from lit_pref.callbacks import BeforeAfter
from lit_pref.datamodules import PairsDataModule
from lit_pref.evaluation import BestOfN
from lit_pref.evaluation.grading import HarnessError
from lit_pref.generation import LocalGenerator
from lit_pref.modules import RewardFinetuneModule, adamw
from lit_pref.types import Completion, Generator, Outcome, Problem, Sampling, Task, Verdict


class Digits(Task):
    """A completion passes where it holds an even digit."""

    name = "digits"

    def __init__(self, outcome: Outcome = Outcome.FAILED) -> None:
        self.outcome = outcome

    def problems(self, split: Any, count: int, seed: int) -> list[Problem]:
        return [Problem(f"{split}{seed}{i}", f"# {i}\n", "", answer="even") for i in range(count)]

    def grade(self, problems: Any, completions: Any) -> list[Verdict]:
        return [Verdict(Outcome.PASSED if set(text) & set("02468") else self.outcome) for text in completions]


def texts(problem: int, samples: int) -> list[str]:
    return [str((3 * problem + sample * (1 + problem % 2)) % 10) for sample in range(samples)]


@pytest.fixture
def sampled(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many prompts each call to the generator had; its samples are `texts`."""
    calls: list[int] = []

    def generate(self: Any, prompts: Any, samples: int, sampling: Any, seed: int) -> list[list[Completion]]:
        calls.append(len(prompts))
        of = [texts(int(prompt[2:]), samples) for prompt in prompts]
        ids = self.tokenizer
        return [[Completion(t, (*ids(t).input_ids, 0), (0.0,) * 2, True) for t in several] for several in of]

    monkeypatch.setattr(LocalGenerator, "generate", generate)
    monkeypatch.setattr(LocalGenerator, "each", Generator.each)
    return calls


class Reward(RewardFinetuneModule):
    """Scores are -|digit - favourite| by the token that holds the digit."""

    favourite = 4

    def rewards(self, trees: Any) -> Tensor:
        ends = trees.target_N.split(trees.length_K.tolist())
        return torch.tensor([-abs(float(self.tokenizer.decode(ids[:1])) - self.favourite) for ids in ends])


@pytest.fixture(scope="module")
def module() -> Reward:
    return Reward("embedded:coder")


def evaluation(folder: Path, **settings: Any) -> BestOfN:
    given = {"n": (1, 2, 4), "samples": 4, "problems": 5, "cache_folder": folder, "task": Digits()}
    return BestOfN(**(given | settings))


def by_all_subsets(problem: int, n: int, favourite: int) -> float:
    """The even digits' share of the picks from all subsets of 4 samples."""
    picks = []
    for subset in combinations(texts(problem, 4), n):
        best = min(abs(int(text) - favourite) for text in subset)
        tied = [int(text) % 2 == 0 for text in subset if abs(int(text) - favourite) == best]
        picks.append(sum(tied) / len(tied))
    return sum(picks) / len(picks)


def test_figures_are_the_mean_pick_of_all_subsets(tmp_path: Path, sampled: list[int], module: Reward) -> None:
    figures = evaluation(tmp_path)(module)
    assert list(figures) == ["best_of_n/1", "best_of_n/2", "best_of_n/4"]
    for n in (1, 2, 4):
        expected = [by_all_subsets(problem, n, 4) for problem in range(5)]
        assert figures[f"best_of_n/{n}"].tolist() == pytest.approx(expected) and figures[f"best_of_n/{n}"].ndim == 1


def test_the_oracle_is_pass_at_n(tmp_path: Path, sampled: list[int], module: Reward) -> None:
    ceiling = evaluation(tmp_path, prefix="digits/").oracle(module)
    for n in (1, 2, 4):
        expected = [
            sum(any(int(t) % 2 == 0 for t in subset) for subset in combinations(texts(problem, 4), n))
            / len(list(combinations(range(4), n)))
            for problem in range(5)
        ]
        assert ceiling[f"digits/oracle/{n}"].tolist() == pytest.approx(expected)


def test_samples_are_drawn_once_and_found_again(tmp_path: Path, sampled: list[int], module: Reward) -> None:
    one = evaluation(tmp_path)
    first = one(module)
    module.favourite = 9
    try:
        other = one(module)
        assert sampled == [5] and not torch.equal(first["best_of_n/4"], other["best_of_n/4"])
        assert torch.equal(evaluation(tmp_path)(module)["best_of_n/4"], other["best_of_n/4"])
        assert sampled == [5]
    finally:
        module.favourite = 4


@pytest.mark.parametrize(
    "changes",
    [
        {"problems": 4},
        {"seed": 1},
        {"split": "validation"},
        {"samples": 5},
        {"sampled_policy": "embedded:coder-weak"},
        {"sampling": Sampling(temperature=0.5)},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_other_samples_are_drawn(tmp_path: Path, sampled: list[int], module: Reward, changes: Any) -> None:
    evaluation(tmp_path)(module)
    evaluation(tmp_path, **changes)(module)
    assert len(sampled) == 2


@dataclass
class Server(Generator):
    """Texts without tokens."""

    model: str = "somebody's"

    def generate(self, prompts: Any, samples: int, sampling: Any, seed: int) -> list[list[Completion]]:
        return [[Completion(text, (), (), True) for text in texts(int(prompt[2:]), samples)] for prompt in prompts]


def test_a_generator_samples_too(tmp_path: Path, module: Reward) -> None:
    figures = evaluation(tmp_path, sampled_policy=Server())(module)
    assert figures["best_of_n/2"].tolist() == pytest.approx([by_all_subsets(problem, 2, 4) for problem in range(5)])


def test_the_sampled_tokens_are_scored_where_they_mean_the_same(
    tmp_path: Path, sampled: list[int], module: Reward, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[bool] = []

    def score(module: Any, prompts: Any) -> list[Tensor]:
        given.extend(each.token_ids is not None for each in prompts)
        return [torch.zeros(len(each.completions)) for each in prompts]

    monkeypatch.setattr("lit_pref.evaluation.best_of_n.score", score)
    measured = evaluation(tmp_path)
    measured(module)
    assert given == [True] * 5
    other = Reward("embedded:coder")
    other.tokenizer.add_tokens(["<another>"])
    measured(other)
    assert given[5:] == [False] * 5


class Breaking(Digits):
    """No process can be had for a 5, which problem 2 (6, 7, 8, 9) does not have and problem 1 (3, 5, 7, 9) has."""

    name = "breaking"

    def grade(self, problems: Any, completions: Any) -> list[Verdict]:
        broken = Verdict(Outcome.HARNESS_ERROR)
        graded = super().grade(problems, completions)
        return [broken if text == "5" else each for text, each in zip(completions, graded, strict=True)]


def test_a_problem_whose_grading_failed_is_left_out(tmp_path: Path, sampled: list[int], module: Reward, capsys) -> None:
    figures = evaluation(tmp_path, task=Breaking(), problems=3, n=(1,))(module)
    assert figures["best_of_n/1"].tolist() == [by_all_subsets(0, 1, 4), by_all_subsets(2, 1, 4)]
    assert (
        "breaking: 1 of 12 gradings failed" in (told := capsys.readouterr().out) and "1 problems are left out" in told
    )


def test_a_failure_of_the_harness_is_nobody_s_pick(tmp_path: Path, sampled: list[int], module: Reward) -> None:
    with pytest.raises(HarnessError, match=r"of 20 gradings failed, .*; remove .*digits-.* to draw and grade anew"):
        evaluation(tmp_path, task=Digits(Outcome.HARNESS_ERROR))(module)


def test_settings_that_make_no_sense(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="n must hold numbers >= 1, got \\[\\]"):
        evaluation(tmp_path, n=())
    with pytest.raises(ValueError, match="best of 8 needs at least 8 samples a problem, got 4"):
        evaluation(tmp_path, n=(8,))
    with pytest.raises(ValueError, match="4 greedy samples are all alike"):
        evaluation(tmp_path, sampling=Sampling(temperature=0.0))
    with pytest.raises(TypeError, match="BestOfN needs a reward model's module, got LightningModule"):
        evaluation(tmp_path)(LightningModule())


def test_before_and_after_a_fit(tmp_path: Path, sampled: list[int]) -> None:
    # Digits near 4 are trained up: of 4 samples the pick comes to be right more often.
    rows = [
        f'{{"prompt": "# {i}\\n", "chosen": "{2 * (i % 5)}", "rejected": "{2 * (i % 4) + 1}"}}\n' for i in range(40)
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(rows))
    table = BeforeAfter([evaluation(tmp_path, problems=20)])
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=6,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=tmp_path,
        callbacks=[table],
    )
    data = PairsDataModule(str(tmp_path / "pairs.jsonl"), validation_size=0.0, batch_size=20, seed=0)
    trainer.fit(RewardFinetuneModule("embedded:coder", optimizer=adamw(1e-3)), data)
    assert sampled == [20]
    before, after = (figures["best_of_n/4"] for figures in (table.before, table.after))
    assert before.shape == after.shape == (20,)
    assert after.mean() > before.mean() and torch.equal(table.before["best_of_n/1"], table.after["best_of_n/1"])
