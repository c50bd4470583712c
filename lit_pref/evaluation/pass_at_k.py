"""pass@k: sample completions of held-out problems, grade them, estimate without bias.

Greedy pass@1 by default. The estimator is that of the HumanEval paper (arXiv 2107.03374, equation 1).
Not covered: extracting code from chat answers; the task grades what follows the prompt.
"""

import math
from collections.abc import Sequence

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from lit_pref.data.tokenize import tokenize_prompt
from lit_pref.evaluation.base import Evaluation
from lit_pref.generation import LocalGenerator
from lit_pref.types import Outcome, Sampling, Split, Task


class HarnessError(RuntimeError):
    """Grading itself failed: the figures would blame the model for it."""


class PassAtK(Evaluation):
    """Share of problems solved by at least one of k completions.

    Args:
        task: problems and their grading.
        split: test holds out compositions; validation is for choosing settings.
        problems: how many; the same for every run, so that runs compare.
        k: the figures `pass@k` to give.
        samples: completions a problem, at least the largest k.
        sampling: how they are drawn; greedy by default.
        seed: draws problems and samples.
        batch_size: sequences decoded side by side.
    """

    def __init__(
        self,
        task: Task,
        split: Split = "test",
        problems: int = 1000,
        k: Sequence[int] = (1,),
        samples: int = 1,
        sampling: Sampling = Sampling(temperature=0.0),  # noqa: B008 - frozen
        seed: int = 0,
        batch_size: int = 512,
    ) -> None:
        if max(k) > samples:
            raise ValueError(f"pass@{max(k)} needs at least {max(k)} samples a problem, got {samples}")
        self.task, self.split, self.count, self.k = task, split, problems, tuple(k)
        self.samples, self.sampling, self.seed, self.batch_size = samples, sampling, seed, batch_size

    def __call__(self, module: LightningModule) -> dict[str, Tensor]:
        problems = self.task.problems(self.split, self.count, self.seed)
        generator = LocalGenerator(module.model, module.tokenizer, tokenize_prompt, self.batch_size)
        prompts = [problem.prompt for problem in problems]
        completions = generator.generate(prompts, self.samples, self.sampling, self.seed)
        flat = [(p, c.text) for p, several in zip(problems, completions, strict=True) for c in several]
        verdicts = self.task.grade([problem for problem, _ in flat], [text for _, text in flat])
        broken = [verdict for verdict in verdicts if verdict.outcome is Outcome.HARNESS_ERROR]
        if broken:
            raise HarnessError(f"{len(broken)} of {len(verdicts)} gradings failed; the first: {broken[0].detail}")
        passed = torch.tensor([verdict.passed for verdict in verdicts]).view(len(problems), self.samples).sum(1)
        return {f"pass@{k}": pass_at_k(passed, self.samples, k) for k in self.k}


def pass_at_k(passed: Tensor, samples: int, k: int) -> Tensor:
    """Unbiased pass@k of each problem from how many of its `samples` passed: 1 − C(n − c, k) / C(n, k)."""
    missed = [1 - math.comb(samples - count, k) / math.comb(samples, k) for count in passed.tolist()]
    return torch.tensor(missed, dtype=torch.float32)
