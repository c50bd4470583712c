"""Whether tests are right, asked before anyone is measured by them: each problem's reference has to pass them.

A reference that fails says that the tests are wrong or cannot be run here; every sample would fail too. Each problem is
run once in a process. Not covered: tests that pass too much.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple
from weakref import WeakKeyDictionary

from lit_pref.errors import UserError
from lit_pref.machine.progress import progress_bar
from lit_pref.types import Problem, Task, Verdict

_SHOWN = 5  # problems that a line names
_LEAST_SHOWN = 20  # programs that take long enough to say so

_known: WeakKeyDictionary[Task, dict[tuple[object, ...], Verdict]] = WeakKeyDictionary()


class Gradable(NamedTuple):
    """Problems whose references pass, with the licences that these need, and why each other one is left out, by id."""

    problems: list[Problem]
    left_out: dict[str, str]


def gradable(task: Task, problems: Sequence[Problem], tell: bool = True) -> Gradable:
    """The problems that samples can be graded on; all where references pass by construction (`references_pass`).

    tell: print which ones are left out, the first time that they are. Raises UserError where none is left, and for any
    that fails where the task says so (`failing_references`).
    """
    known = {} if task.references_pass else _known.setdefault(task, {})
    new = [each for each in problems if each.reference and _key(each) not in known and not task.references_pass]
    if new:
        known |= zip(map(_key, new), _run(task, new), strict=True)
    kept, left_out = list[Problem](), dict[str, str]()
    for problem in problems:
        verdict = known.get(_key(problem))
        if verdict is None or verdict.passed:
            kept.append(_licensed(problem, verdict.licence) if verdict else problem)
        else:
            left_out[problem.id] = f"{verdict.outcome}: {verdict.detail}" if verdict.detail else verdict.outcome
    if left_out:
        said = f"{task.name}: the references of {len(left_out):,} of {len(problems):,} problems fail their own tests"
        shown = [f"{name} ({why})" for name, why in list(left_out.items())[:_SHOWN]]
        more = [f"and {len(left_out) - _SHOWN:,} more"] if len(left_out) > _SHOWN else []
        named = "; ".join([*shown, *more])
        if not kept:
            raise UserError(f"{said}, so that nothing can be graded: {named}")
        if task.failing_references == "error":
            raise UserError(f"{said}: {named}; mend them, or leave such problems out: failing_references: leave_out")
        if tell and new:
            print(f"{said}; they are left out: {named}", flush=True)
    return Gradable(kept, left_out)


def _run(task: Task, problems: Sequence[Problem]) -> list[Verdict]:
    asked = [_licensed(problem, None) for problem in problems]
    references = [problem.reference for problem in problems]
    if len(asked) < _LEAST_SHOWN:
        return task.grade(asked, references)
    with progress_bar(f"Running the references of {task.name}", len(asked)):
        return task.grade(asked, references)


def _licensed(problem: Problem, licence: tuple[str, ...] | None) -> Problem:
    check = problem.check
    return problem if check is None else replace(problem, check=replace(check, licence=licence))


def _key(problem: Problem) -> tuple[object, ...]:
    """What a reference's verdict depends on; prompts of messages have no hash."""
    check = problem.check and replace(problem.check, licence=())
    return problem.id, repr(problem.prompt), problem.reference, check, problem.cases, problem.answer
