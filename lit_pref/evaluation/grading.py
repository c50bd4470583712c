"""Problems to measure, and counts of verdicts, and of what has none: truncated, without code, harness failures.

A completion that was cut or that holds no code counts as not passed, as everywhere, and is counted separately, since it
needs another mend: more tokens, another prompt. A failure of the harness is never the model's: such a sample counts as
if it had not been drawn.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from lit_pref.types import Outcome, Problem, Split, Task, Verdict

_ENDLESS_PROBLEMS = 1000  # of a task that can make any number: an interval of ±3 points


@runtime_checkable
class Sized(Protocol):
    """A task with a fixed number of problems."""

    def size(self, split: Split) -> int: ...


class HarnessError(RuntimeError):
    """Grading itself failed on all problems: there is no figure, which would blame the model for it."""


class Counts(NamedTuple):
    """Of each problem's samples: how many passed, held no code or answer, were truncated, or could not be graded, which
    is no fault of theirs; each [problems]."""

    passed: Tensor
    no_code: Tensor
    truncated: Tensor
    ungraded: Tensor


def problems_of(
    task: Task, split: Split, count: int | None, seed: int, endless: int = _ENDLESS_PROBLEMS
) -> list[Problem]:
    """`count` problems; None is all of a benchmark, and `endless` of a task without end. Raises ValueError for none."""
    if count is None:
        count = task.size(split) if isinstance(task, Sized) else endless
    if count < 1:
        raise ValueError(f"problems must be >= 1, got {count}")
    return task.problems(split, count, seed)


def ungraded(verdicts: Sequence[Sequence[Verdict]], needed: int) -> dict[int, str]:
    """Which problems have fewer than the needed number of graded samples, by their place, and why.

    Raises HarnessError where all have.
    """
    found = dict[int, str]()
    for place, several in enumerate(verdicts):
        broken = [verdict for verdict in several if verdict.outcome is Outcome.HARNESS_ERROR]
        if broken and len(several) - len(broken) < needed:
            found[place] = broken[0].detail
    if found and len(found) == len(verdicts):
        broken = [verdict for several in verdicts for verdict in several if verdict.outcome is Outcome.HARNESS_ERROR]
        raise HarnessError(f"{len(broken)} of {sum(map(len, verdicts))} gradings failed; the first: {broken[0].detail}")
    return found


def counts(verdicts: Sequence[Sequence[Verdict]], finished: Sequence[Sequence[bool]]) -> Counts:
    """Counts of each problem; `finished` tells of each of its samples whether it came to an end."""
    outcomes = [Counter(verdict.outcome for verdict in several) for several in verdicts]
    return Counts(
        torch.tensor([each[Outcome.PASSED] for each in outcomes]),
        torch.tensor([each[Outcome.NO_CODE] + each[Outcome.NO_ANSWER] for each in outcomes]),
        torch.tensor([sum(not ended for ended in several) for several in finished]),
        torch.tensor([each[Outcome.HARNESS_ERROR] for each in outcomes]),
    )
