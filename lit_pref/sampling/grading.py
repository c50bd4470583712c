"""Texts of problems to verdicts: each distinct one is run once."""

from collections import Counter
from collections.abc import Callable, Sequence

from lit_pref.types import Problem, Task, Verdict

_AT_A_TIME = 512  # texts; so many that processors which wait for the last of them cost little


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
