"""Several tasks as one: their problems in turns, each graded by its own. Not covered: uneven shares."""

from collections.abc import Sequence
from itertools import chain
from typing import TypeVar

from lit_pref.types import Demonstration, Problem, Split, Task, Verdict

Item = TypeVar("Item")


class Mixture(Task):
    """Problems of several tasks in turns.

    Args:
        tasks: two or more, each of which names its problems (`Problem.id`) as no other does.
    """

    name = "mixture"

    def __init__(self, tasks: Sequence[Task]) -> None:
        if len(tasks) < 2:
            raise ValueError(f"a mixture needs at least 2 tasks, got {len(tasks)}")
        self.tasks = tuple(tasks)
        self.references_pass = all(task.references_pass for task in self.tasks)
        if any(task.failing_references == "error" for task in self.tasks):
            self.failing_references = "error"
        self._task_of: dict[str, int] = {}  # of the problems that were given out

    def problems(self, split: Split, count: int, seed: int) -> list[Problem]:
        """The first `count` of the tasks' problems in turns; with a larger count the same ones come first."""
        several = [
            task.problems(split, share, seed) for task, share in zip(self.tasks, self._shares(count), strict=True)
        ]
        for number, problems in enumerate(several):
            self._task_of |= dict.fromkeys((problem.id for problem in problems), number)
        return _in_turns(several)

    def demonstrations(self, split: Split, count: int, seed: int) -> list[Demonstration]:
        """Each task's own, in turns."""
        shares = zip(self.tasks, self._shares(count), strict=True)
        return _in_turns([task.demonstrations(split, share, seed) for task, share in shares])

    def grade(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[Verdict]:
        """Raises ValueError for a problem that this mixture did not give out."""
        unknown = next((problem.id for problem in problems if problem.id not in self._task_of), None)
        if unknown is not None:
            raise ValueError(f"problem {unknown!r} is of none of the mixture's tasks")
        verdicts: dict[int, Verdict] = {}
        for number, task in enumerate(self.tasks):
            places = [place for place, problem in enumerate(problems) if self._task_of[problem.id] == number]
            graded = task.grade([problems[i] for i in places], [completions[i] for i in places])
            verdicts |= dict(zip(places, graded, strict=True))
        return [verdicts[place] for place in range(len(problems))]

    def _shares(self, count: int) -> list[int]:
        """Of each task, the first ones one more where it does not come out even."""
        return [(count + len(self.tasks) - 1 - number) // len(self.tasks) for number in range(len(self.tasks))]


def _in_turns(several: Sequence[Sequence[Item]]) -> list[Item]:
    longest = max(map(len, several))
    return list(chain.from_iterable(items[i : i + 1] for i in range(longest) for items in several))
