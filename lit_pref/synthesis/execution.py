"""Execution-labelled data: sample completions of problems, run them, and pick pairs or passing samples.

After arXiv 2410.18585 as third parties sum it up: several responses a query from the model being aligned, each run
against the tests, per query one passing and one failing response at random. Sampling settings are ours.
A truncated sample is no model error and never a rejected response; a harness failure is nobody's. Each is counted.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

from lit_pref.types import Completion, Demonstration, Generator, Outcome, PreferencePair, Problem, Sampling, Task, Text


@dataclass(frozen=True, slots=True)
class GradedSample:
    """A completion of a problem and how its execution ended."""

    problem_id: str
    prompt: Text
    completion: Completion
    outcome: Outcome


class SampleSettings(NamedTuple):
    """How a policy is sampled: completions a problem, the distribution, the seed of the draws."""

    samples: int
    sampling: Sampling
    seed: int


class ExecutionPairs(NamedTuple):
    """Pairs, the problems they are of, and how many problems came to nothing, by reason."""

    pairs: list[PreferencePair]
    problem_ids: list[str]
    counts: dict[str, int]


def sample_and_grade(
    task: Task,
    generator: Generator,
    shards: Iterable[tuple[int, Sequence[Problem]]],
    draw: SampleSettings,
    keep: Callable[[int, list[GradedSample]], None],
) -> None:
    """Sample each numbered shard's problems and grade them; `keep` gets each graded shard, in order.

    One shard is graded while the next is sampled: the model and the sandbox are different processes.
    """
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="grading") as grading:
        pending: tuple[int, Future[list[GradedSample]]] | None = None
        try:
            for number, problems in shards:
                prompts = [problem.prompt for problem in problems]
                completions = generator.generate(prompts, draw.samples, draw.sampling, draw.seed * 10_007 + number)
                if pending is not None:
                    keep(pending[0], pending[1].result())
                pending = number, grading.submit(grade_samples, task, problems, completions)
            if pending is not None:
                keep(pending[0], pending[1].result())
        except BaseException:
            # Without this, leaving the block would wait for a shard that nobody will keep.
            grading.shutdown(wait=False, cancel_futures=True)
            raise


def grade_samples(
    task: Task, problems: Sequence[Problem], completions: Sequence[Sequence[Completion]]
) -> list[GradedSample]:
    """Grade every completion; equal texts of one problem are run once."""
    distinct = {(row, completion.text): None for row, several in enumerate(completions) for completion in several}
    verdicts = task.grade([problems[row] for row, _ in distinct], [text for _, text in distinct])
    outcomes = {key: verdict.outcome for key, verdict in zip(distinct, verdicts, strict=True)}
    return [
        GradedSample(problems[row].id, problems[row].prompt, completion, outcomes[row, completion.text])
        for row, several in enumerate(completions)
        for completion in several
    ]


def execution_pairs(samples: Iterable[GradedSample], seed: int) -> ExecutionPairs:
    """One passing and one failing completion of each problem, at random; a problem without both gives no pair."""
    pairs, problem_ids, counts = [], [], Counter[str]()
    for problem_id, graded in _by_problem(samples).items():
        passing = [s.completion for s in graded if s.outcome is Outcome.PASSED and s.completion.finished]
        failing = [s.completion for s in graded if _is_model_failure(s)]
        counts["truncated samples"] += sum(not s.completion.finished for s in graded)
        counts["harness errors"] += sum(s.outcome is Outcome.HARNESS_ERROR for s in graded)
        if not passing or not failing:
            counts["no sample passed" if not passing else "no sample failed"] += 1
            continue
        draw = random.Random(f"{seed}:{problem_id}")
        chosen, rejected = draw.choice(passing), draw.choice(failing)
        pairs.append(
            PreferencePair(
                prompt=graded[0].prompt,
                chosen=chosen.text,
                rejected=rejected.text,
                chosen_ids=chosen.token_ids,
                rejected_ids=rejected.token_ids,
            )
        )
        problem_ids.append(problem_id)
    return ExecutionPairs(pairs, problem_ids, {"pairs": len(pairs), **counts})


def passing_demonstrations(samples: Iterable[GradedSample]) -> list[Demonstration]:
    """The distinct passing completions of each problem: what SFT on passing samples (RFT) imitates."""
    passing = {
        (s.problem_id, s.completion.token_ids): Demonstration(s.prompt, s.completion.text, s.completion.token_ids)
        for s in samples
        if s.outcome is Outcome.PASSED and s.completion.finished
    }
    return list(passing.values())


def _is_model_failure(sample: GradedSample) -> bool:
    return sample.completion.finished and sample.outcome not in (Outcome.PASSED, Outcome.HARNESS_ERROR)


def _by_problem(samples: Iterable[GradedSample]) -> dict[str, list[GradedSample]]:
    grouped: dict[str, list[GradedSample]] = {}
    for sample in samples:
        grouped.setdefault(sample.problem_id, []).append(sample)
    return grouped
