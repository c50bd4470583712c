"""Best-of-N: a fixed policy's samples of held-out problems, of which the reward model picks the highest-scored.

The samples do not depend on the reward model: they are drawn and graded once, kept in the cache by all that they depend
on, and scored at each call, so that before and after compare pick by pick. The figures are without bias over all
subsets of N (`metrics/best_of_n.py`). Not covered: guidance while sampling; votes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from lit_pref.evaluation.base import Evaluation, there
from lit_pref.evaluation.grading import HarnessError, problems_of
from lit_pref.generation.policy import OpenPolicy, open_policy
from lit_pref.metrics import best_of_n, oracle_best_of_n
from lit_pref.rewards.learned import Candidates, RewardModel, score
from lit_pref.sampling import Draw, GradedSample, GradedSamples, SamplingJob, cached_samples
from lit_pref.storage.arrays import default_cache_folder
from lit_pref.tasks.references import gradable
from lit_pref.types import Generator, Outcome, Sampling, Split, Task


class _Drawn(NamedTuple):
    """Samples problem by problem, and the vocabulary that their tokens are of; None where it is not known."""

    graded: list[GradedSample]
    vocabulary: dict[str, int] | None


class BestOfN(Evaluation):
    """How often the best of N samples, by the reward model's scores, is right.

    Args:
        task: problems and their grading.
        sampled_policy: an embedded policy, a folder, a .gguf file or a hub id, which samples in this process; or a
            Generator by its class_path, as OpenAIGenerator for a server.
        n: the figures `best_of_n/N` to give; 1 is the mean over samples. The released CodePMP code has 2 to 256.
        samples: completions a problem, at least the largest N; more of them make the figures of a smaller N steadier.
        sampling: how they are drawn.
        split: null is validation in a fit and test under `lit-pref test`, as far as the task has both.
        problems: how many; null is all of a benchmark, and 1,000 of a task that can make any number.
        seed: draws problems and samples.
        cache_folder: where graded samples are kept; None is the user's cache folder.
        prefix: stands before the figures' names, where a run measures several tasks, as in `gsm8k/`.
    """

    def __init__(
        self,
        task: Task,
        sampled_policy: str | Generator = "embedded:coder",
        n: Sequence[int] = (1, 2, 4, 8, 16),
        samples: int = 16,
        sampling: Sampling = Sampling(),  # noqa: B008 - frozen
        split: Split | None = None,
        problems: int | None = None,
        seed: int = 0,
        cache_folder: Path | None = None,
        prefix: str = "",
    ) -> None:
        if not n or min(n) < 1:
            raise ValueError(f"n must hold numbers >= 1, got {list(n)}")
        if max(n) > samples:
            raise ValueError(f"best of {max(n)} needs at least {max(n)} samples a problem, got {samples}")
        if samples > 1 and sampling.temperature == 0:
            raise ValueError(f"{samples} greedy samples are all alike: give a temperature above 0")
        if problems is not None and problems < 1:
            raise ValueError(f"problems must be >= 1, got {problems}")
        self.task, self.sampled_policy, self.n, self.samples = task, sampled_policy, tuple(n), samples
        self.sampling, self.split, self.count, self.seed = sampling, split, problems, seed
        self.cache_folder, self.prefix = cache_folder or default_cache_folder(), prefix
        self._drawn: dict[Split, _Drawn] = {}

    def measured(self, asked: Split) -> Split:
        return self.split or there(self.task.splits, asked)

    def __call__(self, module: LightningModule, split: Split = "test") -> dict[str, Tensor]:
        if not isinstance(module, RewardModel):
            raise TypeError(f"BestOfN needs a reward model's module, got {type(module).__name__}")
        samples, vocabulary = self._samples(module, self.measured(split))
        own_tokens = vocabulary is not None and vocabulary == module.tokenizer.get_vocab()
        prompts = [_scored(several, own_tokens) for several in self._by_problem(samples)]
        scores_PM, correct_PM = torch.stack(score(module, prompts)), self._correct(samples)
        return {f"{self.prefix}best_of_n/{n}": best_of_n(scores_PM, correct_PM, n).float() for n in self.n}

    def oracle(self, module: LightningModule, split: Split = "test") -> dict[str, Tensor]:
        """`oracle/N`: what scores that know the right samples would reach, the ceiling of `best_of_n/N`."""
        correct_PM = self._correct(self._samples(module, self.measured(split)).graded)
        return {f"{self.prefix}oracle/{n}": oracle_best_of_n(correct_PM, n).float() for n in self.n}

    # --- samples ------------------------------------------------------------------------------------------------------

    def _samples(self, module: LightningModule, split: Split) -> _Drawn:
        """Drawn by the first of several processes, since a last bit may differ on others."""
        if split not in self._drawn:
            drawn = [self._draw(module.device, split) if module.global_rank == 0 else None]
            if torch.distributed.is_available() and torch.distributed.is_initialized():
                torch.distributed.broadcast_object_list(drawn)
            assert drawn[0] is not None
            self._drawn[split] = drawn[0]
        return self._drawn[split]

    def _draw(self, device: torch.device, split: Split) -> _Drawn:
        problems, self.left_out = gradable(self.task, problems_of(self.task, split, self.count, self.seed))
        sampled = self.sampled_policy
        opened = sampled if isinstance(sampled, Generator) else open_policy(sampled, device=device)
        vocabulary = opened.tokenizer.get_vocab() if isinstance(opened, OpenPolicy) else None
        draw = Draw(self.samples, self.sampling, self.seed)
        job = SamplingJob.of(self.task, problems, opened, draw)
        name = f"{len(problems):,} {split} problems of {self.task.name} x {self.samples}"
        found = cached_samples(self.cache_folder, job, name)
        return _Drawn(_without_ungraded(found, self.samples, self.task.name), vocabulary)

    def _by_problem(self, graded: Sequence[GradedSample]) -> list[Sequence[GradedSample]]:
        return [graded[start : start + self.samples] for start in range(0, len(graded), self.samples)]

    def _correct(self, graded: Sequence[GradedSample]) -> Tensor:
        """1 where a sample passed, [P, M]; one without an answer did not."""
        passed = [[sample.outcome is Outcome.PASSED for sample in several] for several in self._by_problem(graded)]
        return torch.tensor(passed, dtype=torch.float64)


def _scored(samples: Sequence[GradedSample], own_tokens: bool) -> Candidates:
    ids = [sample.completion.token_ids for sample in samples]
    texts = [sample.completion.text for sample in samples]
    return Candidates(samples[0].prompt, texts, ids if own_tokens and all(ids) else None)


def _without_ungraded(found: GradedSamples, of_each: int, name: str) -> list[GradedSample]:
    """Without the problems that have a sample whose grading failed; Raises HarnessError where all have."""
    broken = [number for number, each in enumerate(found.samples) if each.outcome is Outcome.HARNESS_ERROR]
    left_out = {number // of_each for number in broken}
    again = f"; remove {found.folder} to draw and grade anew" if found.kept else ""
    said = f"{len(broken)} of {len(found.samples)} gradings failed, which would blame the sampled_policy{again}"
    if left_out and len(left_out) * of_each == len(found.samples):
        raise HarnessError(said)
    if left_out:
        print(f"{name}: {said}; {len(left_out):,} problems are left out", flush=True)
    return [each for number, each in enumerate(found.samples) if number // of_each not in left_out]
