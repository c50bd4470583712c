"""MultipleChoiceAccuracy: the highest-scored option against the right one."""

from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule

from lit_pref.evaluation import MultipleChoiceAccuracy
from lit_pref.evaluation.multiple_choice import _is_right
from lit_pref.modules import RewardFinetuneModule
from lit_pref.rewards.learned import Candidates, score
from lit_pref.types import ChoiceTask, MultipleChoice, Split


class Sums(ChoiceTask):
    name = "sums"

    def questions(self, split: Split, count: int | None, seed: int) -> list[MultipleChoice]:
        assert count is not None
        options = tuple(f"{n}" for n in range(4))
        return [MultipleChoice(f"{split}{n}", f"# {n} and {seed} modulo 4\n", options, n % 4) for n in range(count)]


class SixSums(Sums):
    def size(self, split: Split) -> int:
        return 6

    def questions(self, split: Split, count: int | None, seed: int) -> list[MultipleChoice]:
        return super().questions(split, 6 if count is None else count, seed)


@pytest.mark.parametrize(
    ("scores", "answer", "right"),
    [([1.0, 2.0, 0.0], 1, True), ([1.0, 2.0, 2.0], 1, False), ([-1.0, -2.0], 0, True), ([0.0, 0.0], 0, False)],
)
def test_a_tie_is_wrong(scores: list[float], answer: int, right: bool) -> None:
    assert _is_right(torch.tensor(scores), answer) is right


def test_one_figure_a_question() -> None:
    module = RewardFinetuneModule("embedded:coder")
    questions = Sums().questions("test", 12, 3)
    scores = torch.stack(score(module, [Candidates(each.prompt, each.options) for each in questions]))
    figures = MultipleChoiceAccuracy(Sums(), questions=12, seed=3, prefix="sums/")(module)
    assert list(figures) == ["sums/choice_accuracy"]
    assert figures["sums/choice_accuracy"].tolist() == [
        float(of_one.argmax() == each.answer) for of_one, each in zip(scores, questions, strict=True)
    ]
    assert 0 <= figures["sums/choice_accuracy"].mean() < 1


def test_all_of_a_data_set_and_a_thousand_of_a_task_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def zeros(module: Any, prompts: Any) -> list[torch.Tensor]:
        return [torch.arange(len(each.completions)).float() for each in prompts]

    monkeypatch.setattr("lit_pref.evaluation.multiple_choice.score", zeros)
    module = RewardFinetuneModule("embedded:coder")
    assert MultipleChoiceAccuracy(SixSums())(module)["choice_accuracy"].tolist() == [0, 0, 0, 1, 0, 0]
    assert len(MultipleChoiceAccuracy(Sums())(module)["choice_accuracy"]) == 1000


def test_a_module_without_scores_is_refused() -> None:
    with pytest.raises(TypeError, match="MultipleChoiceAccuracy needs a reward model's module, got LightningModule"):
        MultipleChoiceAccuracy(Sums())(LightningModule())
