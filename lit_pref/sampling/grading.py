"""Completions of problems to verdicts: each distinct text is run once, one shard while the next is sampled."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from lit_pref.types import Completion, Outcome, Problem, Task, Text, Verdict

_AT_A_TIME = 512  # texts; so many that processors which wait for the last of them cost little


@dataclass(frozen=True, slots=True)
class GradedSample:
    """A completion of a problem, how its execution ended, and the first case that failed, where there is one."""

    problem_id: str
    prompt: Text
    completion: Completion
    outcome: Outcome
    case: int | None = None


def sample_and_grade(
    task: Task,
    shards: Iterable[tuple[int, Sequence[Problem]]],
    sample: Callable[[int, Sequence[Problem]], Sequence[Sequence[Completion]]],
    keep: Callable[[int, list[GradedSample]], None],
) -> None:
    """Have each numbered shard's problems sampled and grade them; `keep` gets each graded shard, in order.

    One shard is graded while the next is sampled: the model and the sandbox are different processes.
    """
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="grading") as grading:
        pending: tuple[int, Future[list[GradedSample]]] | None = None
        try:
            for number, problems in shards:
                completions = sample(number, problems)
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
    verdicts = grade(task, problems, [[each.text for each in several] for several in completions])
    return [
        GradedSample(problem.id, problem.prompt, completion, verdict.outcome, verdict.case)
        for problem, *both in zip(problems, completions, verdicts, strict=True)
        for completion, verdict in zip(*both, strict=True)
    ]


def grade(
    task: Task,
    problems: Sequence[Problem],
    texts: Sequence[Sequence[str]],
    on_progress: Callable[[int], None] | None = None,
) -> list[list[Verdict]]:
    """A verdict for each text of each problem; equal texts of one problem are run once.

    on_progress: is told how many of the texts have theirs, after every few hundred.
    """
    times = Counter((row, text) for row, several in enumerate(texts) for text in several)
    distinct, done = list(times), 0
    found: dict[tuple[int, str], Verdict] = {}
    size = _AT_A_TIME if on_progress else max(1, len(distinct))
    for start in range(0, len(distinct), size):
        some = distinct[start : start + size]
        verdicts = task.grade([problems[row] for row, _ in some], [text for _, text in some])
        found.update(zip(some, verdicts, strict=True))
        done += sum(times[each] for each in some)
        if on_progress:
            on_progress(done)
    return [[found[row, text] for text in several] for row, several in enumerate(texts)]
