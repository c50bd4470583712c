"""Accuracy on multiple choice: each option is scored as a completion of the question, the highest score is the answer.

As the released CodePMP code measures ReClor and LogiQA 2.0. Not covered: models that see all options at once, and
log-probs of options in place of a reward model's scores.
"""

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from lit_pref.evaluation.base import Evaluation, there
from lit_pref.evaluation.grading import Sized
from lit_pref.rewards.learned import Candidates, RewardModel, score
from lit_pref.types import ChoiceTask, Split

_ENDLESS_QUESTIONS = 1000  # of a task that can make any number: an interval of ±3 points


class MultipleChoiceAccuracy(Evaluation):
    """Share of questions whose right option scores above every other; a tie at the top is wrong.

    Args:
        task: questions and their options.
        split: null is validation in a fit and test under `lit-pref test`, as far as the task has both.
        questions: how many; null is all of a data set, and 1,000 of a task that can make any number.
        seed: draws them.
        prefix: stands before the figure's name, where a run measures several tasks, as in `reclor/`.
    """

    def __init__(
        self,
        task: ChoiceTask,
        split: Split | None = None,
        questions: int | None = None,
        seed: int = 0,
        prefix: str = "",
    ) -> None:
        if questions is not None and questions < 1:
            raise ValueError(f"questions must be >= 1, got {questions}")
        self.task, self.split, self.count, self.seed, self.prefix = task, split, questions, seed, prefix

    def measured(self, asked: Split) -> Split:
        return self.split or there(self.task.splits, asked)

    def __call__(self, module: LightningModule, split: Split = "test") -> dict[str, Tensor]:
        if not isinstance(module, RewardModel):
            raise TypeError(f"MultipleChoiceAccuracy needs a reward model's module, got {type(module).__name__}")
        count = self.count
        if count is None and not isinstance(self.task, Sized):
            count = _ENDLESS_QUESTIONS
        questions = self.task.questions(self.measured(split), count, self.seed)
        scores = score(module, [Candidates(question.prompt, question.options) for question in questions])
        right = [_is_right(of_options, each.answer) for of_options, each in zip(scores, questions, strict=True)]
        return {f"{self.prefix}choice_accuracy": torch.tensor(right, dtype=torch.float32)}


def _is_right(scores: Tensor, answer: int) -> bool:
    others = torch.cat([scores[:answer], scores[answer + 1 :]])
    return bool((scores[answer] > others).all())
