"""pass@k: sample completions of held-out problems, grade them, estimate without bias.

Greedy pass@1 by default. The estimator is that of the HumanEval paper (arXiv 2107.03374, equation 1).
What weights have once been measured to solve is kept in the cache folder, so that every run from the same start policy
measures it once. Samples that were cut at the length limit, or hold no code or answer, are not passed and are counted.
Problems whose references fail their own tests are left out before anything is sampled.
Not covered: samples from elsewhere (`lit-pref evaluate`).
"""

import inspect
import math
import platform
import time
from collections.abc import Sequence
from contextlib import closing, nullcontext
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from lit_pref.data.tokens.encoding import tokenizer_identity
from lit_pref.data.tokens.tokenize import tokenize_prompt
from lit_pref.errors import UserError
from lit_pref.evaluation.base import Evaluation, there
from lit_pref.evaluation.grading import Counts, counts, problems_of, ungraded
from lit_pref.generation import LocalGenerator
from lit_pref.generation.local import MAX_TOKENS
from lit_pref.machine.progress import ProgressLines
from lit_pref.models import computed_fingerprint
from lit_pref.sampling.drawing import Draw, draw_all
from lit_pref.sampling.grading import grade
from lit_pref.sampling.sample_journal import SampleJournal
from lit_pref.storage.arrays import ArrayCache
from lit_pref.tasks.references import gradable
from lit_pref.types import Outcome, Problem, Sampling, Split, Task

# These depend only on the program; that time or memory ran out may be the machine's fault.
_LASTING = {
    Outcome.PASSED,
    Outcome.FAILED,
    Outcome.ERROR,
    Outcome.SYNTAX_ERROR,
    Outcome.OUTPUT_LIMIT,
    Outcome.NO_CODE,
    Outcome.NO_ANSWER,
}
_PACKAGE = Path(__file__).parents[1]


@runtime_checkable
class _OfTask(Protocol):
    """A data module whose rows are of a task's problems."""

    task: Task


def _task_of_run(module: LightningModule) -> Task:
    data = module.trainer.datamodule  # type: ignore[attr-defined]
    if not isinstance(data, _OfTask) or not isinstance(data.task, Task):
        raise UserError(f"PassAtK: {type(data).__name__} has no task of its own: give one, as task: HumanEval")
    return data.task


class _Measured(NamedTuple):
    """What became of each problem's samples, and whether it always would."""

    counts: Counts
    lasting: bool


class PassAtK(Evaluation):
    """Share of problems solved by at least one of k completions.

    Args:
        task: problems and their grading; null is the task of the run's own data.
        split: null is validation in a fit and test under `lit-pref test`, as far as the task has both.
        problems: how many; the same for every run, so that runs compare. null is all of a benchmark, and 1,000 of a
            task that can make any number.
        k: the figures `pass@k` to give.
        samples: completions a problem, at least the largest k.
        sampling: how they are drawn; greedy by default.
        seed: draws problems and samples.
        max_tokens_per_batch: tokens that are decoded side by side, as of `LocalGenerator`.
        cache_folder: where what weights solve is kept, by weights, problems, settings and the code that samples and
            grades; None is the user's cache folder.
        prefix: stands before the figures' names, where a run measures several tasks, as in `human_eval/`.
    """

    def __init__(
        self,
        task: Task | None = None,
        split: Split | None = None,
        problems: int | None = None,
        k: Sequence[int] = (1,),
        samples: int = 1,
        sampling: Sampling = Sampling(temperature=0.0),  # noqa: B008 - frozen
        seed: int = 0,
        max_tokens_per_batch: int = MAX_TOKENS,
        cache_folder: Path | None = None,
        prefix: str = "",
    ) -> None:
        if not k or min(k) < 1:
            raise ValueError(f"k must hold numbers >= 1, got {list(k)}")
        if max(k) > samples:
            raise ValueError(f"pass@{max(k)} needs at least {max(k)} samples a problem, got {samples}")
        if problems is not None and problems < 1:
            raise ValueError(f"problems must be >= 1, got {problems}")
        if max_tokens_per_batch < 1:
            raise ValueError(f"max_tokens_per_batch must be >= 1, got {max_tokens_per_batch}")
        if samples > 1 and sampling.temperature == 0:
            raise ValueError(f"{samples} greedy samples are all alike: give a temperature above 0")
        self._given, self.split, self.count, self.k = task, split, problems, tuple(k)
        if task is not None:
            self.task = task
        self.samples, self.sampling, self.seed = samples, sampling, seed
        self.max_tokens_per_batch = max_tokens_per_batch
        self.cache, self.prefix = ArrayCache(cache_folder, "pass_at_k"), prefix

    def measured(self, asked: Split) -> Split:
        return self.split or there(self.task.splits, asked)

    def __call__(self, module: LightningModule, split: Split = "test") -> dict[str, Tensor]:
        self.task = self._given or _task_of_run(module)
        chosen = problems_of(self.task, self.measured(split), self.count, self.seed)
        problems, self.left_out = gradable(self.task, chosen, tell=module.global_rank == 0)
        key = self._key(module, problems)
        kept = None if key is None else self.cache.load(key, (len(Counts._fields), len(problems)))
        if kept is None:
            journal = self._journal(key) if key is not None and module.global_rank == 0 else None
            with closing(journal) if journal else nullcontext():
                counted, lasting = self._measure(module, problems, journal)
                if key is not None and lasting and module.global_rank == 0:
                    self.cache.save(key, torch.stack(counted))
                if journal is not None:
                    journal.remove()
        else:
            counted = Counts(*kept)
        if module.global_rank == 0:
            self._tell(counted)
        return {f"{self.prefix}{name}": values for name, values in figures(counted, self.samples, self.k).items()}

    def _journal(self, key: Sequence[str]) -> SampleJournal:
        """So that an interrupted run draws nothing twice."""
        path = self.cache.path(key).with_suffix(".drawn.jsonl")
        return SampleJournal(path, {"pass_at_k": path.name}, self.cache.root)

    def _measure(
        self, module: LightningModule, problems: Sequence[Problem], journal: SampleJournal | None
    ) -> _Measured:
        generator = LocalGenerator(module.model, module.tokenizer, tokenize_prompt, self.max_tokens_per_batch)
        prompts, draw = [problem.prompt for problem in problems], Draw(self.samples, self._sampling, self.seed)
        total, done = len(prompts) * draw.samples, len(journal.found) if journal else 0
        lines = ProgressLines(f"Sampling {self.task.name}", total, done, time.monotonic())

        def tell(ended: int, tokens: int) -> None:
            if module.global_rank == 0:
                lines(ended, tokens=tokens)

        completions = draw_all(generator, prompts, draw, journal, tell)
        verdicts = grade(self.task, problems, [[each.text for each in several] for several in completions])
        ungraded(verdicts, max(self.k))  # raises where there is no figure
        counted = counts(verdicts, [[each.finished for each in several] for several in completions])
        return _Measured(counted, all(verdict.outcome in _LASTING for several in verdicts for verdict in several))

    @property
    def _sampling(self) -> Sampling:
        return self.task.with_stops(self.sampling)

    def _tell(self, counted: Counts) -> None:
        """A line about samples that are no answers or could not be graded, where there are any."""
        no_code, truncated, broken = (int(n.sum()) for n in (counted.no_code, counted.truncated, counted.ungraded))
        if no_code or truncated or broken:
            total = len(counted.passed) * self.samples
            failed = f", and of {broken:,} the grading failed, which are left out" if broken else ""
            print(
                f"{self.task.name}: of {total:,} samples {truncated:,} were cut at {self.sampling.max_new_tokens} "
                f"tokens and {no_code:,} held no code or answer{failed}",
                flush=True,
            )

    def _key(self, module: LightningModule, problems: Sequence[Problem]) -> list[str] | None:
        """All that the verdicts depend on; None where not all of it can be told."""
        tokenizer, code = tokenizer_identity(module.tokenizer), _code(self.task)
        settings = repr(sorted(vars(self.task).items()))
        if tokenizer is None or code is None or " at 0x" in settings:  # a task's part that does not state itself
            return None
        of_problems = repr([(p.id, p.prompt, p.cases, p.check, p.entry_point, p.answer) for p in problems])
        drawn = repr((self.samples, self._sampling, self.seed))
        device = torch.cuda.get_device_name(module.device) if module.device.type == "cuda" else module.device.type
        machine = f"{device} torch {torch.__version__} python {platform.python_version()}"
        parts = (computed_fingerprint(module.model), tokenizer, self.task.name, settings, code, drawn, machine)
        return [*parts, blake2b(of_problems.encode(), digest_size=16).hexdigest()]


def _code(task: Task) -> str | None:
    """A hash of the code that samples and grades; None where the task's own is in no file, as in a notebook."""
    digest = blake2b(digest_size=16)
    try:
        files = [Path(inspect.getfile(type(task)))]
        for folder in ("generation", "sandbox", "syntax", "tasks"):
            files += sorted((_PACKAGE / folder).rglob("*.py"))
        for file in files:
            digest.update(file.read_bytes())
    except (OSError, TypeError):
        return None
    return digest.hexdigest()


def figures(counted: Counts, samples: int | Tensor, ks: Sequence[int]) -> dict[str, Tensor]:
    """`pass@k` of each problem over its graded samples, [problems]; NaN where these are fewer than the largest k.

    samples: how many all problems have, or each.
    """
    totals = torch.as_tensor(samples).expand(len(counted.passed)) - counted.ungraded.long()  # kept as floats
    enough = (totals >= max(ks)) | (counted.ungraded == 0)
    found = {f"pass@{k}": torch.full((len(totals),), math.nan) for k in ks}
    for k in ks:
        found[f"pass@{k}"][enough] = pass_at_k(counted.passed[enough], totals[enough], k)
    return found


def pass_at_k(passed: Tensor, samples: int | Tensor, k: int) -> Tensor:
    """Unbiased pass@k of each problem from how many of its `samples` passed: 1 − C(n − c, k) / C(n, k), [problems].

    samples: n of all problems, or of each. Raises ValueError where one is below k.
    """
    totals = torch.as_tensor(samples).expand(len(passed)).tolist()
    if totals and min(totals) < k:
        raise ValueError(f"pass@{k} needs at least {k} samples a problem, got {min(totals)}")
    shares = [
        1 - math.comb(total - int(count), k) / math.comb(total, k)
        for total, count in zip(totals, passed.tolist(), strict=True)
    ]
    return torch.tensor(shares, dtype=torch.float32)
